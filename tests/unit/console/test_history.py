"""What is kept of a console: in memory, and in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from structlog.testing import capture_logs

from ldoms.console.history import History
from ldoms.console.log import ConsoleLog


@given(some.lists(some.binary(max_size=40)), some.integers(1, 50))
def test_the_last_part_is_remembered(pieces: list[bytes], size: int) -> None:
    """However it came, exactly as much as fits."""
    history = History(size=size)
    for piece in pieces:
        history.add(piece)
    assert history.data == b"".join(pieces)[-size:]


def test_a_replay_begins_with_a_line() -> None:
    """Once something was forgotten; before that it is all there."""
    history = History(b"one\ntwo\nthree", size=13)
    assert history.replay() == b"two\nthree"
    assert History(b"one\ntwo", size=13).replay() == b"one\ntwo"


@pytest.mark.parametrize(
    "question",
    [b"\x1b[6n", b"\x1b[5n", b"\x1b[?6n", b"\x1b[c", b"\x1b[>0c", b"\x1b[=c", b"\x1bZ", b"\x1b[18t", b"\x05",
     b"\x1b]11;?\x07", b"\x1b]4;1;?\x1b\\", b"\x1bP+q544e\x1b\\", b"\x1b[?2026$p"],
)  # fmt: skip
def test_a_terminal_is_not_asked_again(question: bytes) -> None:
    """Its answer would be typed at the guest, which asked long ago."""
    assert History(b"a" + question + b"b").replay() == b"ab"


def test_colours_stay() -> None:
    """What only changes what is seen is shown as it was."""
    text = b"\x1b[1;31mred\x1b[0m\x1b[2J\x1b[10;20H\x1b]0;title\x07"
    assert History(text).replay() == text


def test_a_log_grows_and_is_changed_for_a_new_one(tmp_path: Path) -> None:
    """The closed ones are numbered, the youngest first; the oldest goes. Only its owner reads them."""
    log = ConsoleLog(tmp_path / "ldg1", size=10, kept=2)
    assert not log.path.exists()
    for number in range(4):
        log.write(b"file %d done\n" % number)
    log.write(b"on")
    log.write(b"ward")
    found = {path.name: path.read_bytes() for path in log.path.parent.iterdir()}
    assert found == {"console-log": b"onward", "console-log.0": b"file 3 done\n", "console-log.1": b"file 2 done\n"}
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.parent.stat().st_mode & 0o777 == 0o700
    assert log.tail(8) == b"e\nonward"
    assert log.tail(100) == b"file 3 done\nonward"


def test_a_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Where it was."""
    for word in (b"before ", b"after"):
        log = ConsoleLog(tmp_path)
        log.write(word)
        log.close()
    assert ConsoleLog(tmp_path).tail(100) == b"before after"


def test_what_cannot_be_logged_is_said_once(tmp_path: Path) -> None:
    """And does no harm; when it can again it is."""
    (tmp_path / "file").write_text("in the way")
    log = ConsoleLog(tmp_path / "file" / "ldg1")
    with capture_logs() as logs:
        log.write(b"lost")
        log.write(b"lost")
    assert [entry["event"] for entry in logs] == ["console-not-logged"]
    (tmp_path / "file").unlink()
    log.write(b"kept")
    assert log.tail(100) == b"kept"
