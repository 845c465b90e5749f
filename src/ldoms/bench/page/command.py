"""``ldoms-bench report``: writes the page of a run again, from its record."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ldoms.bench.page import write_page
from ldoms.bench.record import RECORD_NAME, read_record
from ldoms.bench.stage import say
from ldoms.model.errors import LdomsError, RequestError

RUNS = "runs"
"""The directory of all runs, below that of what is built."""


def add_report(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = verbs.add_parser("report", help="write the page of a measured migration again, and print where it is")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "which", nargs="?", default="", metavar="ID", help="its id or the begin of it, directory or record"
    )
    asked.add_argument("--latest", action="store_true", help="the run that was recorded last")
    parser.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    parser.set_defaults(run=lambda arguments: main_report(arguments.build, arguments.which))


def find_run(run: str, runs: Path) -> Path:
    """The file of a run's record.

    Args:
        run: an id, or as much of its begin as no other has; the directory of a run; or the record itself.
            Empty = the run that was recorded last.
        runs: where runs lie, each in a directory that has its id as a name.

    Raises:
        RequestError: there is no such run, or there are several.
    """
    if not run:
        return _latest(runs)
    path = Path(run)
    if "/" in run or path.name == RECORD_NAME:
        return path / RECORD_NAME if path.is_dir() else path
    if (whole := runs / run / RECORD_NAME).exists():
        return whole
    found = [record for record in _records(runs) if record.parent.name.startswith(run)]
    if len(found) > 1:
        names = ", ".join(record.parent.name for record in found)
        raise RequestError(f"'{run}' begins the ids of several runs: {names}", code="ambiguous-run")
    if found:
        return found[0]
    if (path / RECORD_NAME).exists():
        return path / RECORD_NAME
    raise RequestError(f"there is no run '{run}' below {runs}", code="no-run")


def _latest(runs: Path) -> Path:
    found = _records(runs)
    if not found:
        raise RequestError(f"there is no run below {runs}", code="no-run")
    return max(found, key=lambda record: record.stat().st_mtime)


def _records(runs: Path) -> list[Path]:
    return sorted(runs.glob(f"*/{RECORD_NAME}"))


def main_report(build: Path, run: str) -> int:
    """Write the page of a run and print where it is, or say in a sentence why it could not be; see `find_run`."""
    try:
        path = find_run(run, build / RUNS)
        say(str(write_page(read_record(path), path.parent)))
    except LdomsError as error:
        print(f"ldoms-bench report: {error.message}", file=sys.stderr)
        return 1
    return 0
