"""Whatever is typed after any command: it is done, or refused in a sentence; nobody ever sees a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldoms.cli.command import Command, Support
from ldoms.cli.main import run
from ldoms.cli.table import COMMANDS, aliases
from ldoms.cli.words import OPERANDS, PROPERTIES, Kind, is_optional, plain
from unit.cli.wired import Wired, WiredClient, wire

EXAMPLES = 15
"""For each command."""
OUTSIDE = {"add-trust", "console"}
"""They go out to another host, or take over the terminal."""
ENDLESS = {("list-netstat", "-t"), ("list-netstat", "-c")}
"""Options that make a command go on for as long as one likes."""

KNOWN = {
    Kind.DOMAIN: ("primary", "ldg1", "ldg2", "nobody"),
    Kind.DISK_SERVICE: ("primary-vds0", "nowhere"),
    Kind.VOLUME: ("a@primary-vds0", "b@primary-vds0", "a@nowhere", "@", "a@"),
    Kind.DISK: ("vdisk0", "vdisk1"),
    Kind.SWITCH: ("primary-vsw0", "nowhere"),
    Kind.NETWORK: ("vnet0", "vnet1"),
    Kind.CONCENTRATOR: ("primary-vcc0", "nowhere"),
    Kind.SPCONFIG: ("factory-default", "one"),
    Kind.TRUSTED: ("t4-2", "tracy@t4-2:new", "[::1]"),
    Kind.VARIABLE: ("auto-boot?", "x"),
    Kind.POLICY: ("high-usage", "nowhere"),
    Kind.FILE: ("/images/b.raw", "/nowhere", "relative"),
}
VALUES = (
    "",
    "1",
    "0",
    "-1",
    "4G",
    "1M",
    "0x1",
    "\u00b2",
    "99999999999999999999",
    "on",
    "a,b",
    "[1]",
    "5000-5100",
    "00:14:4f:fc:00:01",
)

anything = st.one_of(
    st.sampled_from(VALUES), st.text(max_size=8), st.sampled_from(["--", "-", "-x", "--help", "=", "a=b"])
)


def operand(word: str) -> st.SearchStrategy[str]:
    """What may stand for a word of a synopsis, or not."""
    offer = OPERANDS.get(plain(word), ())
    words = KNOWN[offer] if isinstance(offer, Kind) else offer or VALUES
    return st.one_of(st.sampled_from(words), st.sampled_from(words), anything)


@st.composite
def lines(draw: st.DrawFn, command: Command) -> list[str]:
    """A command line that has the shape of the synopsis, more or less."""
    words = [draw(st.sampled_from([command.name, *aliases(command)]))]
    options = [option for option in command.options if (command.name, option.flag) not in ENDLESS]
    for option in draw(st.lists(st.sampled_from(options), max_size=3)) if options else []:
        value = st.one_of(st.sampled_from(option.choices or VALUES), operand(option.value))
        words += [option.flag, draw(value)] if option.value else [option.flag]
    for name in draw(st.lists(st.sampled_from(command.properties), max_size=3)) if command.properties else []:
        offer = PROPERTIES.get(name, ())
        known = KNOWN[offer] if isinstance(offer, Kind) else offer
        value = draw(st.one_of(st.sampled_from(known or VALUES), st.sampled_from(VALUES), st.text(max_size=5)))
        words.append(f"{name}={value}")
    for word in command.operands.split():
        if not is_optional(word) or draw(st.booleans()):
            words.append(draw(operand(word)))
    if draw(st.integers(0, 4)) == 0:
        words.insert(draw(st.integers(1, len(words))), draw(anything))
    return words


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    """A host that lives through all the examples, and whatever they leave of it."""
    with asyncio.Runner() as runner:
        made = wire(runner, tmp_path_factory.mktemp("any"))
        yield made
        runner.run(made.host.stop())


def typed(words: list[str]) -> tuple[int, str, str]:
    """Exit status, output and errors of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(words)
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if command.name not in OUTSIDE and command.support is not Support.REFUSES],
    ids=lambda command: command.name,
)
def test_no_words_break_a_command(command: Command, wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is 0, 1 or 2; a refusal is a sentence on standard error, and never one about our own mistake."""
    monkeypatch.setattr("ldoms.cli.dispatch.Client", lambda command="": WiredClient(wired, command))
    monkeypatch.setattr("sys.stdin", io.StringIO())

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    @given(lines(command))
    def survives(words: list[str]) -> None:
        status, out, err = typed(words)
        assert status in (0, 1, 2), words
        assert "Traceback" not in out + err
        assert "internal" not in err
        if status:
            assert err.strip(), f"{words}: nothing was said"
        if status == 2:
            assert "Usage:" in err, words

    survives()


@pytest.mark.parametrize("words", [["start-domain", "\udcff"], ["\udcff"], ["set-variable", "a=\udcff", "ldg1"]])
def test_words_that_are_no_text(words: list[str]) -> None:
    """Bytes that no UTF-8 has are refused before anybody is asked."""
    status, out, err = typed(words)
    assert (status, out) == (2, "")
    assert "is not text in UTF-8" in err


def test_the_check_can_fail(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours comes through."""
    monkeypatch.setattr("ldoms.cli.dispatch.Client", lambda command="": WiredClient(wired, command))
    monkeypatch.setattr(wired.host.manager.listing, "host", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        typed(["list-devices"])
