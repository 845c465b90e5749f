"""``make bench-peers``: every tool moves the same guests, in shuffled order, over the same link.

Each run has guests of its own, which are started for it, so that none is changed by an earlier run; and the memory that
the target's QEMU comes to use is held for it, so that it is found in the same state whatever ran before. All runs are
kept, and written anew after each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ldoms.bench.backed import backed_memory
from ldoms.bench.conditions import conditions
from ldoms.bench.figures import Window, window_figures
from ldoms.bench.libvirt import copied, why_not
from ldoms.bench.log import Transaction
from ldoms.bench.peers.hands import COMMAND_S, hand_on
from ldoms.bench.peers.libvirts import make_certificates, start_libvirts
from ldoms.bench.peers.record import (
    FLOOR,
    LOST,
    MOVED,
    PeerRun,
    Target,
    least_bytes,
    table,
    targets,
)
from ldoms.bench.peers.scenario import CLIENTS, SCENARIOS, Guest, Scenario, chosen, guests_of
from ldoms.bench.peers.tools import Moved, Tool, World, all_tools
from ldoms.bench.pgbench import LoadOptions, LoadRun, ensure_pgbench, programs_cache
from ldoms.bench.probe import ProbeRecord, ProbeRun, line_counters, probe_figures, start_probe
from ldoms.bench.series import turns
from ldoms.bench.server import Server, query
from ldoms.bench.solo import Image, lab_image, run
from ldoms.bench.stage import SOURCE, TARGET, Stage, heading, say, stage
from ldoms.bench.workloads import find_workload
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError, LdomsError, NotFound, RequestError

LAB = "benchpeers"
CLIENT = "client"
ADDRESSES = {SOURCE: "10.78.0.1", TARGET: "10.78.0.2"}
"""Of a lab's hosts on the link between them."""
ROUNDS = 6
STRANDS, MEMORY = "16", "8G"
"""Of each CPU, and of each host; both are only counted. Ten guests find room in half of it."""
ATTEMPTS = 2
"""Of a run whose guests do not get ready, or cannot be asked."""
LIMIT_MS = 10.0
"""The suspension that `ldm` tries first, which half of the variants of virsh are told as well."""
ASK_S, ASK_MANY_S = 0.005, 0.02
"""How often one guest is pinged, and each of many."""
COUNT_S = 0.1
BEFORE_S, AFTER_S = 3.0, 1.0
"""Looked at before and after the move."""
WARM_UP_S = 10.0
"""In which the emulator translates the database's code."""
SCALE = {"customers": 500, "warehouses": 20}
READY_S = 120.0
SPARE_MIB = 512
"""Of memory, beside that of the guests, for what moves them."""


@dataclass(frozen=True, slots=True)
class PeersOptions:
    """What is run.

    Attributes:
        scenarios, tools: by name; none = all.
        fill_mib: no guest has more filled; 0 = as the scenario says.
    """

    rounds: int = ROUNDS
    scenarios: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    fill_mib: int = 0
    limit_ms: float = LIMIT_MS


def run_peers(build: Path, options: PeersOptions) -> list[PeerRun]:
    """Measure, print tables, and write ``peers.json`` and ``peers.md`` into the directory `build`, anew after each run.

    Runs of other scenarios that are there from before stay, so that the whole can be made in parts.

    Raises:
        LdomsError: the lab, or a peer, cannot be had; runs that were made are kept.
    """
    scenarios, tools = chosen(options.scenarios, options.fill_mib), _tools(options)
    build.mkdir(parents=True, exist_ok=True)
    before, runs, took = conditions(), _runs_of_others(build, scenarios), dict[str, float]()
    with _world(needs_libvirt=any(tool.name.startswith("virsh") for tool in tools)) as (made, world):
        for scenario in scenarios:
            heading(f"{scenario.name}: {scenario.title}; {options.rounds} rounds of {len(tools)} tools, shuffled")
            image = _image(world, scenario)
            made.type(made.lab("shape", *scenario.shape))
            began = time.monotonic()
            for one in _rounds(_Place(made, world, scenario, image), tools, options.rounds):
                runs.append(one)
                say(_line(one))
                (build / "peers.json").write_text(json.dumps(to_wire(runs), indent=2) + "\n")
            took[scenario.name] = time.monotonic() - began
            say(f"{scenario.name} took {took[scenario.name]:.0f} s")
        libvirt = world.libvirts.version if world.libvirts else "not there"
    text = "\n".join(_page(runs, took, {"before": before, "after": conditions(), "libvirt": libvirt}))
    (build / "peers.md").write_text(text + "\n")
    say("")
    say(text)
    say(f"\nAll runs             {build / 'peers.json'}")
    return runs


