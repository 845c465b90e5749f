"""``ldoms-bench workload``: list, load, run and check the workloads, on any PostgreSQL server that can be reached."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ldoms.bench.connection import quoted
from ldoms.bench.pgbench import ensure_pgbench, programs_cache
from ldoms.bench.server import Server, server_at
from ldoms.bench.stage import say
from ldoms.bench.workloads.mix import Mix, mixed_weights, read_mix
from ldoms.bench.workloads.registry import WORKLOADS, find_workload
from ldoms.bench.workloads.running import XML_NAME, RunOptions, printed_checks, read_run, run_workload
from ldoms.bench.workloads.stored import StoredWorkload
from ldoms.bench.workloads.summary import printed
from ldoms.bench.workloads.thinking import ThinkTimes
from ldoms.model.errors import LdomsError, RequestError

USERS = 50
"""As in the paper."""
SCALES = {"small": 0.1, "medium": 1.0, "large": 10.0}
_CLOCK = re.compile(r"(?P<hours>\d+):(?P<minutes>[0-5]?\d)(?:[.:](?P<seconds>[0-5]?\d))?")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def add_workload_commands(verbs: Any) -> None:
    """Add ``workload`` and its commands to those of ``ldoms-bench``."""
    workload = verbs.add_parser(
        "workload",
        help="run OrderEntry, SalesHistory, CallingCircle or StressTest on a PostgreSQL server",
        description="Workloads after SwingBench, for any PostgreSQL server from version 15 on.",
    )
    commands = workload.add_subparsers(required=True, metavar="COMMAND")
    _add_list(commands)
    _add_load(commands)
    _add_run(commands)
    _add_check(commands)


def duration_s(text: str) -> int:
    """A time as ``90``, ``90s``, ``15m``, ``2h``, or SwingBench's ``hh:mm.ss`` (also ``hh:mm`` and ``hh:mm:ss``)."""
    clock = _CLOCK.fullmatch(text)
    if clock:
        return int(clock["hours"]) * 3600 + int(clock["minutes"]) * 60 + int(clock["seconds"] or 0)
    found = re.fullmatch(r"(\d{1,7})([smh]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time: say 90, 90s, 15m, 2h, or hh:mm.ss")
    return int(found[1]) * _UNITS[found[2]]


def _seconds_that_count(text: str) -> int:
    seconds = duration_s(text)
    if not seconds:
        raise argparse.ArgumentTypeError("it must be longer than nothing")
    return seconds


def _factor(text: str) -> float:
    try:
        factor = SCALES.get(text) or float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 100_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a scale: say a number above 0, or {', '.join(SCALES)}")
    return factor


def _assignment(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\w+)=(\d{1,12})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=NUMBER")
    return found[1], int(found[2])


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _add_list(commands: Any) -> None:
    listing = commands.add_parser("list", help="show the workloads, or the transactions of one")
    listing.add_argument("workload", nargs="?", help="one of them, with its transactions and sizes")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_guarded(_list))


def _add_load(commands: Any) -> None:
    load = commands.add_parser("load", help="create and fill a workload's schema; what is there is replaced")
    _add_server(load)
    load.add_argument(
        "--scale",
        type=_factor,
        default=1.0,
        metavar="FACTOR",
        help=f"size of the data: a number, or {', '.join(f'{name} ({value:g})' for name, value in SCALES.items())}",
    )
    load.add_argument(
        "--size", type=_assignment, action="append", default=[], metavar="NAME=N", help="one size of the data itself"
    )
    load.set_defaults(run=_guarded(_load))


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run", help="run a workload, with a line each second", description="Ctrl-C ends a run; its results are kept."
    )
    _add_server(run)
    run.add_argument(
        "--users", "-uc", type=_count, metavar="N", help=f"clients with a connection each; default: {USERS}"
    )
    run.add_argument(
        "--time",
        "-rt",
        type=_seconds_that_count,
        default=60,
        metavar="TIME",
        help="90, 90s, 15m, 2h or hh:mm.ss; default: 60",
    )
    run.add_argument(
        "--warm-up", type=duration_s, default=0, metavar="TIME", help="before that, not counted; default: 0"
    )
    mix = run.add_argument_group("mix")
    mix.add_argument(
        "--mix", "-c", type=Path, metavar="FILE", help="weights as TOML, or a configuration of SwingBench as XML"
    )
    mix.add_argument(
        "--weight", type=_assignment, action="append", default=[], metavar="NAME=N", help="weight of a transaction"
    )
    mix.add_argument(
        "--enable", "-en", type=_names, default=[], metavar="NAMES", help="short names, with commas between"
    )
    mix.add_argument(
        "--disable", "-di", type=_names, default=[], metavar="NAMES", help="short names, with commas between"
    )
    think = run.add_argument_group("think times in milliseconds")
    think.add_argument("--min", "-min", type=int, metavar="MS", help="least within a transaction; default: 0")
    think.add_argument("--max", "-max", type=int, metavar="MS", help="most within a transaction; default: 0")
    think.add_argument("--intermin", "-intermin", type=int, metavar="MS", help="least between transactions; default: 0")
    think.add_argument("--intermax", "-intermax", type=int, metavar="MS", help="most between transactions; default: 0")
    more = run.add_argument_group("more")
    more.add_argument(
        "--rate",
        type=float,
        default=0.0,
        metavar="TPS",
        help="transactions per second in all; default: as fast as it goes",
    )
    more.add_argument("--seed", type=_count, default=1, metavar="N", help="of the clients' random numbers; default: 1")
    more.add_argument("--threads", type=_count, default=1, metavar="N", help="of the load generator; default: 1")
    more.add_argument("--check", action="store_true", help="prove afterwards that nothing was lost")
    more.add_argument(
        "--directory", type=Path, metavar="DIR", help="for the results; default: a new one below build/workload"
    )
    more.add_argument("--results", "-r", type=Path, metavar="FILE", help="the results as XML here, too")
    run.set_defaults(run=_guarded(_run))


