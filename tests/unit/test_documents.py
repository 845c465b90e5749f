"""Pages of the reference say what the code does: tables of both are compared, row by row."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

import ldoms
from ldoms.api import routes_configuration, routes_console, routes_domain, routes_host, routes_peer, routes_service
from ldoms.api.errors import STATUS
from ldoms.bench import record
from ldoms.bench.database import statistics
from ldoms.bench.page.render import SECTIONS
from ldoms.bench.probe import ProbeFigures
from ldoms.checks.evaluate import RULES
from ldoms.manager.config import Config
from ldoms.model import boost, errors, findings, forecast, guest, migration, queue
from ldoms.model.events import EventKind
from unit.test_imports import LIBRARIES

SOURCE = Path(ldoms.__file__).parent
ROOT = SOURCE.parents[1]
DOCS = ROOT / "docs"
ROUTES = (routes_domain, routes_console, routes_service, routes_configuration, routes_host, routes_peer)
ROLES = {"may_review": "review", "may_manage": "manage", "_migration_of": "token"}
MODULES = {"python-pam": "pam", "qemu.qmp": "qemu", "vl-convert-python": "vl_convert"}
"""Packages that are imported under another name."""

Row = tuple[str, ...]


def rows(page: str, heading: str, title: str = "") -> list[Row]:
    """The cells of every table whose first header is `heading`, in a page or in its section `title`, row after row."""
    text = (DOCS / page).read_text()
    if title:
        assert f"\n## {title}" in text, f"{page} has no section {title}"
        text = text.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0]
    found: list[Row] = []
    inside = False
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not cells[0].startswith("---"):
            found.append(cells)
    assert found, f"{page} has no table that begins with {heading} {title}"
    return found


def words(cell: str) -> set[str]:
    """What a cell lists, separated by commas, without the quotes of code."""
    return {word.strip().strip("`") for word in cell.split(",") if word.strip()}


def nodes(folder: str = "") -> Iterator[ast.AST]:
    """Everything in the source below a folder; fakes are not meant."""
    for path in sorted((SOURCE / folder).rglob("*.py")):
        if not path.name.startswith("fake"):
            yield from ast.walk(ast.parse(path.read_text()))


def calls(folder: str = "") -> Iterator[tuple[ast.Call, str]]:
    """Every call in the source, with the name of what is called."""
    for node in nodes(folder):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node, node.func.id if isinstance(node.func, ast.Name) else node.func.attr


def raised() -> Iterator[tuple[ast.expr | None, str]]:
    """Whatever the source gives as the code of an error, with the family, which is empty where it depends."""
    for node in nodes():
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "default_code":
                    yield line.value, node.name
        if isinstance(node, ast.Dict):
            yield from ((value, "") for key, value in zip(node.keys, node.values, strict=True) if _is_code(key))
    for call, name in calls():
        if name == "error" and len(call.args) == 2:
            yield call.args[1], "MigrationError"  # Journal.error(reason, code)
        given = next((word.value for word in call.keywords if word.arg == "code"), None)
        yield given, name if hasattr(errors, name) else ""


def _is_code(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and key.value == "code"


def test_every_error_code_is_explained() -> None:
    """Codes and families in errors.md are those that the source raises: none missing, none that is gone."""
    documented = {row[0].strip("`"): words(row[1]) for row in rows("reference/errors.md", "Code")}
    in_code: dict[str, set[str]] = {}
    for code, family in raised():
        if isinstance(code, ast.Constant) and isinstance(code.value, str):
            in_code.setdefault(code.value, set()).update({family} - {""})
    assert set(documented) == set(in_code)
    lacking = {code: families - documented[code] for code, families in in_code.items() if families - documented[code]}
    assert not lacking, f"errors.md lacks families: {lacking}"


def test_statuses_of_families() -> None:
    """The HTTP status of each family; what the table of the API does not have is 500."""
    documented = {row[0].strip("`"): int(row[2]) for row in rows("reference/errors.md", "Family")}
    in_code = {kind.__name__: status for kind, status in STATUS.items()}
    assert documented == {"Cancelled": 500, **in_code}


def test_every_key_of_the_configuration() -> None:
    """Section by section: the keys in their order, each with its default."""
    for part in dataclasses.fields(Config):
        documented = [row[:2] for row in rows("reference/configuration.md", "Key", f"`[{part.name}]`")]
        assert documented == list(_keys(getattr(Config(), part.name))), f"section [{part.name}]"


def _keys(values: object) -> Iterator[Row]:
    assert dataclasses.is_dataclass(values)
    for key in dataclasses.fields(values):
        default = json.dumps(getattr(values, key.name))
        yield f"`{key.name}`", "the host name" if key.name == "name" else f"`{default}`"


def test_every_rule_and_finding() -> None:
    """Each finding that the rules can make, with its severities; each rule, with what it applies to, in its order."""
    documented = rows("reference/checks.md", "Finding")
    in_code: dict[str, set[str]] = {}
    for call, name in calls("checks"):
        if name == "Finding":
            assert isinstance(call.args[0], ast.Constant)
            severities = {
                node.attr.lower()
                for node in ast.walk(call.args[1])
                if isinstance(node, ast.Attribute) and node.attr in findings.Severity.__members__
            }
            in_code.setdefault(str(call.args[0].value), set()).update(severities)
    assert {row[0].strip("`"): words(row[2]) for row in documented} == in_code
    applies = {row[1].strip("`"): words(row[3]) for row in documented}
    assert applies == {rule.name: {moves.value for moves in rule.applies_to} for rule in RULES}
    assert list(applies) == [rule.name for rule in RULES], "the order of the table"


def test_every_route() -> None:
    """Method, path, who may call, and what it does, in the words of the code."""
    documented = rows("reference/api.md", "Call")
    assert documented == [row for module in ROUTES for row in _routes(module.router.routes)]


def _routes(routes: Sequence[object]) -> Iterator[Row]:
    for route in routes:
        assert isinstance(route, APIRoute)
        role = next(ROLES[name] for name in _guards(route.dependant) if name in ROLES)
        summary = route.description.splitlines()[0].replace("``", "`")
        for method in sorted(route.methods):
            yield f"`{method} {route.path}`", role, summary


def _guards(dependant: object) -> Iterator[str]:
    for child in getattr(dependant, "dependencies", ()):
        yield getattr(child.call, "__name__", "")
        yield from _guards(child)


def test_every_event() -> None:
    """Each kind of event, in the order of the code."""
    assert [row[0].strip("`") for row in rows("reference/api.md", "Event")] == [kind.value for kind in EventKind]


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("The record", migration.MigrationReport),
        ("`phases`", migration.PhaseRecord),
        ("`passes`", migration.PassRecord),
        ("`plan`", migration.MigrationPlan),
        ("`changes`", migration.LimitChange),
        ("`stall`", migration.Stall),
        ("`forecast`", forecast.Forecast),
        ("`basis`", forecast.ForecastBasis),
        ("`storage`", migration.CopiedDisk),
        ("`queued`", queue.Queued),
        ("`boost`", boost.Boost),
        ("`clock`", migration.ClockReading),
        ("`guest_time`", guest.GuestTime),
        ("`service`", guest.TimeService),
        ("`guest_clock`", migration.GuestClock),
        ("`findings`", findings.Finding),
    ],
)
def test_every_field_of_the_report(title: str, kind: type) -> None:
    """Each field of the report and of what is in it, with the unit that its name ends with."""
    documented = rows("reference/report.md", "Field", title)
    names = [field.name for field in dataclasses.fields(kind)]
    assert sorted(row[0].strip("`") for row in documented) == sorted(names)
    units = {"_bytes": "bytes", "_bytes_s": "bytes/s", "_percent": "%", "_at": "s since 1970", "seconds": "s"}
    for name, unit, *_ in documented:
        ending = next((end for end in units if name.strip("`").endswith(end)), "_s" if name.endswith("_s`") else "")
        assert unit == units.get(ending, "s" if ending == "_s" else ""), f"{name} has the unit {unit!r}"


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("The record", record.RunRecord),
        ("`conditions`", record.Conditions),
        ("`load`", record.LoadRecord),
        ("`series`", record.Series),
        ("`probes`", ProbeFigures),
        ("`guest_clock`", record.GuestClockRecord),
    ],
)
def test_every_field_of_a_measurement(title: str, kind: type) -> None:
    """Each field of the record of a run and of what is in it, in the order of the code."""
    documented = [row[0].strip("`") for row in rows("reference/measurement.md", "Field", title)]
    assert documented == [field.name for field in dataclasses.fields(kind)]


def test_every_section_of_the_page() -> None:
    """The page of a run has the sections that are documented, in their order."""
    documented = [row[0] for row in rows("reference/measurement.md", "Section")]
    assert documented == [title for _, title in SECTIONS]


def test_every_dependency_has_its_reason() -> None:
    """Packages of pyproject.toml and setup/system, and the rooms that may import them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    development = project["optional-dependencies"]["dev"]
    script = (ROOT / "setup/system").read_text()
    debian = re.sub(r"#.*", "", " ".join(re.findall(r"PACKAGES=\(([^)]*)\)", script))).split()
    run_time = {row[0].strip("`"): words(row[2]) for row in rows("dependencies.md", "Package", "Run time")}
    assert set(run_time) == {_package(text) for text in project["dependencies"]}
    assert {row[0].strip("`") for row in rows("dependencies.md", "Package", "Development")} == set(
        map(_package, development)
    )
    assert {row[0].strip("`") for row in rows("dependencies.md", "Package", "Debian packages")} == set(debian)
    rooms = {package: LIBRARIES.get(MODULES.get(package, package), set()) for package in run_time}
    assert run_time == {package: {room.partition(".")[0] for room in known} for package, known in rooms.items()}


