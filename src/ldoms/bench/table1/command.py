"""``ldoms-bench table1``: the lab, the domain, and one migration after the other with other control-domain CPUs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ldoms.bench.experiment import RunOptions, run_experiment
from ldoms.bench.loads import WorkloadLoad
from ldoms.bench.move import move_in_lab
from ldoms.bench.pgbench import LoadOptions, ensure_pgbench, programs_cache
from ldoms.bench.record import Conditions, RunRecord
from ldoms.bench.run import outside_of
from ldoms.bench.server import Server, query
from ldoms.bench.stage import SOURCE, TARGET, Stage, heading, say, stage
from ldoms.bench.table1.cells import Attempt, CellRun, cell_run, order
from ldoms.bench.table1.drawing import write_drawing
from ldoms.bench.table1.report import Result, lines
from ldoms.bench.workloads import find_workload
from ldoms.model.errors import HostError, LdomsError, RequestError
from ldoms.model.migration import Outcome

LAB, DOMAIN, ADDRESS = "table1", "ldg1", "10.77.0.10"
READY_S = 300.0
LONGEST_S = 240.0
ATTEMPTS = 3
"""Of each run: without KVM a guest may not survive a move on a busy machine (docs/how-to/migrate.md)."""
# As the server's user, who may write there; of something that is at hand and not empty pages.
_FILL = """copy (select 1) to program 'f=/dev/shm/fill; : >$f;
while [ $(stat -c %s $f) -lt {size} ]; do cat /usr/lib/postgresql/*/bin/postgres >>$f; done'"""


@dataclass(frozen=True, slots=True)
class Table1Options:
    """The size of the experiment.

    Attributes:
        strands_per_cpu: with 24, 8 strands are a third of a host CPU.
        memory, fill_mib: of the guest; as much of it is filled by a file in memory, in place of the paper's large SGA.
        rate_per_s: transactions asked for.
        customers, warehouses: that the database has.
    """

    cpus: tuple[int, ...] = (8, 16, 24)
    rounds: int = 3
    strands_per_cpu: int = 24
    vcpus: int = 8
    memory: str = "2G"
    fill_mib: int = 768
    users: int = 50
    rate_per_s: float = 2.0
    warm_up_s: float = 12.0
    before_s: float = 8.0
    after_s: float = 8.0
    customers: int = 1_000
    warehouses: int = 20

    def quick(self) -> Table1Options:
        """One run of each, shorter ones, and a smaller database: the guest has a third of a CPU to load it with."""
        return replace(
            self, rounds=1, fill_mib=400, warm_up_s=6.0, before_s=4.0, after_s=4.0, customers=300, warehouses=10
        )


def run_table1(build: Path, options: Table1Options) -> Result:
    """Measure everything, print the table, and write ``table1.json`` and ``table1.svg`` into `build`.

    Raises:
        LdomsError: the lab or the domain could not be made, or no run at all came about.
    """
    pgbench = ensure_pgbench(programs_cache())
    build.mkdir(parents=True, exist_ok=True)
    heading(f"A lab: two hosts, whose CPUs are {options.strands_per_cpu} strands each")
    with stage(LAB, "--confine", "--strands-per-cpu", str(options.strands_per_cpu)) as made:
        result = _Table1(made, build, pgbench, options).run()
    heading("Table 1")
    for line in lines(result):
        say(line)
    written = [build / "table1.json", *write_drawing(result, build)]
    written[0].write_text(json.dumps(result.to_wire(), indent=1) + "\n")
    say("")
    for path in written:
        say(f"{'':<14}{path}")
    return result


class _Table1:
    """One lab and one domain, which goes back and forth."""

    def __init__(self, made: Stage, build: Path, pgbench: Path, options: Table1Options) -> None:
        self._stage, self._build, self._pgbench, self._options = made, build, pgbench, options
        self._server = Server(ADDRESS)
        self._workload = find_workload("orderentry")
        self._host = SOURCE
        self._cpus: dict[str, int] = {}
        self._failed: list[Attempt] = []

    def run(self) -> Result:
        """Every run of the experiment."""
        options = self._options
        self._make_domain()
        wanted = order(options.cpus, options.rounds)
        runs: list[CellRun] = []
        conditions: Conditions | None = None
        for number, (cpus, round_number) in enumerate(wanted, start=1):
            heading(f"Run {number} of {len(wanted)}: {cpus} CPUs for each control domain")
            record = self._measure(cpus, round_number)
            if record is None:
                continue
            conditions = conditions or record.conditions
            runs.append(cell_run(record, cpus, round_number, options.vcpus / options.strands_per_cpu))
            _say_run(runs[-1])
            if number < len(wanted):
                self._have_answer()
        if not runs:
            raise HostError("no migration came about: see above for the reasons", code="nothing-measured")
        return Result(tuple(runs), _settings(options), conditions, tuple(self._failed), tuple(wanted))

    # One run

    def _measure(self, cpus: int, round_number: int) -> RunRecord | None:
        """A migration with so many control CPUs, made again if the guest did not come through; None if it never did."""
        for _ in range(ATTEMPTS):
            for host in (SOURCE, TARGET):
                self._set_control_cpus(host, cpus)
            try:
                record = run_experiment(self._run_options(f"table1-{cpus}-{round_number}"))
                if record.migration.outcome is Outcome.DONE and record.runs_on == record.migration.target:
                    self._host = record.migration.target
                    return record
                reason = record.migration.cause or f"the domain runs on {record.runs_on}"
            except HostError as error:
                reason = error.message
            say(f"this run does not count: {reason}")
            self._failed.append(Attempt(cpus, round_number, reason))
            self._revive()
        return None

    def _run_options(self, identity: str) -> RunOptions:
        options = self._options
        return RunOptions(
            move=move_in_lab(self._stage, DOMAIN, self._host),
            runs=self._build / "runs",
            load=WorkloadLoad(
                self._workload,
                self._server,
                self._pgbench,
                LoadOptions(clients=options.users, rate_per_s=options.rate_per_s),
                prefix=self._stage.client,
            ),
            outside=outside_of(self._stage, self._server),
            pgbench=self._pgbench,
            warm_up_s=options.warm_up_s,
            before_s=options.before_s,
            after_s=options.after_s,
            longest_s=LONGEST_S,
            counted=False,
            identity=identity,
            facts={"strands per CPU": str(options.strands_per_cpu)},
        )

    def _set_control_cpus(self, host: str, wanted: int) -> None:
        """As the paper does it: CPUs are added to the control domain, or taken from it."""
        now = self._cpus.get(host) or self._control_cpus(host)
        if now != wanted:
            verb = "add-vcpu" if now < wanted else "rm-vcpu"
            self._stage.type(self._stage.on(host, "ldm", verb, str(abs(wanted - now)), "primary"))
        self._cpus[host] = wanted

    def _control_cpus(self, host: str) -> int:
        (view,) = json.loads(self._stage.output(self._stage.on(host, "ldm", "list", "--json", "primary")))
        return int(view["domain"]["constraints"]["vcpus"])

    # The domain

    def _make_domain(self) -> None:
        options = self._options
        heading(f"A PostgreSQL domain with {options.vcpus} virtual CPUs and {options.memory} of memory on {SOURCE}")
        words = ["--host", SOURCE, "--vcpus", str(options.vcpus), "--memory", options.memory, DOMAIN, "postgres"]
        self._stage.type(self._stage.lab("guest", *words))
        self._stage.type(self._stage.on(SOURCE, "ldm", "start-domain", DOMAIN))
        self._have_answer()
        heading(f"The data of {self._workload.title}, and {options.fill_mib} MiB of memory filled")
        scale = {"customers": options.customers, "warehouses": options.warehouses}
        self._workload.install(self._server, {**self._workload.scales, **scale}, prefix=self._stage.client)
        self._fill()

    def _fill(self) -> None:
        size = self._options.fill_mib << 20
        query(self._server, _FILL.format(size=size), prefix=self._stage.client, timeout_s=READY_S)

    def _have_answer(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                query(self._server, "select 1", prefix=self._stage.client, timeout_s=10)
                return
            except HostError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def _revive(self) -> None:
        """Have the domain run and answer again, wherever it is: as it is if it does, else started afresh."""
        for host in (SOURCE, TARGET):
            self._stage.wait_for_manager(host)
        self._host = self._stage.runs_on(DOMAIN)
        if self._host not in (SOURCE, TARGET):
            raise HostError(f"{DOMAIN} runs on {self._host}", code="guest-gone")
        with suppress(HostError):
            query(self._server, "select 1", prefix=self._stage.client, timeout_s=30)
            return
        self._stage.type(self._stage.on(self._host, "ldm", "stop-domain", "-f", DOMAIN))
        self._stage.type(self._stage.on(self._host, "ldm", "start-domain", DOMAIN))
        self._have_answer()
        self._fill()


def _say_run(run: CellRun) -> None:
    suspended = "unknown" if run.suspension_s is None else f"{run.suspension_s * 1000:.0f} ms"
    say("")
    say(
        f"{run.control_cpus} CPUs: {run.total_s:.1f} s in all, {run.copy_s:.1f} s of copying"
        f" {run.transferred_mib:.0f} MiB in {run.passes} passes, suspended {suspended}"
    )
    for loss in run.lost:
        say(f"LOST: {loss}")


def _settings(options: Table1Options) -> dict[str, str]:
    return {
        "cpus": ",".join(map(str, options.cpus)),
        "rounds": str(options.rounds),
        "strands per CPU": str(options.strands_per_cpu),
        "virtual CPUs of the guest": str(options.vcpus),
        "memory of the guest": options.memory,
        "memory filled, MiB": str(options.fill_mib),
        "users": str(options.users),
        "transactions/s asked for": f"{options.rate_per_s:g}",
    }


# The command


def add_table1(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = verbs.add_parser(
        "table1", help="measure how a migration depends on the CPUs of the control domain, as in the paper's Table 1"
    )
    defaults = Table1Options()
    shown = ",".join(map(str, defaults.cpus))
    parser.add_argument("--cpus", type=_counts, default=defaults.cpus, metavar="LIST", help=f"default: {shown}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"runs of each (default: {defaults.rounds})")
    parser.add_argument("--quick", action="store_true", help="one run of each, and shorter ones")
    parser.add_argument("--vcpus", type=int, default=defaults.vcpus, metavar="N", help="of the guest (%(default)s)")
    parser.add_argument("--memory", default=defaults.memory, metavar="SIZE", help="of the guest (%(default)s)")
    parser.add_argument("--fill", type=int, metavar="MIB", help=f"of it that is filled ({defaults.fill_mib})")
    parser.add_argument(
        "--rate", type=float, default=defaults.rate_per_s, metavar="TPS", help="asked for (%(default)g)"
    )
    parser.add_argument("--users", type=int, default=defaults.users, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--strands-per-cpu", type=int, default=defaults.strands_per_cpu, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    parser.set_defaults(run=main_table1)


def options_of(arguments: argparse.Namespace, host_cpus: int) -> Table1Options:
    """The options as they were typed.

    Raises:
        RequestError: they do not fit each other, or the machine.
    """
    options = Table1Options(
        cpus=arguments.cpus,
        strands_per_cpu=arguments.strands_per_cpu,
        vcpus=arguments.vcpus,
        memory=arguments.memory,
        users=arguments.users,
        rate_per_s=arguments.rate,
    )
    if arguments.quick:
        options = options.quick()
    if arguments.rounds is not None:
        options = replace(options, rounds=arguments.rounds)
    if arguments.fill is not None:
        options = replace(options, fill_mib=arguments.fill)
    positive = {
        "rounds": options.rounds,
        "strands-per-cpu": options.strands_per_cpu,
        "vcpus": options.vcpus,
        "users": options.users,
        "rate": options.rate_per_s,
        "fill": options.fill_mib,
    }
    for name, value in positive.items():
        if value <= 0:
            raise RequestError(f"--{name} must be above 0, and is {value:g}", code="bad-number")
    strands = host_cpus * options.strands_per_cpu
    if max(options.cpus) + options.vcpus > strands:
        raise RequestError(
            f"{max(options.cpus)} CPUs for the control domain and {options.vcpus} for the guest are more than the"
            f" {strands} strands of this machine: give a larger --strands-per-cpu",
            code="bad-number",
        )
    return options


def main_table1(arguments: argparse.Namespace) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        options = options_of(arguments, len(os.sched_getaffinity(0)))
        result = run_table1(arguments.build, options)
    except LdomsError as error:
        print(f"ldoms-bench table1: {error.message}", file=sys.stderr)
        return 1
    return 1 if result.losses else 0


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers such as 8,16,24")
    return counts
