"""``ldoms-bench commands``: how long `ldm list` takes, and how `ldmd` bears hundreds of domains.

Two managers of their own, both with the same tiny guests active, one with hundreds of domains besides; and as the peer
a libvirt with as many guests from the same image. Cases take turns in shuffled order within one run, since figures of
different runs do not compare. Every value is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ldoms.bench.conditions import conditions
from ldoms.bench.libvirt import libvirt, why_not
from ldoms.bench.series import Promise, Spread, Unit, judge, spread, turns
from ldoms.bench.solo import Image, Solo, program, tiny_image
from ldoms.bench.stage import heading, say
from ldoms.model.codec import to_wire
from ldoms.model.errors import HostError, LdomsError

ACTIVE, DEFINED = 3, 500
"""Guests that run at each manager and at the peer; domains that the larger manager has, these included."""
ADDED = 10
"""So many domains are added to take the time of one."""
STARTS = 5
SETTLE_S = 10.0
"""After which tiny guests have booted."""
FIRST_PORT = 5700
"""Of consoles: away from those that a manager of this machine would use."""

LIST_FEW = f"ldm list, {ACTIVE} active"
LIST_MANY = f"ldm list, {DEFINED} defined"
VIRSH = f"virsh list, {ACTIVE} active"
ADD_FEW = f"one more domain, {ACTIVE} there"
ADD_MANY = f"one more domain, {DEFINED} there"
START = f"ldmd starts, {DEFINED} defined"
RESIDENT = f"ldmd resident, {DEFINED} defined"

PROMISES = (
    Promise(LIST_FEW, 3, VIRSH),
    Promise(LIST_MANY, 200),
    Promise(LIST_MANY, 3, LIST_FEW),
    Promise(START, 3),
    Promise(RESIDENT, 150),
    Promise(ADD_MANY, 1.5, ADD_FEW),
)
"""The last one stands for "no slower": a call takes 2 ms, and differs by as much from run to run."""

Case = Callable[[], float]
"""Measures once, in milliseconds."""


def run_commands(build: Path, rounds: int) -> None:
    """Measure, print a table, and write ``commands.json`` into the directory `build`.

    Raises:
        LdomsError: a command failed.
    """
    heading(f"Two managers with {ACTIVE} active guests each, one with {DEFINED} domains, and libvirt; {rounds} rounds")
    image, before = tiny_image(), conditions()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ldoms-bench-")))
        few, many = Solo(directory / "few", ACTIVE), Solo(directory / "many", ACTIVE)
        stack.enter_context(many.guests_end())
        with ExitStack() as inner:
            inner.enter_context(few.guests_end())
            inner.enter_context(_populated(few, FIRST_PORT, image))
            inner.enter_context(_populated(many, FIRST_PORT + ACTIVE, image))
            virsh, peer = _peer(inner, directory / "libvirt", image)
            many.add_domains(ACTIVE, DEFINED)
            time.sleep(SETTLE_S)
            values = _take_turns({**_listings(few, many), **virsh}, rounds)
            values |= _take_turns({ADD_FEW: lambda: _add_some(few), ADD_MANY: lambda: _add_some(many)}, rounds)
        cases = {name: spread(series, Unit.MILLISECONDS) for name, series in values.items()} | _starts(many)
    _publish(build, {"before": before, "after": conditions(), "peer": peer}, cases)


@contextmanager
def _populated(manager: Solo, port: int, image: Image) -> Iterator[None]:
    """The manager, running, and its guests."""
    with manager.running():
        manager.furnish(port)
        for number in range(ACTIVE):
            manager.start_guest(f"guest{number}", image)
        yield


def _peer(stack: ExitStack, home: Path, image: Image) -> tuple[dict[str, Case], str]:
    """What the peer measures, and its version; nothing, and why, where it cannot be had."""
    reason = why_not()
    if not reason:
        try:
            peer = stack.enter_context(libvirt(home, image, ACTIVE))
            return {VIRSH: _listing([*peer.virsh, "list"], None, " running")}, f"libvirt {peer.version}"
        except HostError as error:
            reason = error.message
    say(f"Without the peer: {reason}")
    return {}, f"none: {reason}"


def _listings(few: Solo, many: Solo) -> dict[str, Case]:
    words = [program("ldm"), "list"]
    return {
        LIST_FEW: _listing(words, few.environment, "active     -n----"),
        LIST_MANY: _listing(words, many.environment, "active     -n----"),
    }


def _listing(words: Sequence[str], environment: Mapping[str, str] | None, mark: str) -> Case:
    """A command that lists domains, those that run with the text `mark` in their line."""

    def measure() -> float:
        begun = time.perf_counter()
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        took_s = time.perf_counter() - begun
        if done.returncode or done.stdout.count(mark) != ACTIVE:
            what = f"'{' '.join(words)}' does not show {ACTIVE} guests that run: {done.stdout}{done.stderr}"
            raise HostError(what, code="command-failed")
        return took_s * 1000

    return measure


def _add_some(manager: Solo) -> float:
    """Make a few more domains, and take them away again; the time of one."""
    client, names = manager.client, [f"more{number}" for number in range(ADDED)]
    begun = time.perf_counter()
    for name in names:
        client.post("/domains", {"name": name, "properties": {}})
    took_s = time.perf_counter() - begun
    for name in names:
        client.delete(f"/domains/{name}")
    return took_s * 1000 / ADDED


def _take_turns(cases: Mapping[str, Case], rounds: int) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {name: [] for name in cases}
    for name in turns(list(cases), rounds):
        values[name].append(cases[name]())
    return values


def _starts(manager: Solo) -> dict[str, Spread]:
    """Start the manager again and again; what it needs when it has answered for all of its domains."""
    seconds, megabytes = [], []
    for _ in range(STARTS):
        with manager.running() as (process, took_s):
            seconds.append(took_s)
            megabytes.append(process.memory_info().rss / 1e6)
    return {START: spread(seconds, Unit.SECONDS), RESIDENT: spread(megabytes, Unit.MEGABYTES)}


def _publish(build: Path, host: Mapping[str, Any], cases: Mapping[str, Spread]) -> None:
    verdicts = judge(PROMISES, cases)
    build.mkdir(parents=True, exist_ok=True)
    result = {"host": host, "cases": to_wire(cases), "promises": to_wire(verdicts)}
    (build / "commands.json").write_text(json.dumps(result, indent=2) + "\n")
    heading("Median [least .. most]")
    for name, case in cases.items():
        say(f"{name:<34}{case}")
    heading("Promises")
    for verdict in verdicts:
        say(str(verdict))
    say(f"\nAll values           {build / 'commands.json'}")


def main_commands(build: Path, rounds: int) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        run_commands(build, rounds)
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0
