"""``ldoms-bench``: the demonstration, and measurements."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from ldoms.bench.commands import main_commands
from ldoms.bench.database.command import add_command as add_database_report
from ldoms.bench.demo import main_demo
from ldoms.bench.forecasts import main_forecasts
from ldoms.bench.idle import main_idle
from ldoms.bench.migrations import main_migrations
from ldoms.bench.observation_cost import main_cost
from ldoms.bench.observe.watch import main_watch
from ldoms.bench.page.command import add_report
from ldoms.bench.peers.run import add_peers
from ldoms.bench.promise import main_promise
from ldoms.bench.reconfigure import main_reconfigure
from ldoms.bench.run import add_run
from ldoms.bench.table1.command import add_table1
from ldoms.bench.workloads.commands import add_workload_commands


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="ldoms-bench", description="Measurements with domains that move.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = verbs.add_parser("demo", help="move a database under load between two hosts of a lab, with figures")
    demo.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    demo.set_defaults(run=lambda arguments: main_demo(arguments.build))
    add_run(verbs)
    add_table1(verbs)
    migrations = verbs.add_parser("migrations", help="measure live migrations of small guests")
    migrations.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    migrations.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    migrations.set_defaults(run=lambda arguments: main_migrations(arguments.build, arguments.rounds))
    forecast = verbs.add_parser("forecast", help="compare forecasts with the moves that follow")
    forecast.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    forecast.set_defaults(run=lambda arguments: main_forecasts(arguments.build))
    add_report(verbs)
    reconfigure = verbs.add_parser("reconfigure", help="measure changes of a guest that runs")
    reconfigure.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    reconfigure.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    reconfigure.set_defaults(run=lambda arguments: main_reconfigure(arguments.build, arguments.rounds))
    commands = verbs.add_parser("commands", help="measure ldm list, and ldmd with hundreds of domains")
    commands.add_argument("--rounds", type=int, default=15, metavar="N", help="default: %(default)s")
    commands.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    commands.set_defaults(run=lambda arguments: main_commands(arguments.build, arguments.rounds))
    idle = verbs.add_parser("idle", help="measure what ldmd costs while guests run, and moves of many of them")
    idle.add_argument("--rounds", type=int, default=1, metavar="N", help="of six evacuations (default: %(default)s)")
    idle.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    idle.set_defaults(run=lambda arguments: main_idle(arguments.build, arguments.rounds))
    add_peers(verbs)
    promise = verbs.add_parser("promise", help="measure from outside whether the promised suspension is kept")
    promise.add_argument("--runs", type=int, default=50, metavar="N", help="default: %(default)s")
    promise.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    promise.set_defaults(run=lambda arguments: main_promise(arguments.build, arguments.runs))
    observation = verbs.add_parser("observation", help="measure what looking on costs a guest in throughput")
    observation.add_argument("--rounds", type=int, default=12, metavar="N", help="default: %(default)s")
    observation.add_argument("--window", type=float, default=10.0, metavar="S", help="seconds (%(default)g)")
    observation.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    observation.set_defaults(run=lambda arguments: main_cost(arguments.build, arguments.rounds, arguments.window))
    watch = verbs.add_parser("watch", help="print what this host sees of a domain, until the input ends")
    watch.add_argument("domain", metavar="DOM")
    watch.set_defaults(run=lambda arguments: main_watch(arguments.domain))
    add_database_report(verbs)
    add_workload_commands(verbs)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)  # so that it clears up as after Ctrl-C
    try:
        sys.exit(arguments.run(arguments))
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
