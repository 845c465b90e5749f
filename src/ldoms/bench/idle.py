"""``ldoms-bench idle``: what `ldmd` costs while guests just run, and how long a host takes to be emptied of them.

The first part has one manager of its own with more and more tiny guests; the second a lab, whose domains go from host
to host, one after another, two at once, and all asked for at once, in turns. Every
value is kept.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import psutil

from ldoms.bench.conditions import conditions
from ldoms.bench.series import Spread, Unit, spread
from ldoms.bench.solo import Solo, tiny_image
from ldoms.bench.stage import SOURCE, TARGET, Stage, heading, say, stage
from ldoms.model.codec import to_wire
from ldoms.model.errors import HostError, LdomsError

LEVELS = (1, 10, 50)
"""How many guests run while the manager is watched."""
WINDOWS, WINDOW_S = 3, 30.0
SETTLE_S = 10.0
LAB = "benchidle"
EVACUATED = 10
AT_ONCE = (1, 2, EVACUATED)
"""So many are asked for at the same time; how many are then under way is for the hosts to say."""
FIRST_PORT = 5700
BEAT = "pulse.period=1000"
"""Guests do next to nothing: a heartbeat a second."""


def run_idle(build: Path, rounds: int) -> None:
    """Measure, print a table, and write ``idle.json`` into the directory `build`, anew after each part.

    Raises:
        LdomsError: a command failed, or a guest was lost.
    """
    build.mkdir(parents=True, exist_ok=True)
    before, cases = conditions(), dict[str, Spread]()
    for part in chain(_costs(), _evacuations(rounds)):
        cases |= part
        result = {"host": {"before": before, "after": conditions()}, "cases": to_wire(cases)}
        (build / "idle.json").write_text(json.dumps(result, indent=2) + "\n")
    heading("Median [least .. most]")
    for name, case in cases.items():
        say(f"{name:<44}{case}")
    say(f"\nAll values           {build / 'idle.json'}")


def cpu_per_minute(used_s: Sequence[float], at_s: Sequence[float]) -> list[float]:
    """CPU seconds a minute between readings of a process's CPU time at growing times."""
    readings = list(zip(used_s, at_s, strict=True))
    return [60 * (used - was) / (at - then) for (was, then), (used, at) in pairwise(readings)]


def evacuation_order(rounds: int) -> list[int]:
    """How many domains go at once in each evacuation: in turns, and as often in either direction."""
    return [*AT_ONCE, *reversed(AT_ONCE)] * rounds


def _costs() -> Iterator[dict[str, Spread]]:
    heading(f"A manager with {', '.join(map(str, LEVELS))} idle guests, {WINDOWS} times {WINDOW_S:g} s each")
    image = tiny_image()
    with tempfile.TemporaryDirectory(prefix="ldoms-bench-") as directory:
        manager = Solo(Path(directory), guests=max(LEVELS))
        with manager.guests_end(), manager.running() as (process, _):
            manager.furnish(FIRST_PORT)
            running = 0
            for level in LEVELS:
                for number in range(running, level):
                    manager.start_guest(f"guest{number}", image, BEAT)
                running = level
                say(f"{level} guests run")
                time.sleep(SETTLE_S)
                yield _watch(process, level)


def _watch(process: psutil.Process, level: int) -> dict[str, Spread]:
    used, at, resident = [_used_s(process)], [time.monotonic()], []
    for _ in range(WINDOWS):
        time.sleep(WINDOW_S)
        used.append(_used_s(process))
        at.append(time.monotonic())
        resident.append(process.memory_info().rss / 1e6)
    return {
        f"ldmd, {level} idle guests": spread(cpu_per_minute(used, at), Unit.CPU),
        f"ldmd resident, {level} idle guests": spread(resident, Unit.MEGABYTES),
    }


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _evacuations(rounds: int) -> Iterator[dict[str, Spread]]:
    order = evacuation_order(rounds)
    heading(f"A lab, {EVACUATED} idle guests, {len(order)} evacuations")
    domains = [f"idle{number}" for number in range(EVACUATED)]
    times: dict[int, list[float]] = {at_once: [] for at_once in AT_ONCE}
    # A lab leaves half of the strands to guests.
    strands = math.ceil(2 * EVACUATED / (os.cpu_count() or 1))
    with stage(LAB, "--strands-per-cpu", str(strands)) as made:
        for domain in domains:
            name, _, value = BEAT.partition("=")
            made.type(made.lab("guest", "-P", f"{name}={value}", domain, "tiny"))
        made.type(made.on(SOURCE, "ldm", "start-domain", *domains))
        time.sleep(SETTLE_S)
        here, there = SOURCE, TARGET
        for at_once in order:
            times[at_once].append(_evacuate(made, domains, here, at_once))
            _check_all_run(made, domains, there)
            say(f"{EVACUATED} domains from {here} to {there}, {at_once} at a time: {times[at_once][-1]:.1f} s")
            here, there = there, here
    names = {1: "one after another", 2: "two at once", EVACUATED: "all asked for at once"}
    yield {
        f"{EVACUATED} guests to another host, {names[at_once]}": spread(series, Unit.SECONDS)
        for at_once, series in times.items()
    }


def _evacuate(made: Stage, domains: Sequence[str], source: str, at_once: int) -> float:
    commands = [made.migrate_words(domain, source) for domain in domains]
    begun = time.perf_counter()
    with ThreadPoolExecutor(at_once) as hands:
        list(hands.map(made.output, commands))
    return time.perf_counter() - begun


def _check_all_run(made: Stage, domains: Sequence[str], host: str) -> None:
    views: list[Mapping[str, Any]] = json.loads(made.output(made.on(host, "ldm", "list", "--json")))
    active = {view["domain"]["name"] for view in views if view["status"]["state"] == "active"}
    lost = [domain for domain in domains if domain not in active]
    if lost:
        raise HostError(f"after they were moved to {host}, {', '.join(lost)} do not run", code="guest-gone")


def main_idle(build: Path, rounds: int) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        run_idle(build, rounds)
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0
