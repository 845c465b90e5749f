"""docs/reference/commands.md is what the code and the tests make of it."""

from __future__ import annotations

import re

import pytest

from commands import LDOMS, NOT_THERE, PAGE, REFUSAL_TEST, commands_typed, page, row
from ldoms.cli.command import Support
from ldoms.cli.table import COMMANDS
from unit.test_documents import rows


def test_the_page_is_current() -> None:
    """Every command in its order, with its other names and what becomes of it; `make docs` writes it."""
    written = [line.rsplit("|", 2)[0] for line in PAGE.read_text().splitlines()]
    assert written == [line.rsplit("|", 2)[0] for line in page().splitlines()], "run 'make docs'"


def test_the_tests_named_are_there_and_type_the_command() -> None:
    """Each command that does something has one."""
    typed = commands_typed()
    lacking = []
    for name, _, state, test in rows("reference/commands.md", "Command"):
        if state == NOT_THERE:
            continue
        command, named = name.strip("`"), test.strip("`")
        if state == Support.REFUSES.value:
            assert named == REFUSAL_TEST
            assert named in typed
        elif command not in typed.get(named, set()):
            lacking.append(f"{command}: {named or 'no test'}")
    assert not lacking


def test_the_commands_of_ldoms_are_told_from_ours() -> None:
    """None is there twice, and each of ours is marked so in the help."""
    assert len(set(LDOMS)) == len(LDOMS)
    assert [command.name for command in COMMANDS if command.ours] == [
        command.name for command in COMMANDS if command.name not in LDOMS
    ]


@pytest.mark.parametrize("name", ["frobnicate-domain"])
def test_what_is_not_there_is_said(name: str) -> None:
    """A command that nobody has written has a row, too."""
    assert row(name, "") == (f"`{name}`", "", NOT_THERE, "")
    assert re.search(r"\*not\* there", PAGE.read_text())
