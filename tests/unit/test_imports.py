"""Imports point one way: each room sees only rooms below its own, and each library has its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import ldoms

ROOT = Path(ldoms.__file__).parent

INTERFACES = {"hypervisor", "storage", "net", "store", "auth"}
"""Each has one interface and one fake; they do not see each other."""
CLIENTS = {"cli", "bench", "lab"}
"""They see the model and the client of the API, nothing else of us."""
HYPERVISOR = {"hypervisor.engine", "hypervisor.specs", "hypervisor.states"}
"""The interface of the hypervisor, and the values that pass through it: all that a migration sees of that room."""
SERVER = {"api.access", "api.connections", "api.errors", "api.notices", "api.server", "api.peer", "api.wire"} | {
    f"api.routes_{noun}" for noun in ("configuration", "console", "domain", "host", "peer", "service")
}

ALLOWED: Mapping[str, set[str]] = {
    "model": set(),
    "checks": {"model"},
    **{room: {"model"} for room in INTERFACES},
    "console": {"model"},
    "constraints": {"model"},
    "migration": {"model", "checks", *INTERFACES},
    "manager": {"model", "checks", "console", "constraints", "migration", *INTERFACES},
    "api.wire": {"model"},
    "api.exchange": {"model"},
    "api.client": {"model", "api.exchange"},
    **{
        room: {"model", "auth", "migration", "manager", "api", *SERVER} - {room}
        for room in SERVER - {"api.wire", "api.peer"}
    },
    "api.peer": {"model", "auth", "migration", "api.wire"},
    **{room: {"model", "api.client", "api.exchange"} for room in CLIENTS},
}
"""Rooms, and what each may import of ours."""

ABOVE_THE_ROOMS = {"daemon", "manual", "__init__", "api.__init__"}
"""`daemon.py` puts the rooms together, and `manual.py` writes their manual: they see all, and no room sees them."""

LIBRARIES: Mapping[str, set[str]] = {
    "cryptography": {"auth"},
    "pam": {"auth"},
    "qemu": {"hypervisor", "bench"},
    "pyroute2": {"net", "lab"},
    "telnetlib3": {"console"},
    "fastapi": SERVER - {"api.wire", "api.peer", "api.connections"},
    "starlette": {"api.errors", "api.routes_console"},
    "uvicorn": {"api.server", "api.connections"},
    "pydantic": {"api.wire"},
    "httpx": {"api.peer"},
    "lxml": {"constraints", "bench"},
    "rich": {"cli"},
    "psutil": {"hypervisor", "manager", "lab", "bench"},
    "altair": {"bench"},
    "jinja2": {"bench"},
    "vl_convert": {"bench"},
    "structlog": {"auth", "console", "hypervisor", "migration", "manager", "api.access", "api.server", "daemon"},
}
"""Libraries, and the rooms that may import them (docs/dependencies.md)."""


@dataclass(frozen=True)
class Import:
    """Somebody imports something: a module of ours by its dotted name below ``ldoms``, or a library."""

    file: str
    room: str
    name: str
    is_ours: bool


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module by its dotted parts; the files of the API are rooms of their own."""
    if parts[0] == "api" and len(parts) > 1:
        return ".".join(parts[:2])
    return parts[0]


def imports_of(root: Path) -> Iterable[Import]:
    """Every import below a package, wherever in a file it stands."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).with_suffix("")
        room = room_of(relative.parts)
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _names(node):
                first, _, rest = name.partition(".")
                if first == "ldoms" and rest and rest != "__version__":
                    yield Import(str(path), room, rest, is_ours=True)
                elif first not in sys.stdlib_module_names and first != "ldoms":
                    yield Import(str(path), room, first, is_ours=False)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module in ("ldoms", "ldoms.api"):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def offences(imports: Iterable[Import]) -> list[str]:
    """What points the wrong way, in sentences."""
    found = []
    for one in imports:
        if one.room in ABOVE_THE_ROOMS:
            continue
        if one.is_ours:
            room = room_of(tuple(one.name.split(".")))
            if room != one.room and room not in ALLOWED.get(one.room, set()):
                found.append(f"{one.file}: {one.room} imports {one.name}")
            if one.room == "migration" and one.name.startswith("hypervisor") and one.name not in HYPERVISOR:
                found.append(f"{one.file}: migration sees the interface only, not {one.name}")
        elif one.room not in LIBRARIES.get(one.name, set()):
            found.append(f"{one.file}: {one.room} imports the library {one.name}")
    return found


def test_imports_point_one_way() -> None:
    """In the whole package, inside functions too."""
    assert offences(imports_of(ROOT)) == []


def test_every_room_is_in_the_table() -> None:
    """A new room needs its line here, and an old line needs its room."""
    files = [path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py")]
    assert {room_of(file.parts) for file in files} - ABOVE_THE_ROOMS == set(ALLOWED)


@pytest.mark.parametrize(
    ("file", "text", "offence"),
    [
        ("model/a.py", "from ldoms.checks import evaluate", "model imports checks"),
        ("net/a.py", "import ldoms.store.sqlite", "net imports store.sqlite"),
        ("cli/a.py", "def f():\n    from ldoms.manager.host import Host", "cli imports manager.host"),
        ("cli/a.py", "from ldoms.api import server", "cli imports api.server"),
        ("lab/a.py", "from ldoms.bench import probe", "lab imports bench"),
        ("migration/a.py", "from ldoms.hypervisor.qemu import QemuGuest", "not hypervisor.qemu"),
        ("manager/a.py", "import fastapi", "manager imports the library fastapi"),
        ("cli/a.py", "import requests", "cli imports the library requests"),
    ],
)
def test_the_check_can_fail(tmp_path: Path, file: str, text: str, offence: str) -> None:
    """Each sort of wrong import is found in a package that has it."""
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(text)
    (found,) = offences(imports_of(tmp_path))
    assert offence in found


_LIST = """
import sys
from ldoms.cli import brief
class Answer:
    status, notice = 200, ""
    __enter__ = lambda self: self
    __exit__ = lambda self, *what: None
    json = lambda self: []
brief.connect, brief.exchange = (lambda path: None), (lambda *what: Answer())
from ldoms.cli.main import main
sys.argv = ["ldm", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
print(" ".join(sys.modules))
"""
SLOW = {"argparse", "asyncio", "dataclasses", "email", "http", "inspect", "ssl", "typing", "urllib"}
"""What takes longer to import than domains take to list."""


@pytest.mark.parametrize("words", [[], ["-p"], ["ldg1"]])
def test_what_is_polled_imports_next_to_nothing(words: list[str]) -> None:
    """``ldm list`` prints, and has imported no third-party package and nothing that is slow."""
    code = [sys.executable, "-c", _LIST, "list", *words]
    *printed, loaded = subprocess.run(code, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[0].startswith("VERSION" if words == ["-p"] else "NAME")
    packages = {name.partition(".")[0] for name in loaded.split()}
    assert not packages & (set(LIBRARIES) | SLOW)


def test_ldm_starts_with_the_standard_library_alone() -> None:
    """Whatever makes `ldm list` slow is imported only where it is used."""
    code = "import sys, ldoms.cli.dispatch; print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    foreign = set(loaded) & set(LIBRARIES)
    assert not foreign, f"ldm imports {foreign} before it knows what it is asked"
