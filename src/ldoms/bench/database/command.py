"""``ldoms-bench database-report``: what a database server does, without any migration."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldoms.bench.database.report import database_report
from ldoms.bench.database.snapshot import Snapshot, take_snapshot
from ldoms.bench.database.text import render
from ldoms.bench.record import DatabaseReport, Stretch
from ldoms.bench.server import Server, server_at
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import LdomsError, RequestError

DEFAULT_S = 60.0
LONGEST_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What is asked.

    Attributes:
        dsn: of libpq: a URI, or settings; empty = what the environment says (PGHOST and so on).
        seconds: to wait between the two snapshots.
        save: where to keep a snapshot, and do nothing else.
        since: a file with the first snapshot, taken earlier.
        json: print the report as JSON.
    """

    dsn: str
    seconds: float = DEFAULT_S
    save: Path | None = None
    since: Path | None = None
    json: bool = False


def add_command(verbs: Any) -> None:
    """Add the command to those of ``ldoms-bench``."""
    parser = verbs.add_parser(
        "database-report",
        help="print what a PostgreSQL server does, in the manner of AWR",
        description="Print what a PostgreSQL server (15 or later) has done between two moments, in the manner of AWR: "
        "now and some seconds later, or a snapshot kept with --save and now. Nothing in the server is changed.",
    )
    parser.add_argument(
        "--dsn",
        default="",
        metavar="DSN",
        help="server and database, as psql takes them; default: PGHOST, PGDATABASE, ...",
    )
    moments = parser.add_mutually_exclusive_group()
    moments.add_argument(
        "--seconds", type=_seconds, default=DEFAULT_S, metavar="N", help="between the two moments; default: %(default)g"
    )
    moments.add_argument("--save", type=Path, metavar="FILE", help="only keep a snapshot of now in FILE")
    moments.add_argument("--since", type=Path, metavar="FILE", help="begin with the snapshot in FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def main_database_report(options: ReportOptions) -> int:
    """Do what is asked, and print it, or why that was not possible.

    Returns:
        0, or 1 if there is no report.
    """
    try:
        server = server_at(options.dsn)
        if options.save is not None:
            write_snapshot(take_snapshot(server), options.save)
            return 0
        report = measure(server, options)
    except LdomsError as error:
        print(f"database-report: {error.message}", file=sys.stderr)
        return 1
    _print(json.dumps(to_wire(report), indent=1) if options.json else render(report).rstrip("\n"))
    return 0


def measure(server: Server, options: ReportOptions) -> DatabaseReport:
    """Take the snapshots, or read the first, and compare them.

    Raises:
        LdomsError: as `take_snapshot`, `read_snapshot` and `database_report`.
    """
    if options.since is not None:
        begin = read_snapshot(options.since)
    else:
        begin = take_snapshot(server)
        time.sleep(options.seconds)
    return database_report(server, {Stretch.DURING: (begin, take_snapshot(server))})


def write_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Keep a snapshot in a file.

    Raises:
        RequestError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(to_wire(snapshot)) + "\n")
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}", code="no-snapshot-file") from error


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot back.

    Raises:
        RequestError: there is none, or it is not one of ours.
    """
    try:
        return from_wire(Snapshot, json.loads(path.read_text()))
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}", code="no-snapshot-file") from error
    except ValueError as error:
        raise RequestError(f"{path} is not a snapshot of database-report", code="no-snapshot-file") from error


def _run(arguments: argparse.Namespace) -> int:
    return main_database_report(
        ReportOptions(arguments.dsn, arguments.seconds, arguments.save, arguments.since, arguments.json)
    )


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever reads has seen enough. Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0, up to {LONGEST_S:g}")
    return seconds