def _add_check(commands: Any) -> None:
    check = commands.add_parser("check", help="prove that the data are consistent, and that nothing was lost")
    _add_server(check)
    check.add_argument(
        "--directory", type=Path, metavar="DIR", help="of a run whose acknowledged transactions must all be there"
    )
    check.add_argument("--json", action="store_true", help="as JSON")
    check.set_defaults(run=_guarded(_check))


def _add_server(parser: Any) -> None:
    parser.add_argument("workload", help="its name: see 'ldoms-bench workload list'")
    server = parser.add_argument_group(
        "server", "What is not said is what psql would take: PGHOST, PGDATABASE, ~/.pgpass, the local socket."
    )
    server.add_argument(
        "--dsn", "-cs", metavar="WORDS", help="connection string of libpq: a URI, or host=... dbname=..."
    )
    server.add_argument("--host", metavar="HOST", help="address, or directory of a socket")
    server.add_argument("--port", type=_count, metavar="N")
    server.add_argument("--database", metavar="NAME")
    server.add_argument("--user", "-u", metavar="NAME")


def _server(arguments: argparse.Namespace) -> Server:
    parts = {
        "host": arguments.host,
        "port": arguments.port,
        "dbname": arguments.database,
        "user": arguments.user,
    }
    given = {name: str(value) for name, value in parts.items() if value is not None}
    if arguments.dsn is not None and given:
        raise RequestError("give either --dsn or the parts of a server's address, not both", code="bad-dsn")
    return server_at(arguments.dsn or " ".join(f"{name}={quoted(value)}" for name, value in given.items()))