def _runs_of_others(build: Path, scenarios: Sequence[Scenario]) -> list[PeerRun]:
    path, now = build / "peers.json", {scenario.name for scenario in scenarios}
    try:
        known = [from_wire(PeerRun, one) for one in json.loads(path.read_text())] if path.exists() else []
    except (ValueError, TypeError, LdomsError) as error:
        raise RequestError(
            f"{path} has no runs of this comparison: move it away, or choose another --build", code="no-runs"
        ) from error
    return [run for run in known if run.scenario not in now]


def _tools(options: PeersOptions) -> tuple[Tool, ...]:
    reason = why_not()
    if reason:
        say(f"bench: {reason}; virsh is left out")
    known = all_tools(options.limit_ms, virsh=not reason)
    unknown = [name for name in options.tools if name not in {tool.name for tool in known} | {FLOOR}]
    if unknown:
        raise NotFound(f"there is no tool {unknown[0]}: there are {'; '.join(tool.name for tool in known)}")
    return tuple(tool for tool in known if tool.name in options.tools or not options.tools)


@contextlib.contextmanager
def _world(*, needs_libvirt: bool) -> Iterator[tuple[Stage, World]]:
    with (
        tempfile.TemporaryDirectory(prefix="ldoms-peers-") as directory,
        stage(LAB, "--strands-per-cpu", STRANDS, "--memory", MEMORY) as made,
        contextlib.ExitStack() as stack,
    ):
        home = Path(directory)
        home.chmod(0o711)
        hands = {place: stack.enter_context(hand_on(made, place)) for place in (SOURCE, TARGET, CLIENT)}
        libvirts = None
        if needs_libvirt:
            libvirts = start_libvirts(home, hands, ADDRESSES)
        else:
            make_certificates(home / "certificates", tuple(ADDRESSES.values()))
        floor = [sys.executable, "-m", "ldoms.bench.peers.floor", "receive", ADDRESSES[TARGET]]
        hands[TARGET].start([*floor, str(home / "certificates")], str(home / "floor.log"))
        yield made, World(hands, ADDRESSES, home, made.password_file, libvirts)


# One scenario


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a scenario is played, and with what image."""

    made: Stage
    world: World
    scenario: Scenario
    image: Image


def _image(world: World, scenario: Scenario) -> Image:
    """The image of a scenario's guests, with files where libvirt sees them, too."""
    home = world.home / scenario.name
    home.mkdir()
    image = lab_image("postgres" if scenario.database else "tiny")
    return replace(copied(image, home), disk=image.disk)


def _rounds(place: _Place, tools: Sequence[Tool], rounds: int) -> Iterator[PeerRun]:
    known = {tool.name: tool for tool in tools}
    order = list(turns(list(known), rounds))
    done: list[PeerRun] = []
    for number in range(rounds):
        for name in order[number * len(known) : (number + 1) * len(known)]:
            done.append(_run_surely(place, known[name], number + 1))
            yield done[-1]
        for encrypted in (False, True):
            if least := least_bytes(done, place.scenario.name):
                yield _floor(place.world, place.scenario, least, encrypted=encrypted, number=number + 1)


def _run_surely(place: _Place, tool: Tool, number: int) -> PeerRun:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _run(place, tool, number)
        except HostError as error:
            if attempt == ATTEMPTS:
                raise
            say(f"{number:2} {tool.name}: {error.message}; once more")
    raise AssertionError("the last attempt has returned or raised")


