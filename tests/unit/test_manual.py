"""The manual pages have everything that can be typed, and roff reads them as they are meant."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.cli.command import Command
from ldoms.cli.help import shown
from ldoms.cli.table import COMMANDS, aliases
from ldoms.daemon import make_parser
from ldoms.manager.config import Config, Places
from ldoms.manual import attributes, escape, ldm_page, ldmd_page, prose, sentence, write

CHARACTERS = {
    "\\(rs": "\\",
    "\\-": "-",
    "\\(aq": "'",
    "\\(ga": "`",
    "\\(ha": "^",
    "\\(ti": "~",
    "\\(dq": '"',
    "\\&": "",
}
FONTS = ("\\fB", "\\fI", "\\fR")
MACROS = {".TH", ".SH", ".SS", ".PP", ".TP", ".RS", ".RE", ".B", ".BR", ".br", ".nh", ".ad"}
PAGES = pytest.mark.parametrize("page", [ldm_page, ldmd_page])
Page = Callable[[], Iterable[str]]


def read(roff: str) -> str:
    """Text as a reader sees it: fonts gone, special characters as themselves."""
    text = re.sub(r"\\f[BIR]", "", roff)
    return re.sub(r"\\(\([a-z]{2}|[-&])", lambda match: CHARACTERS[match[0]], text)


def lines(page: Page) -> list[str]:
    return "\n".join(page()).split("\n")


def terms(page: Page) -> dict[str, str]:
    """What each tagged paragraph says, by its tag."""
    text = lines(page)
    return {read(text[at + 1]): read(text[at + 2]) for at, line in enumerate(text) if line == ".TP"}


def block(command: Command) -> list[str]:
    """The lines about one command: from its synopsis to the next one, or to the next heading."""
    text = [read(line) for line in lines(ldm_page)]
    start = text.index(command.synopsis)
    ends = (at for at in range(start + 1, len(text)) if text[at].startswith(("ldm ", ".SH", ".SS")))
    found = text[start : next(ends)]
    return found[:-1] if found[-1] == ".TP" else found


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_with_all_that_can_be_typed(command: Command) -> None:
    """Synopsis, details, every alias and every option with its help: as `ldm --help COMMAND` has them."""
    _, meaning, *rest = block(command)
    assert meaning.startswith(sentence(command.summary))
    assert command.details in meaning
    also = re.search(r"Also called (.*?)\.( \(Ours\.\))?$", meaning)
    assert (also[1].split(", ") if also else []) == list(aliases(command))
    options = [line for option in command.options for line in (".TP", shown(option), sentence(option.help))]
    assert rest == ([".RS", *options, ".RE"] if options else [])


def test_options_of_the_daemon() -> None:
    """Each option that ldmd reads has an entry with its help."""
    known = terms(ldmd_page)
    for action in make_parser()._actions:
        (entry,) = [term for term in known if term.startswith(action.option_strings[0])]
        assert set(action.option_strings) <= set(re.split(r"[, ]+", entry))
        assert known[entry] == sentence(action.help or "")


def test_keys_of_the_configuration() -> None:
    """Each key has an entry in its section that says what it means, and its default."""
    text = [read(line) for line in lines(ldmd_page)]
    for part in fields(Config):
        (start,) = [at for at, line in enumerate(text) if line.startswith(f".SS [{part.name}]: ")]
        section = text[start + 1 : next(at for at in range(start + 1, len(text)) if text[at].startswith(".S"))]
        assert section[1::3] == [key.name for key in fields(getattr(Config(), part.name))]
        for key, meaning in zip(section[1::3], section[2::3], strict=True):
            assert re.fullmatch(r".{10,}\. Default: .+\.", meaning), f"[{part.name}] {key}: {meaning}"


def test_files_are_those_that_the_daemon_uses() -> None:
    """Configuration, state, socket and pid file, where `Places` has them."""
    places = Places(Path("/"))
    wanted = {str(path) for path in (places.config, places.state, places.run, places.socket, places.pid_file)}
    assert wanted <= set(terms(ldmd_page))


@PAGES
def test_nothing_is_left_unescaped(page: Page) -> None:
    """Outside macros, nothing that roff would read as its own; and every macro is one of man(7)."""
    for line in lines(page):
        assert line, "an empty line makes roff break the paragraph"
        words = line.split()
        if line.startswith("."):
            assert words[0] in MACROS
        assert not line.startswith("'")
        left = line
        for known in (*CHARACTERS, *FONTS):
            left = left.replace(known, "")
        assert "\\" not in left, f"an escape that is not meant: {line}"
        if words[0] != ".TH":
            assert not re.search(r"[-'\"`^~]", left), f"not escaped: {line}"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_escaped_text_is_read_as_it_was_written(text: str) -> None:
    """Whatever a help text will have in it: no line becomes a command, and nothing is lost."""
    escaped = escape(text)
    assert not escaped.startswith((".", "'"))
    assert read(escaped) == text


@pytest.mark.parametrize(
    ("written", "roff"),
    [
        ("such as ``64G``; empty", "such as \\fB64G\\fR; empty"),
        ("``-l`` at the start", "\\fB\\-l\\fR at the start"),
        ("what is *ours*", "what is \\fIours\\fR"),
        ("a * b", "a * b"),
        (".hidden", "\\&.hidden"),
    ],
)
def test_marks_of_docstrings_become_fonts(written: str, roff: str) -> None:
    """Code in bold, stressed words in italics, everything else as it stands."""
    assert prose(written) == roff


def test_attributes_of_a_docstring() -> None:
    """Each with all of its lines; what is not in the section is none."""
    text = "First: line.\n\nAttributes:\n    one: begins,\n        and ends.\n    two_s: short.\n"
    assert attributes(text) == {"one": "begins, and ends.", "two_s": "short."}
    assert attributes("First: line.") == {}


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_has_nothing_to_complain_about(tmp_path: Path) -> None:
    """Both pages, as `make docs` writes them, without a warning."""
    for path in write(tmp_path / "man"):
        words = ["groff", "-ww", "-man", "-z", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        assert done.stderr == "", f"{path.name}: {done.stderr}"
