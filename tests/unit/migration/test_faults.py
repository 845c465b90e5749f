"""Something breaks at every gate of a migration, on fakes: the real matrix in small, and in milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from unit.clock import run
from unit.migration.harness import DOMAIN, FakeHost, Gates, Pair

GATES = (
    *("source-check", "source-prepare", "target-prepare", "target-prepared", "source-copy", "source-suspend"),
    *("source-hand-off", "source-sent-all", "source-handing-off", "target-take-over", "target-taken"),
    *("target-running", "source-peer-took"),
)
# From here on the target has let the guest run: what dies there dies as in any crash of a running guest.
AFTER_RUNNING = ("target-running", "source-peer-took")

Break = Callable[[Pair], Awaitable[None]]


async def restart_source(pair: Pair) -> None:
    await pair.source.restart()


async def restart_target(pair: Pair) -> None:
    await pair.target.restart()


async def restart_both(pair: Pair) -> None:
    await pair.source.stop()
    await pair.target.restart()
    await pair.source.start()


async def source_away_for_a_minute(pair: Pair) -> None:
    await pair.source.stop()
    await asyncio.sleep(60)
    await pair.source.start()


async def target_away_for_a_minute(pair: Pair) -> None:
    await pair.target.stop()
    await asyncio.sleep(60)
    await pair.target.start()


async def cut_for_5_s(pair: Pair) -> None:
    await cut(pair, 5)


async def cut_for_60_s(pair: Pair) -> None:
    await cut(pair, 60)


async def cut(pair: Pair, seconds: float) -> None:
    pair.link.is_up = pair.world.links_up = False
    asyncio.get_running_loop().call_later(seconds, mend, pair)


def mend(pair: Pair) -> None:
    pair.link.is_up = pair.world.links_up = True


async def lose_answers_for_a_while(pair: Pair) -> None:
    pair.link.lose_answers |= {"prepare", "finish", "abort"}
    asyncio.get_running_loop().call_later(20, pair.link.lose_answers.clear)


async def kill_target_qemu(pair: Pair) -> None:
    if pair.target.guest is not None:
        pair.target.guest.die()


async def kill_target_qemu_unnoticed(pair: Pair) -> None:
    if pair.target.guest is not None:
        pair.target.guest.die(noticed_after_s=0.05)


async def kill_source_qemu(pair: Pair) -> None:
    if pair.source.guest is not None:
        pair.source.guest.die()


async def hang_source_qemu(pair: Pair) -> None:
    hang(pair.source, 120)


async def hang_target_qemu(pair: Pair) -> None:
    hang(pair.target, 30)


async def hang_source_qemu_over_a_restart(pair: Pair) -> None:
    hang(pair.source, 300)

    async def restart_later() -> None:
        await asyncio.sleep(150)
        await pair.source.restart()

    pair.later(restart_later())


async def fill_source_disk(pair: Pair) -> None:
    fill_disk(pair.source)


async def fill_target_disk(pair: Pair) -> None:
    fill_disk(pair.target)


def fill_disk(host: FakeHost) -> None:
    """For half a minute nothing can be written."""
    host.store._db.execute("PRAGMA query_only = ON")
    asyncio.get_running_loop().call_later(30, host.store._db.execute, "PRAGMA query_only = OFF")


async def step_clock(pair: Pair) -> None:
    pair.step_clock(3600)


async def step_clock_back(pair: Pair) -> None:
    pair.step_clock(-3600)


def hang(host: FakeHost, seconds: float) -> None:
    guest = host.guest
    if guest is not None:
        guest.hangs = True
        asyncio.get_running_loop().call_later(seconds, setattr, guest, "hangs", False)


BREAKS: tuple[Break, ...] = (
    *(restart_source, restart_target, restart_both, source_away_for_a_minute, target_away_for_a_minute),
    *(cut_for_5_s, cut_for_60_s, lose_answers_for_a_while, kill_target_qemu, kill_target_qemu_unnoticed),
    *(kill_source_qemu, hang_source_qemu, hang_source_qemu_over_a_restart, hang_target_qemu),
    *(fill_source_disk, fill_target_disk, step_clock, step_clock_back),
)
# Whose manager it is that does not come back from the gate: "" and a common beginning mean both.
CRASHES = {restart_target: "target", target_away_for_a_minute: "target", restart_both: "target"}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
def test_whatever_breaks_one_host_owns_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: Break, gate: str
) -> None:
    """Never two running, one owner in the end, nothing left of the other; and the guest lives if its QEMU does."""

    async def main() -> None:
        pair = Pair(tmp_path)
        await pair.set_up()
        clock = time.time
        pair.step_clock = lambda seconds: monkeypatch.setattr("time.time", lambda: clock() + seconds)
        gates = Gates(monkeypatch)
        gates.closed = gate
        try:
            pair.migrate()
            async with asyncio.timeout(600):
                await gates.reached.wait()
            await breaks(pair)
            gates.open(crashed=CRASHES.get(breaks, ""))
            await pair.settle()
            pair.check_sound()
            assert pair.runs_on() == expected_runs(pair, breaks, gate), pair.describe()
        finally:
            await pair.tear_down()

    run(main())


def expected_runs(pair: Pair, breaks: Break, gate: str) -> list[str]:
    """Where the guest has to run: wherever the domain is, unless its only copy was killed."""
    place = [host.name for host in (pair.source, pair.target) if host.domain_names]
    if breaks is kill_source_qemu and place == ["t4-1"]:
        return []
    if breaks in (kill_target_qemu, kill_target_qemu_unnoticed) and gate in AFTER_RUNNING and place == ["t4-2"]:
        return []
    return place


@pytest.mark.parametrize("state", ["inactive", "bound"])
@pytest.mark.parametrize("gate", [gate for gate in GATES if gate not in ("source-copy", "source-suspend")])
@pytest.mark.parametrize(
    "breaks", [restart_source, restart_target, restart_both, cut_for_60_s], ids=lambda b: b.__name__
)
def test_a_domain_that_does_not_run_is_on_one_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: Break, gate: str, state: str
) -> None:
    """The same for a move of a description."""

    async def main() -> None:
        pair = Pair(tmp_path)
        await pair.set_up(state)
        gates = Gates(monkeypatch)
        gates.closed = gate
        try:
            pair.migrate()
            async with asyncio.timeout(600):
                await gates.reached.wait()
            await breaks(pair)
            gates.open(crashed=CRASHES.get(breaks, ""))
            await pair.settle()
            pair.check_sound()
        finally:
            await pair.tear_down()

    run(main())


def test_the_domain_can_move_after_every_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed attempt leaves nothing that is in the way of the next one."""

    async def main() -> None:
        pair = Pair(tmp_path)
        await pair.set_up()
        try:
            for gate in ("target-prepare", "source-copy", "source-suspend", "source-handing-off"):
                gates = Gates(monkeypatch)
                gates.closed = gate
                operation = pair.migrate()
                await gates.reached.wait()
                await kill_target_qemu(pair)
                gates.open()
                await pair.wait(operation)
                await pair.settle()
                pair.check_sound()
                if pair.runs_on() == ["t4-2"]:
                    break
            else:
                Gates(monkeypatch)
                await pair.wait(pair.migrate())
            assert pair.runs_on() == ["t4-2"], DOMAIN
        finally:
            await pair.tear_down()

    run(main())