def _run(place: _Place, tool: Tool, number: int) -> PeerRun:
    """One run; whatever happens, its guests are gone afterwards."""
    world, scenario = place.world, place.scenario
    guests = guests_of(scenario, place.image, _disk(place))
    load = os.getloadavg()[0]
    try:
        tool.start(world, guests)
        _await_guests(place, guests)
        with (
            backed_memory(sum(guest.memory_mib for guest in guests) + SPARE_MIB) as about_to_move,
            _probes(place, guests) as pings,
            _work(place, guests[0]) as slower,
        ):
            time.sleep(BEFORE_S)
            world.source.watch()
            world.target.watch()
            about_to_move()
            moved = tool.move(world, guests, scenario)
            source, target = world.source.watched(), world.target.watched()
            time.sleep(AFTER_S)
        run = PeerRun(
            scenario=scenario.name,
            tool=tool.name,
            encrypted=tool.encrypted,
            run=number,
            total_s=moved.seconds,
            suspension_ms=None,
            bytes=source.sent_bytes,
            cpu_s=source.cpu_s + target.cpu_s,
            tps_loss_pct=slower(moved.began_at, moved.seconds),
            outcome=moved.outcome,
            target_cpu_s=target.cpu_s,
            copy_s=moved.copy_s,
            own_ms=moved.own_ms,
            limit_ms=tool.limit_ms,
            load=load,
            reason=moved.reason,
        )
        return _seen(run, moved, [ping.result() for ping in pings])
    finally:
        tool.end(world, guests)


def _disk(place: _Place) -> Path | None:
    """A fresh disk for the guest of a database."""
    if place.image.disk is None:
        return None
    disk = place.world.home / "root.qcow2"
    disk.unlink(missing_ok=True)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(place.image.disk), str(disk)])
    return disk


def _await_guests(place: _Place, guests: Sequence[Guest]) -> None:
    if not place.scenario.database:
        place.world.hands[CLIENT].await_guests([guest.address for guest in guests], READY_S)
        return
    server, prefix = Server(guests[0].address), place.made.client
    deadline = time.monotonic() + READY_S
    while True:
        try:
            query(server, "select 1", prefix=prefix, timeout_s=5)
            break
        except HostError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
    find_workload("orderentry").install(server, SCALE, prefix=prefix)


@contextlib.contextmanager
def _probes(place: _Place, guests: Sequence[Guest]) -> Iterator[list[ProbeRun]]:
    """A ping for each guest."""
    every_s = ASK_S if len(guests) == 1 else ASK_MANY_S
    pings: list[ProbeRun] = []
    try:
        for guest in guests:
            path = place.world.home / f"{guest.name}.jsonl"
            pings.append(start_probe("icmp", guest.address, path, interval_s=every_s, prefix=place.made.client))
        for ping in pings:
            ping.wait_until_begun()
        yield pings
    finally:
        for ping in pings:
            ping.stop()


Slower = Callable[[float, float], float | None]
"""By how many per cent a guest was slower than before, in so many seconds from a moment on; None = it does nothing."""


@contextlib.contextmanager
def _work(place: _Place, guest: Guest) -> Iterator[Slower]:
    """What a guest does meanwhile is counted; the answer can be had when that is over."""
    scenario, prefix = place.scenario, place.made.client
    if scenario.database:
        with _orders(place, Server(guest.address)) as load:
            yield lambda began_at, seconds: fewer_percent(load.result().transactions, began_at, seconds)
    elif scenario.rate_mib_s and scenario.guests == 1:
        path = place.world.home / "counter.jsonl"
        counter = start_probe("tcp", guest.address, path, interval_s=COUNT_S, prefix=prefix)
        try:
            counter.wait_until_begun()
            yield lambda began_at, seconds: slower_percent(counter.result(), began_at, seconds)
        finally:
            counter.stop()
    else:
        yield lambda began_at, seconds: None


@contextlib.contextmanager
def _orders(place: _Place, server: Server) -> Iterator[LoadRun]:
    workload, prefix = find_workload("orderentry"), place.made.client
    number = workload.next_run(server, prefix=prefix)
    seconds = round(WARM_UP_S + BEFORE_S + place.scenario.limit_s + COMMAND_S)
    options = LoadOptions(clients=CLIENTS, seconds=seconds)
    log = Path(tempfile.mkdtemp(dir=place.world.home)) / "load"  # read when the load is over
    load = workload.start(ensure_pgbench(programs_cache()), server, options, log, run=number, prefix=prefix)
    try:
        time.sleep(WARM_UP_S)
        yield load
    finally:
        load.stop()


def _seen(run: PeerRun, moved: Moved, pings: Sequence[ProbeRecord]) -> PeerRun:
    """Add what was seen from outside."""
    window = Window(moved.began_at, moved.began_at + moved.seconds + AFTER_S)
    longest = [probe_figures(ping, window).longest_gap for ping in pings]
    lost = run.outcome == MOVED and any(
        not ping.answer_times or ping.answer_times[-1] < moved.began_at + moved.seconds for ping in pings
    )
    return replace(run, suspension_ms=max(gap.seconds for gap in longest) * 1000, outcome=LOST if lost else run.outcome)