def _package(requirement: str) -> str:
    return re.split(r"[<>=]", requirement)[0]


def test_links_lead_somewhere() -> None:
    """Every link between pages: the file is there, and has the heading. Links to pages yet to be written are named."""
    pages = [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]
    broken, unwritten = [], []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            if ":" in path:
                continue
            file = (page.parent / path) if path else page
            link = f"{page.relative_to(ROOT)}: {target}"
            if not file.exists() and re.search(r"(how-to/[\w-]+|tutorial)\.md$", path):
                unwritten.append(link)
            elif not file.exists() or (anchor and anchor not in _anchors(file)):
                broken.append(link)
    assert not broken
    if unwritten:
        pytest.skip(f"these pages are not written yet: {', '.join(unwritten)}")


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("room", ["hypervisor", "manager"])
def test_every_file_of_a_large_room_has_its_place(room: str) -> None:
    """Whoever looks for the place of a change finds it in the page on the architecture; fakes are not listed."""
    text = (DOCS / "explanation/architecture.md").read_text().split(f"\n### Inside `{room}`\n")[1].split("\n#")[0]
    listed = set(re.findall(r"`(\w+\.py)`", text)) - {"fake.py"}
    assert listed == {path.name for path in (SOURCE / room).glob("[a-z]*.py") if not path.name.startswith("fake")}


@pytest.mark.parametrize(
    ("title", "catalogue"),
    [
        ("Load Profile", statistics.LOAD_PROFILE),
        ("Instance Efficiency Percentages", statistics.EFFICIENCY),
        ("Time Model Statistics", statistics.TIME_MODEL),
        ("Instance Activity Stats", statistics.ACTIVITY),
    ],
)
def test_every_statistic_of_the_database_report_is_defined(
    title: str, catalogue: Sequence[statistics.Statistic]
) -> None:
    """In the order of the report, with the names and sources that it shows."""
    documented = [(row[0].strip("`"), row[1].strip("`")) for row in rows("reference/database-report.md", "AWR", title)]
    assert documented == [(statistic.awr, statistic.source) for statistic in catalogue]
