"""``ldoms-bench reconfigure``: how long changes of a running guest take, from the command to the guest's kernel.

Each value is the time of one `ldm` command, its start included, on the guest's host; the guest is idle. After each one
the guest itself is asked what it has, so that a change that has not come to it is not measured but an error.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldoms.bench.conditions import conditions
from ldoms.bench.server import Server, query
from ldoms.bench.stage import SOURCE, Stage, heading, say, stage
from ldoms.model.errors import HostError, LdomsError

LAB = "bench"
GUEST, GUEST_ADDRESS = "idle", "10.77.0.10"
"""A tiny guest, which tells how much memory it has."""
DATABASE, DATABASE_ADDRESS = "idledb", "10.77.0.11"
"""A PostgreSQL guest: it has the agent, which lets virtual CPUs go."""
HOST_MEMORY = "8G"
"""Half of it is for the guests."""
FIRST_MEMORY = "512M"
READY_S = 90.0
SETTLE_S = 5.0
GUEST_S = 5.0
"""The guest may take so long to say that it has what it was given."""

_ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), timeout=5) as connection:
    connection.sendall(b"hello\\n")
    print(connection.makefile().readline(), end="")
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A command, and by how much it changes what the guest says of itself.

    Attributes:
        limit_s: that its median should keep; 0 = none.
        counter: of the guest: ``memory`` in MiB, or ``cpus`` that are online.
        by: what is added to it.
    """

    name: str
    words: tuple[str, ...]
    counter: str
    by: int
    limit_s: float = 0.0


CHANGES = (
    Change("add 2 GiB", ("add-memory", "2G"), "memory", 2048, 2.0),
    Change("remove 2 GiB", ("remove-memory", "2G"), "memory", -2048),
    Change("add a virtual CPU", ("add-vcpu", "1"), "cpus", 1, 1.0),
    Change("take it back", ("remove-vcpu", "1"), "cpus", -1),
)
"""In this order, again and again: what one adds, the next one removes."""


def run_reconfigure(build: Path, rounds: int) -> None:
    """Measure, print a table, and write ``reconfigure.json`` into the directory `build`.

    Raises:
        LdomsError: a command failed, or the guest has not got what it was given.
    """
    values: dict[str, list[float]] = {change.name: [] for change in CHANGES}
    before = conditions()
    heading(f"A lab, two idle guests, and {rounds} rounds of {len(CHANGES)} changes")
    with stage(LAB, "--memory", HOST_MEMORY) as made:
        made.type(made.lab("guest", "--memory", FIRST_MEMORY, GUEST, "tiny"))
        made.type(made.lab("guest", DATABASE, "postgres"))
        made.type(made.on(SOURCE, "ldm", "start-domain", GUEST, DATABASE))
        _wait_for_database(made)
        time.sleep(SETTLE_S)
        for number in range(rounds):
            for change in CHANGES:
                values[change.name].append(_measure(made, change))
            say(f"round {number + 1} of {rounds}")
    summary = {change.name: _summary(change, values[change.name]) for change in CHANGES}
    build.mkdir(parents=True, exist_ok=True)
    facts = {"before": before, "after": conditions()}
    result = {"host": facts, "unit": "seconds of one ldm command", "rounds": rounds, "changes": summary}
    (build / "reconfigure.json").write_text(json.dumps(result, indent=2) + "\n")
    heading("Seconds: median [least .. most]")
    for name, one in summary.items():
        limit = f"   at most {one['limit']:g}" if one["limit"] else ""
        say(f"{name:<20}{one['median']:.3f} [{one['min']:.3f} .. {one['max']:.3f}]{limit}")
    say(f"\nAll values           {build / 'reconfigure.json'}")


def guest_counter(answer: str, counter: str) -> int:
    """The value of ``counter=`` in what a tiny guest answers.

    Raises:
        HostError: it is not there.
    """
    found = re.search(rf"\b{counter}=(\d+)", answer)
    if found is None:
        raise HostError(f"the guest {GUEST} does not say its {counter}: {answer!r}", code="guest-gone")
    return int(found[1])


def count_cpus(online: str) -> int:
    """How many CPUs a list of the kernel's names, such as ``0-2,5``."""
    ends = [part.split("-") for part in online.strip().split(",")]
    return sum(int(pair[-1]) - int(pair[0]) + 1 for pair in ends)


def _measure(made: Stage, change: Change) -> float:
    wanted = _ask(made, change.counter) + change.by
    command = " ".join(["ldm", *change.words, GUEST if change.counter == "memory" else DATABASE])
    times = made.output(made.on(SOURCE, "sh", "-c", f"date +%s.%N && {command} && date +%s.%N")).split()
    deadline = time.monotonic() + GUEST_S
    while (has := _ask(made, change.counter)) != wanted:
        if time.monotonic() > deadline:
            raise HostError(f"after '{command}' the guest has {has} and not {wanted}", code="guest-gone")
    return float(times[-1]) - float(times[0])


def _wait_for_database(made: Stage) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            _ask(made, "cpus")
            return
        except HostError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _ask(made: Stage, counter: str) -> int:
    if counter == "cpus":
        sql = "select pg_read_file('/sys/devices/system/cpu/online')"
        online = query(Server(DATABASE_ADDRESS, database="postgres"), sql, prefix=made.client, timeout_s=5)[0][0]
        return count_cpus(str(online))
    answer = made.output([*made.client, sys.executable, "-c", _ASK, GUEST_ADDRESS])
    return guest_counter(answer, counter)


def _summary(change: Change, series: Sequence[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(series), 3),
        "min": round(min(series), 3),
        "max": round(max(series), 3),
        "limit": change.limit_s,
        "values": [round(value, 3) for value in series],
    }


def main_reconfigure(build: Path, rounds: int) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        run_reconfigure(build, rounds)
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0