def fewer_percent(transactions: Sequence[Transaction], began_at: float, seconds: float) -> float | None:
    """By how many fewer transactions a second were acknowledged than before; None if there were none before."""
    before = window_figures(transactions, Window(began_at - BEFORE_S, began_at)).tps
    during = window_figures(transactions, Window(began_at, began_at + seconds)).tps
    return (1 - during / before) * 100 if before else None


def slower_percent(counter: ProbeRecord, began_at: float, seconds: float) -> float | None:
    """By how much slower a guest rewrote its memory while it was moved than before; None if that is not known."""
    points = [
        (one.answered_at, line_counters(one.answer)["dirtied"])
        for one in counter.exchanges
        if one.answered_at is not None and "dirtied" in line_counters(one.answer)
    ]
    before = _rate([point for point in points if point[0] < began_at])
    during = [point for point in points if point[0] < began_at][-1:]
    during += [point for point in points if point[0] >= began_at + seconds][:1]
    rate = _rate(during)
    return None if not before or rate is None else (1 - rate / before) * 100


def _rate(points: Sequence[tuple[float, int]]) -> float | None:
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return None
    return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])


def _floor(world: World, scenario: Scenario, least: int, *, encrypted: bool, number: int) -> PeerRun:
    words = [sys.executable, "-m", "ldoms.bench.peers.floor", "send", ADDRESSES[TARGET], str(least)]
    words += [str(world.home / "certificates")] if encrypted else []
    load = os.getloadavg()[0]
    (printed,) = world.source.do(words, limit_s=scenario.limit_s + COMMAND_S)
    found = json.loads(printed)
    return PeerRun(
        scenario=scenario.name,
        tool=f"{FLOOR}, TLS" if encrypted else FLOOR,
        encrypted=encrypted,
        run=number,
        total_s=found["seconds"],
        suspension_ms=None,
        bytes=least,
        cpu_s=found["cpu_s"],
        tps_loss_pct=None,
        outcome=MOVED,
        load=load,
    )


# What is said


def _line(run: PeerRun) -> str:
    suspension = f"{run.suspension_ms:7.0f} ms" if run.suspension_ms is not None else " " * 10
    slower = f", guest {run.tps_loss_pct:.0f} % slower" if run.tps_loss_pct is not None else ""
    reason = f": {run.reason}" if run.reason else ""
    return (
        f"{run.run:2} {run.tool:<34} {run.total_s:8.2f} s {suspension} {run.bytes / 1e6:8.0f} MB"
        f" {run.cpu_s:6.2f} CPU s (target {run.target_cpu_s:.2f}), load {run.load:.1f}{slower}, {run.outcome}{reason}"
    )


def _page(runs: Sequence[PeerRun], took: dict[str, float], where: dict[str, object]) -> list[str]:
    """Tables and targets, as Markdown."""
    lines = [f"Conditions: {json.dumps(where)}", ""]
    for scenario in SCENARIOS:
        if any(run.scenario == scenario.name for run in runs):
            seconds = f"{took[scenario.name]:.0f} s for all runs." if scenario.name in took else "From an earlier time."
            lines += [f"### {scenario.title}", "", seconds, "", *table(runs, scenario.name), ""]
    judged: Sequence[Target] = targets(runs)
    return [*lines, "### Targets", "", *(f"- {target}" for target in judged)]


def add_peers(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = verbs.add_parser("peers", help="measure migrations with ldm beside virsh and QEMU alone")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--scenario", action="append", default=[], metavar="NAME", help="repeatable (default: all)")
    parser.add_argument("--tool", action="append", default=[], metavar="NAME", help="repeatable (default: all)")
    parser.add_argument(
        "--fill", type=int, default=0, metavar="MIB", help="no guest has more filled (default: as the scenario says)"
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT_MS, metavar="MS", help="that virsh is told, too (default: %(default)g)"
    )
    parser.add_argument("--build", type=Path, default=Path("build"), metavar="DIR", help="default: %(default)s")
    parser.set_defaults(run=_main)


def _main(arguments: argparse.Namespace) -> int:
    options = PeersOptions(
        rounds=arguments.rounds,
        scenarios=tuple(arguments.scenario),
        tools=tuple(arguments.tool),
        fill_mib=arguments.fill,
        limit_ms=arguments.limit,
    )
    try:
        run_peers(arguments.build, options)
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0
