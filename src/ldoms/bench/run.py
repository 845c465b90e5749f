"""``ldoms-bench run``: the experiment on a domain of one's own, or in a lab that is made for it."""

from __future__ import annotations

import argparse
import ipaddress
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ldoms.bench.experiment import RunOptions, run_experiment
from ldoms.bench.findings import went_well
from ldoms.bench.loads import CommandLoad, Load, WorkloadLoad
from ldoms.bench.move import Move, move_in_lab
from ldoms.bench.observe.hosts import Place
from ldoms.bench.observe.observation import Outside
from ldoms.bench.page import write_page
from ldoms.bench.pgbench import LoadOptions, ensure_pgbench, programs_cache
from ldoms.bench.record import RECORD_NAME
from ldoms.bench.server import Server, query, server_at
from ldoms.bench.stage import SOURCE, Stage, heading, say, stage
from ldoms.bench.summary import summary
from ldoms.bench.workloads import find_workload
from ldoms.bench.workloads.mix import Mix, mixed_weights, read_mix
from ldoms.model.errors import HostError, LdomsError, RequestError

LAB, LAB_DOMAIN, LAB_ADDRESS = "run", "ldg1", "10.77.0.10"
LAB_RATE_PER_S = 15.0
LAB_ASK_S, LAB_CLOSELY_S, LAB_CONNECT_S = 0.5, 0.1, 10.0
"""Where QEMU emulates the processor an answer costs a guest milliseconds (docs/how-to/measure-a-migration.md)."""
CONNECT_RATIO = 50
"""A new connection is made once for so many other questions."""
LAB_SCALE = {"customers": 2_000, "warehouses": 50}
"""OrderEntry where QEMU emulates the processor: more takes minutes to load."""
READY_S = 120.0
LONGEST_S = 3600.0
_SERVER_PLACE = "select coalesce(host(inet_server_addr()), ''), coalesce(inet_server_port(), 0)"
DEFAULT_WORKLOAD = "orderentry"

_EPILOG = """\
Run it as root on the host where the domain runs, or anywhere with --on-source. With --workload its data must be in the
database: ldoms-bench workload load. See docs/how-to/measure-a-migration.md.

  ldoms-bench run --lab
  ldoms-bench run --domain ldg1 --to t4-2 -p pfile --on-target 'ssh root@t4-2' \\
      --dsn 'host=10.0.0.5 dbname=bench user=postgres' --workload orderentry
  ldoms-bench run --domain ldg1 --to t4-2 --address 10.0.0.5 --port 443 --command './load.sh'
"""


