"""`ldm console`: what the terminal's end does by itself."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import termios
import threading
from collections.abc import Iterator

import pytest

from ldoms.api.client import Conversation
from ldoms.cli import terminal
from ldoms.cli.terminal import Escapes, converse, raw_terminal
from ldoms.model.errors import HostError, LdomsError


@pytest.mark.parametrize(
    ("typed", "before"),
    [
        (b"~.", b""),
        (b"ls\r~.", b"ls\r"),
        (b"ls\n~.x", b"ls\n"),
        (b"x~.", None),
        (b"~~.", None),
        (b"~~~.", None),
        (b"~?~.", b"~?"),
        (b"~?x~.", None),
        (b"~~\r~.", b"~~\r"),
    ],
)
def test_the_way_out_is_found_here(typed: bytes, before: bytes | None) -> None:
    """Also when it comes key by key: then the tilde has been sent already."""
    assert Escapes().before_leaving(typed) == before
    escapes = Escapes()
    answers = [escapes.before_leaving(bytes([code])) for code in typed]
    assert (b"" in answers) == (before is not None)


@pytest.mark.parametrize("way", ["well", "error", "term"])
def test_the_terminal_is_as_before(way: str) -> None:
    """On every way out: done, an error, a signal."""
    controller, device = pty.openpty()
    try:
        before = termios.tcgetattr(device)
        with (
            pytest.raises((HostError, SystemExit)) if way != "well" else contextlib.nullcontext(),
            raw_terminal(device),
        ):
            assert not termios.tcgetattr(device)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            if way == "error":
                raise HostError("it broke", code="broken")
            if way == "term":
                os.kill(os.getpid(), signal.SIGTERM)
        assert termios.tcgetattr(device) == before
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        os.close(controller)
        os.close(device)


class Talk(Conversation):
    """A console at which a guest answers each line with its length."""

    def __init__(self, error: LdomsError | None = None) -> None:
        self.sent = b""
        self.is_closed = False
        self._said: list[bytes] = [b"login: "]
        self._news = threading.Semaphore(1)
        self._error = error

    def read(self) -> bytes:
        self._news.acquire()
        if self._error and self.sent:
            raise self._error
        return self._said.pop(0) if self._said else b""

    def send(self, data: bytes) -> None:
        self.sent += data
        if data:
            self._said.append(b"%d\r\n" % len(data))
            self._news.release()

    def close(self) -> None:
        self.is_closed = True
        self._news.release()


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """Standard input and output: source, the end that types, the end that reads, sink."""
    source, typing = os.pipe()
    reading, sink = os.pipe()
    yield source, typing, reading, sink
    for descriptor in (source, typing, reading, sink):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_a_pipe_is_typed_and_the_answer_awaited(
    pipes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no more to type: the console is left when the guest has been silent for a while."""
    monkeypatch.setattr(terminal, "QUIET_S", 0.1)
    source, typing, reading, sink = pipes
    os.write(typing, b"date\r")
    os.close(typing)
    talk = Talk()
    converse(talk, source, sink)
    assert talk.sent == b"date\r"
    assert talk.is_closed
    assert os.read(reading, 100) == b"login: 5\r\n"


def test_the_escape_leaves_at_once(pipes: tuple[int, int, int, int]) -> None:
    """What was typed before it arrives, the escape itself stays here."""
    source, typing, _, sink = pipes
    os.write(typing, b"exit\r~.more")
    talk = Talk()
    converse(talk, source, sink)
    assert talk.sent == b"exit\r"
    assert talk.is_closed


def test_a_manager_that_goes_away_is_told(pipes: tuple[int, int, int, int]) -> None:
    """In one sentence, as everywhere."""
    source, typing, _, sink = pipes
    os.write(typing, b"x")
    with pytest.raises(HostError, match="it was killed"):
        converse(Talk(HostError("it was killed", code="no-ldmd")), source, sink)