def _guarded(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except (LdomsError, OSError) as error:  # OSError: results that cannot be written
            print(f"ldoms-bench: {error}", file=sys.stderr)
            return 1

    return run


def _list(arguments: argparse.Namespace) -> int:
    chosen = [find_workload(arguments.workload)] if arguments.workload else list(WORKLOADS)
    if arguments.json:
        say(json.dumps([_described(workload) for workload in chosen], indent=2))
    elif arguments.workload:
        (workload,) = chosen
        say(f"{workload.title}, in schema {workload.schema}\n")
        say(f"{'NAME':<6}{'WEIGHT':>6}  {'ON':<5}TRANSACTION")
        for kind in workload.kinds:
            say(f"{kind.short:<6}{kind.weight:>6}  {'yes' if kind.is_on else 'no':<5}{kind.title}")
        say(f"\n{'SIZE':<12}{'DEFAULT':>10}{'MOST':>10}")
        for name, value in workload.scales.items():
            say(f"{name:<12}{value:>10,}{_most(workload, name):>10}")
    else:
        say(f"{'NAME':<15}{'TITLE':<15}{'SIZES':<36}TRANSACTIONS")
        for workload in chosen:
            sizes = ", ".join(f"{value:,} {name}" for name, value in workload.scales.items())
            kinds = " ".join(kind.short for kind in workload.kinds if kind.is_on)
            say(f"{workload.name:<15}{workload.title:<15}{sizes:<36}{kinds}")
    return 0


def _most(workload: StoredWorkload, name: str) -> str:
    return f"{workload.most[name]:,}" if name in workload.most else ""


def _described(workload: StoredWorkload) -> dict[str, Any]:
    return {
        "name": workload.name,
        "title": workload.title,
        "schema": workload.schema,
        "sizes": dict(workload.scales),
        "transactions": [
            {"short": kind.short, "title": kind.title, "weight": kind.weight, "on": kind.is_on}
            for kind in workload.kinds
        ],
    }


def _load(arguments: argparse.Namespace) -> int:
    workload, server = find_workload(arguments.workload), _server(arguments)
    sizes = workload.sizes({**workload.scaled(arguments.scale), **dict(arguments.size)})
    words = ", ".join(f"{value:,} {name}" for name, value in sizes.items())
    say(f"Loading {workload.title} with {words} ...")
    began = time.monotonic()
    workload.install(server, sizes)
    say(f"Loaded in {time.monotonic() - began:.1f} s, {workload.size_mib(server):.0f} MiB.")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    workload, server = find_workload(arguments.workload), _server(arguments)
    mix = read_mix(arguments.mix) if arguments.mix else Mix()
    options = _run_options(arguments, workload, mix)
    directory = arguments.directory or _new_directory(workload)
    if arguments.results and not _is_writable(arguments.results):
        raise RequestError(f"{arguments.results} cannot be written: is its directory there?", code="no-results")
    pgbench = ensure_pgbench(programs_cache())
    summary, result = run_workload(workload, pgbench, server, options, directory, say)
    if arguments.results:
        arguments.results.write_bytes((directory / XML_NAME).read_bytes())
    say(f"\nSaved results to {arguments.results or directory / XML_NAME}")
    say("Completed Run." if not summary.interrupted else "Completed Run, before its time.")
    say("")
    for line in printed(summary):
        say(line)
    for message in summary.messages[:5]:
        say(message)
    if not summary.transactions:
        say("No transaction was acknowledged after the warm-up.")
    is_well = bool(summary.transactions) and not summary.clients_aborted
    if arguments.check:
        say("")
        items = workload.check(server, summary.run, result)
        for line in printed_checks(items):
            say(line)
        is_well = is_well and all(item.holds for item in items)
    return 0 if is_well else 1


def _run_options(arguments: argparse.Namespace, workload: StoredWorkload, mix: Mix) -> RunOptions:
    think_ms = dict(mix.think_ms)
    for name in ("min", "max", "intermin", "intermax"):
        if getattr(arguments, name) is not None:
            think_ms[f"{name}_ms"] = getattr(arguments, name)
    if not 0 <= arguments.rate <= 1_000_000:
        raise RequestError(f"the rate must be from 0 to 1,000,000 per second, not {arguments.rate:g}", code="bad-mix")
    weights = mixed_weights(workload, mix, dict(arguments.weight), enable=arguments.enable, disable=arguments.disable)
    users = arguments.users or mix.users or USERS
    return RunOptions(
        users=users,
        seconds=arguments.time,
        warm_up_s=arguments.warm_up,
        rate_per_s=arguments.rate,
        seed=arguments.seed,
        threads=arguments.threads,
        weights=weights,
        think=replace(mix, think_ms=think_ms).think or ThinkTimes(),
        settings={
            "users": str(users),
            "time": f"{arguments.time}s",
            "warm-up": f"{arguments.warm_up}s",
            "rate": f"{arguments.rate:g}",
            "seed": str(arguments.seed),
            "weights": " ".join(f"{short}={weight}" for short, weight in weights.items()),
        },
    )


def _is_writable(path: Path) -> bool:
    return not path.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK)


def _new_directory(workload: StoredWorkload) -> Path:
    return Path("build", "workload", f"{time.strftime('%Y%m%d-%H%M%S')}-{workload.name}")


def _check(arguments: argparse.Namespace) -> int:
    workload, server = find_workload(arguments.workload), _server(arguments)
    run, result = None, None
    if arguments.directory:
        summary, result = read_run(arguments.directory)
        if summary.workload != workload.name:
            raise RequestError(f"{arguments.directory} is a run of {summary.title}", code="no-run")
        run = summary.run
    items = workload.check(server, run, result)
    if arguments.json:
        say(json.dumps([{"name": one.name, "holds": one.holds, "detail": one.detail} for one in items], indent=2))
    else:
        for line in printed_checks(items):
            say(line)
    return 0 if all(item.holds for item in items) else 1