def add_run(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = verbs.add_parser(
        "run",
        help="move a domain under load and record everything that is seen of it",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_argument_group("what is moved")
    where.add_argument("--lab", action="store_true", help="a database in a lab that is made for it, and taken away")
    where.add_argument("--domain", metavar="DOM", default="")
    where.add_argument("--to", metavar="HOST", default="", help="[USER@]HOST[:NEWNAME], as for ldm migrate-domain")
    where.add_argument("-p", dest="password_file", metavar="FILE", default="", help="password on the target")
    where.add_argument("-c", dest="certificates", action="store_true", help="the hosts trust each other")
    where.add_argument(
        "--with", dest="more", metavar="OPTIONS", default="", help="more of ldm migrate-domain: '--max-suspend 500ms'"
    )
    where.add_argument(
        "--on-source", metavar="COMMAND", default="", help="runs a command on the source (default: this is it)"
    )
    where.add_argument(
        "--on-target", metavar="COMMAND", default="", help="runs a command on the target: 'ssh root@t4-2'"
    )
    where.add_argument(
        "--on-client",
        metavar="COMMAND",
        default="",
        help="runs a command where clients are, with the files of this machine",
    )
    load = parser.add_argument_group("load")
    load.add_argument("--dsn", default="", help="the database in the domain, as libpq takes it; a superuser sees most")
    load.add_argument(
        "--workload", metavar="NAME", default="", help=f"of ldoms-bench workload (lab: {DEFAULT_WORKLOAD})"
    )
    load.add_argument("--command", metavar="COMMAND", default="", help="your own load, for a shell; ended by SIGTERM")
    load.add_argument(
        "--users", type=_positive(int), metavar="N", help=f"default: what the mix says, or {LoadOptions().clients}"
    )
    load.add_argument(
        "--rate",
        type=_positive(float),
        metavar="TPS",
        help=f"transactions/s asked for (default: as many as go; in a lab {LAB_RATE_PER_S:g})",
    )
    load.add_argument(
        "--mix",
        type=Path,
        metavar="FILE",
        help="weights and think times: TOML, or a configuration of SwingBench as XML",
    )
    load.add_argument(
        "--weight",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=N",
        help="share of a kind of transaction in the mix",
    )
    outside = parser.add_argument_group("probes from outside")
    outside.add_argument("--address", default="", help="of the guest (default: that of the database)")
    outside.add_argument(
        "--port", type=int, default=0, metavar="N", help="to which connections are made (default: the database's)"
    )
    outside.add_argument(
        "--ask-every",
        type=_positive(float),
        metavar="S",
        help=f"seconds between two pings, and two questions to the database (default: {Outside().ping_s:g}; in a lab"
        f" {LAB_ASK_S:g}, and {LAB_CLOSELY_S:g} while it moves); what they find is no finer, and each costs the guest"
        " something",
    )
    times = parser.add_argument_group("seconds")
    for name, default, words in (
        ("warm-up", 20.0, "of load before anything is measured"),
        ("before", 20.0, "measured before the move"),
        ("after", 20.0, "measured after it"),
    ):
        times.add_argument(
            f"--{name}", type=_positive(float), default=default, metavar="S", help=f"{words} (%(default)g)"
        )
    parser.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    parser.set_defaults(run=main_run)


def main_run(arguments: argparse.Namespace) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        with _prepared(arguments) as options:
            record = run_experiment(options)
        page = write_page(record, options.runs / record.id)
    except LdomsError as error:
        print(f"ldoms-bench run: {error.message}", file=sys.stderr)
        return 1
    heading("What it took")
    for line in summary(record):
        say(line)
    say("")
    say(f"{'Record':<20} {page.with_name(RECORD_NAME)}")
    say(f"{'Page':<20} {page}")
    return 0 if went_well(record) else 1


# Somebody's own machines


@contextmanager
def _prepared(arguments: argparse.Namespace) -> Iterator[RunOptions]:
    """The options of a run, as they were typed; a lab is there meanwhile, if one was asked for."""
    if arguments.workload and arguments.command:
        raise RequestError("--workload and --command are two loads: give one", code="two-loads")
    if arguments.lab:
        with _lab(arguments) as options:
            yield options
        return
    if not arguments.domain or not arguments.to:
        raise RequestError("give --domain and --to, or --lab", code="no-domain")
    if arguments.workload and not arguments.dsn:
        raise RequestError("a workload needs a database: give --dsn", code="no-dsn")
    server, client = (server_at(arguments.dsn) if arguments.dsn else None), tuple(shlex.split(arguments.on_client))
    pgbench = ensure_pgbench(programs_cache()) if server is not None else None
    load: Load | None = None
    if arguments.command:
        load = CommandLoad(arguments.command, client)
    elif arguments.workload:
        assert server is not None
        assert pgbench is not None
        load = workload_of(arguments, server, pgbench, arguments.rate or 0.0, client)
    yield RunOptions(
        move=move_of(arguments),
        runs=arguments.build / "runs",
        load=load,
        outside=_outside(arguments, server, client),
        pgbench=pgbench,
        warm_up_s=arguments.warm_up,
        before_s=arguments.before,
        after_s=arguments.after,
        longest_s=LONGEST_S,
    )


def move_of(arguments: argparse.Namespace) -> Move:
    """The move as it was typed."""
    options = [*shlex.split(arguments.more)]
    if arguments.certificates:
        options.append("-c")
    if arguments.password_file:
        options += ["-p", arguments.password_file]
    host = arguments.to.rpartition("@")[2].split(":")[0]
    target = Place(host, tuple(shlex.split(arguments.on_target))) if arguments.on_target else None
    source = Place(*_source(arguments.on_source))
    return Move(arguments.domain, arguments.to, source, target, tuple(options))


def _source(command: str) -> tuple[str, tuple[str, ...]]:
    """What to call the source until it has said its name, and how a command is run there."""
    prefix = tuple(shlex.split(command))
    if not prefix:
        return platform.node(), prefix
    # ssh -i FILE root@t4-1 env NAME=VALUE; ldoms-lab exec t4-1 --
    names = [word for word in prefix if not set("/=") & set(word.lstrip("-")) and not word.startswith("-")]
    users = [word for word in names if "@" in word]
    return (users or names or ["source"])[-1].rpartition("@")[2], prefix


def _outside(arguments: argparse.Namespace, server: Server | None, client: tuple[str, ...]) -> Outside:
    """What is asked from outside; where a database is reached it says itself."""
    address, port = arguments.address, arguments.port
    if server is not None and not (address and port):
        row = query(server, _SERVER_PLACE, prefix=client)[0]
        address, port = address or row[0], port or int(row[1])
    if address and is_loopback(address):
        address = ""  # a tunnel, or a server on this very machine: nothing of the guest would be seen
    return asked_every(
        Outside(address=address, port=port, server=server, prefix=client), arguments.ask_every or Outside().ping_s
    )


def is_loopback(address: str) -> bool:
    """Whether an address is one of this machine alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def workload_of(
    arguments: argparse.Namespace, server: Server, pgbench: Path, rate_per_s: float, prefix: Sequence[str]
) -> WorkloadLoad:
    """One of our workloads, as the command line and the file of its mix say.

    Raises:
        RequestError: there is no such workload, or that is no mix of it.
    """
    workload = find_workload(arguments.workload or DEFAULT_WORKLOAD)
    mix = read_mix(arguments.mix) if arguments.mix else Mix()
    return WorkloadLoad(
        workload,
        server,
        pgbench,
        LoadOptions(clients=arguments.users or mix.users or LoadOptions().clients, rate_per_s=rate_per_s),
        weights=mixed_weights(workload, mix, dict(arguments.weight)),
        think=mix.think,
        prefix=prefix,
    )


def _assignment(text: str) -> tuple[str, int]:
    name, _, weight = text.partition("=")
    if not name or not weight.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=NUMBER")
    return name.upper(), int(weight)


def _positive(kind: type) -> type:
    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return float(value) if kind is float else int(value)

    read.__name__ = "number"
    return read  # type: ignore[return-value]


# A lab


@contextmanager
def _lab(arguments: argparse.Namespace) -> Iterator[RunOptions]:
    if arguments.domain or arguments.to or arguments.dsn:
        raise RequestError("--lab makes a domain of its own: leave out --domain, --to and --dsn", code="lab-run")
    pgbench = ensure_pgbench(programs_cache())
    heading("A lab: two hosts, each with its own ldmd, and a client")
    with stage(LAB, "--confine", "--strands-per-cpu", "2") as made:
        server = start_database(made, LAB_DOMAIN)
        load: Load = CommandLoad(arguments.command, made.client)
        if not arguments.command:
            workload = workload_of(arguments, server, pgbench, arguments.rate or LAB_RATE_PER_S, made.client)
            scale = {name: LAB_SCALE.get(name, size) for name, size in workload.workload.scales.items()}
            heading(f"The data of {workload.workload.title}: {_listed(scale)}")
            workload.workload.install(server, scale, prefix=made.client)
            load = workload
        yield RunOptions(
            move=move_in_lab(made, LAB_DOMAIN, options=shlex.split(arguments.more)),
            runs=arguments.build / "runs",
            load=load,
            outside=outside_of(made, server, arguments.ask_every or LAB_ASK_S),
            pgbench=pgbench,
            warm_up_s=arguments.warm_up,
            before_s=arguments.before,
            after_s=arguments.after,
            longest_s=300.0,
            facts=lab_facts(made),
        )


def start_database(made: Stage, domain: str) -> Server:
    """Make a domain with PostgreSQL on the first host of a lab that has no other guests, and start it.

    Raises:
        HostError: a command has failed, or the database does not answer in time.
    """
    heading(f"A PostgreSQL domain on host {SOURCE}")
    made.type(made.lab("guest", "--host", SOURCE, domain, "postgres"))
    made.type(made.on(SOURCE, "ldm", "start-domain", domain))
    server, deadline = Server(LAB_ADDRESS), time.monotonic() + READY_S
    while True:
        try:
            query(server, "select 1", prefix=made.client, timeout_s=5)
            return server
        except HostError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def asked_every(outside: Outside, seconds: float) -> Outside:
    """The same with other intervals."""
    return replace(outside, ping_s=seconds, sql_s=seconds, connect_s=seconds * CONNECT_RATIO)


def outside_of(made: Stage, server: Server, ask_s: float = LAB_ASK_S) -> Outside:
    """The probes of a lab's database, asked by its client: seldom, but while the domain moves."""
    return Outside(
        address=server.host,
        port=server.port,
        server=server,
        prefix=tuple(made.client),
        ping_s=ask_s,
        sql_s=ask_s,
        connect_s=LAB_CONNECT_S,
        closely_s=min(ask_s, LAB_CLOSELY_S),
    )


def lab_facts(made: Stage) -> dict[str, str]:
    """What is worth knowing of a lab."""
    return {f"link of {host}": link for host, link in made.links.items()}


def _listed(scale: dict[str, int]) -> str:
    return ", ".join(f"{size} {name}" for name, size in scale.items())
