"""Writes docs/reference/commands.md: every command of LDoms, what becomes of it here, and a test that types it.

``python tests/commands.py`` writes the page (``make docs``); `unit/test_command_page.py` fails when it is not true.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ldoms.cli.command import Command, Support
from ldoms.cli.table import COMMANDS, aliases, canonical

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/reference/commands.md"
NOT_THERE = "not"

LDOMS: tuple[str, ...] = (
    *("add-domain", "set-domain", "remove-domain", "list-domain", "bind-domain", "unbind-domain", "start-domain"),
    *("stop-domain", "panic-domain", "migrate-domain", "cancel-operation", "cancel-reconf", "start-reconf"),
    *("list-dependencies", "evacuate-io", "restore-io", "list-history", "list-logctl", "set-logctl"),
    *("add-vcpu", "set-vcpu", "remove-vcpu", "add-core", "set-core", "remove-core"),
    *("add-crypto", "set-crypto", "remove-crypto", "add-memory", "set-memory", "remove-memory", "list-rsrc-group"),
    *("set-socket", "list-socket", "grow-socket", "shrink-socket", "add-cmi", "set-cmi", "remove-cmi", "grow-cmi"),
    *("shrink-cmi", "list-cmi", "list-permits", "add-vsw", "set-vsw", "remove-vsw", "add-vnet", "set-vnet"),
    *("remove-vnet", "list-netdev", "list-netstat", "add-vds", "remove-vds", "add-vdsdev", "set-vdsdev"),
    *("remove-vdsdev", "add-vdisk", "set-vdisk", "remove-vdisk", "add-vsan", "set-vsan", "remove-vsan", "add-vhba"),
    *("set-vhba", "remove-vhba", "rescan-vhba", "list-hba", "add-vcc", "set-vcc", "remove-vcc", "set-vcons"),
    *("add-variable", "set-variable", "remove-variable", "list-variable"),
    *("add-spconfig", "set-spconfig", "remove-spconfig", "list-spconfig", "init-system", "list-bindings"),
    *("list-constraints", "list-devices", "list-services", "add-policy", "set-policy", "remove-policy"),
    *("add-io", "set-io", "remove-io", "create-vf", "destroy-vf", "list-io", "set-hvdump", "list-hvdump"),
    *("start-hvdump", "add-vdpcs", "remove-vdpcs", "add-vdpcc", "remove-vdpcc"),
)
"""The commands of Oracle VM Server for SPARC up to 3.6, in the order of their nouns."""

OTHERWISE = (
    "unit/cli/test_completion.py",
    "integration/test_completion.py",
    "unit/manager/",
    "left_over",
    "without_sense",
)
"""Tests that name commands and do not type them, or only wrongly."""
REFUSAL_TEST = "unit/cli/test_commands.py::test_what_only_sparc_has_is_answered_in_one_line"
_BY_NAME: Mapping[str, Command] = {command.name: command for command in COMMANDS}
_INTRODUCTION = """# Commands

Every command of Oracle VM Server for SPARC up to 3.6, and what becomes of it here. It *works*; or it *answers*, with
one line and exit status 1 or with an empty list, because it is about something that only SPARC servers have; or it is
*not* there. Options and properties of each: `ldm --help COMMAND`, or `man ldm`. The last column names a test that types
the command, below `tests/`. `make docs` writes this page from the table of commands and from the tests.

| Command | Also called | State | Test |
|---|---|---|---|
"""
_OURS = """
Ours, which LDoms does not have:

| Command | Also called | State | Test |
|---|---|---|---|
"""


def page() -> str:
    """The page as it is to be."""
    tests = tests_of(commands_typed())
    ours = [command.name for command in COMMANDS if command.name not in LDOMS]
    return _INTRODUCTION + _rows(LDOMS, tests) + _OURS + _rows(ours, tests)


def _rows(names: Iterable[str], tests: Mapping[str, str]) -> str:
    return "".join(f"| {' | '.join(row(name, tests.get(name, '')))} |\n" for name in names)


def row(name: str, test: str) -> tuple[str, str, str, str]:
    """The cells of a command."""
    command = _BY_NAME.get(name)
    if command is None:
        return f"`{name}`", "", NOT_THERE, ""
    others = ", ".join(f"`{other}`" for other in aliases(command))
    return f"`{name}`", others, command.support.value, f"`{test}`" if test else ""


def tests_of(typed: Mapping[str, set[str]]) -> dict[str, str]:
    """A test for each command: with a real host if there is one, and that types little else."""
    chosen = {command.name: REFUSAL_TEST for command in COMMANDS if command.support is Support.REFUSES}
    for name in _BY_NAME.keys() - chosen.keys():
        known = [test for test, commands in typed.items() if name in commands]
        order = [(not test.startswith("integration/"), len(typed[test]), test) for test in known]
        if order:
            chosen[name] = min(order)[2]
    return chosen


def commands_typed() -> dict[str, set[str]]:
    """The commands that each test types, by ``file::test``."""
    found: dict[str, set[str]] = {}
    for path in sorted(TESTS.glob("*/**/test_*.py")):
        tree = ast.parse(path.read_text())
        tables = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} & tables.keys()
                commands = {name for part in (node, *(tables[name] for name in used)) for name in _typed_in(part)}
                test = f"{path.relative_to(TESTS)}::{node.name}"
                if not any(part in test for part in OTHERWISE):
                    found[test] = commands
    return found


def _typed_in(node: ast.AST) -> Iterator[str]:
    """Commands in the strings below a node: a name with its hyphen, or a line that begins with any name."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and not one.value.endswith("."):
            first, *rest = one.value.split() or [""]
            name = canonical(first)
            is_line = bool(rest) and re.fullmatch(r"-.*|ldg\d|primary", rest[0]) is not None
            if name in _BY_NAME and ("-" in first or is_line or first == name == one.value):
                yield name


if __name__ == "__main__":
    PAGE.write_text(page())
