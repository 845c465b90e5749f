"""``ldoms-bench observation``: what looking on costs a guest in throughput.

A database that is asked for as much as it can give is looked at by turns: pairs of windows with and without, in
shuffled order within each pair. Throughput of different minutes does not compare on a machine that does other things,
too; the ratio within a pair does, and the spread of the ratios says how well. Where others take CPU time from the guest
even that says little: transactions for each second that its virtual CPUs ran say more. Each value is kept.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import psutil

from ldoms.bench.figures import Window, window_figures
from ldoms.bench.loads import WorkloadLoad
from ldoms.bench.log import Transaction
from ldoms.bench.move import move_in_lab
from ldoms.bench.observe.observation import observe
from ldoms.bench.observe.usage import kind_of
from ldoms.bench.observe.watch import find_qemu, threads_of
from ldoms.bench.pgbench import LoadOptions, ensure_pgbench, programs_cache
from ldoms.bench.run import LAB_SCALE, outside_of, start_database
from ldoms.bench.stage import Stage, heading, say, stage
from ldoms.bench.workloads import find_workload
from ldoms.model.errors import HostError, LdomsError

LAB, DOMAIN = "obscost", "observed"
"""Of a name that no other lab on the machine has: its QEMU is looked for."""
SEED = 1
USERS = 8
WARM_UP_S = 30.0
FIGURES = {"tps": "per second", "per_cpu_s": "per second of virtual CPU"}
SETTLE_S = 2.0
"""After a change: programs that start and end have a cost of their own, which is not measured."""


def run_cost(build: Path, rounds: int, window_s: float) -> None:
    """Measure, print a table, and write ``observation.json`` into the directory `build`.

    Raises:
        LdomsError: a command failed.
    """
    heading(f"A lab with a busy database, and {rounds} pairs of {window_s:g} s with and without anybody who looks on")
    with stage(LAB, "--confine", "--strands-per-cpu", "2") as made:
        pairs = _measure(made, build / "observation", rounds, window_s)
    ratios = {
        figure: ratio_summary([pair["watched"][figure] / pair["alone"][figure] for pair in pairs]) for figure in FIGURES
    }
    result = {
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "users": USERS,
        "window_s": window_s,
        "pairs": pairs,
        "ratios": ratios,
    }
    build.mkdir(parents=True, exist_ok=True)
    (build / "observation.json").write_text(json.dumps(result, indent=2) + "\n")
    for figure, words in FIGURES.items():
        heading(f"Transactions {words}")
        for name in ("alone", "watched"):
            values = [pair[name][figure] for pair in pairs]
            say(f"{name:<10} median {statistics.median(values):.1f} [{min(values):.1f} .. {max(values):.1f}]")
        shown = ratios[figure]
        say(
            f"{'ratio':<10} median {shown['median']:.3f}, half of the pairs within {shown['quarter']:.3f} .. "
            f"{shown['three_quarters']:.3f}, all within {shown['min']:.3f} .. {shown['max']:.3f}"
        )
    say(f"\nAll values {build / 'observation.json'}")


def ratio_summary(ratios: Sequence[float]) -> dict[str, float]:
    """Median and spread; there are two at least."""
    quarter, median, three_quarters = statistics.quantiles(ratios, n=4, method="inclusive")
    found = {
        "median": median,
        "quarter": quarter,
        "three_quarters": three_quarters,
        "min": min(ratios),
        "max": max(ratios),
    }
    return {name: round(value, 4) for name, value in found.items()}


def _measure(made: Stage, directory: Path, rounds: int, window_s: float) -> list[dict[str, dict[str, float]]]:
    pgbench = ensure_pgbench(programs_cache())
    server = start_database(made, DOMAIN)
    load = WorkloadLoad(
        find_workload("orderentry"), server, pgbench, LoadOptions(clients=USERS), prefix=tuple(made.client)
    )
    load.workload.install(server, LAB_SCALE, prefix=made.client)
    move, outside = move_in_lab(made, DOMAIN), outside_of(made, server)
    order, qemu = random.Random(SEED), find_qemu(DOMAIN)  # noqa: S311
    if qemu is None:
        raise HostError(f"{DOMAIN} does not run", code="guest-gone")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    windows: list[dict[str, tuple[Window, float]]] = []
    load.start(directory / stamp / "load", WARM_UP_S + rounds * 2 * (window_s + 30.0))
    try:
        time.sleep(WARM_UP_S)
        for number in range(rounds):
            pair: dict[str, tuple[Window, float]] = {}
            for name in order.sample(("alone", "watched"), 2):
                place = directory / stamp / f"{number}"
                looks = observe(DOMAIN, move.places, outside, place, pgbench=pgbench)
                with looks if name == "watched" else nullcontext():
                    time.sleep(SETTLE_S)
                    begin, ran = time.time(), vcpu_seconds(qemu)
                    time.sleep(window_s)
                    pair[name] = Window(begin, time.time()), vcpu_seconds(qemu) - ran
                load.require_running()
                time.sleep(SETTLE_S)
            windows.append(pair)
            say(f"pair {number + 1} of {rounds}")
    finally:
        load.stop()
    return [
        {name: _figures(load.transactions, window, ran) for name, (window, ran) in pair.items()} for pair in windows
    ]


def _figures(transactions: Sequence[Transaction], window: Window, ran_s: float) -> dict[str, float]:
    found = window_figures(transactions, window)
    return {"tps": round(found.tps, 2), "per_cpu_s": round(found.transactions / ran_s, 2), "ran_s": round(ran_s, 2)}


def vcpu_seconds(qemu: psutil.Process) -> float:
    """CPU time that the virtual CPUs of a guest have used."""
    return sum(one.seconds for one in threads_of(qemu) if kind_of(one.name).startswith("vcpu"))


def main_cost(build: Path, rounds: int, window_s: float) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        run_cost(build, rounds, window_s)
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0
