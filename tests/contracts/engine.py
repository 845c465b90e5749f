"""The contract of `ldoms.hypervisor.engine`: checks that take an `EngineBench`, of fakes or of real QEMUs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from ldoms.hypervisor.engine import Engine, Guest
from ldoms.hypervisor.specs import ControlPlacement, DeviceSpec, DiskSpec, GuestSpec, NetworkSpec, Placement, TrialSpec
from ldoms.hypervisor.states import (
    ENDED,
    AddedMemory,
    DiskState,
    GuestEvent,
    GuestEventKind,
    MigrationEnd,
    MigrationStatus,
    MirrorState,
    RunState,
)
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationPlan

LIMIT_S = 40.0
MAX_VCPUS = 3
"""Sockets of the machine of a bench's guests."""
AES = "NORMAL:-CIPHER-ALL:+AES-128-GCM:-KX-ALL:+ECDHE-PSK:+PSK"
PLAN = MigrationPlan(
    capabilities=("events", "multifd", "pause-before-switchover", "return-path"),
    channels=2,
    cipher=AES,
    compression="none",
    max_bandwidth_bytes_s=0,
    downtime_limit_s=0.3,
    max_suspend_s=0.3,
)
SQUEEZED = replace(PLAN, channels=1, compression="zstd", zero_pages="legacy", switchover_bandwidth_bytes_s=1 << 30)
"""Compressed, over one connection."""
DIFFERENCES = replace(
    PLAN,
    capabilities=("auto-converge", "events", "pause-before-switchover", "return-path", "xbzrle"),
    channels=1,
    zero_pages="none",
    xbzrle_cache_bytes=1 << 20,
)
"""Without multifd, and the guest may be held back."""
KEY, OTHER_KEY = "5e" * 32, "6f" * 32


class EngineBench(Protocol):
    """What the checks need: two hosts' engines and guests that fit them."""

    engine: Engine
    other: Engine
    cpus: tuple[int, int]
    """Two CPUs of the first host."""

    def spec(self) -> GuestSpec:
        """A guest that nobody has started yet."""

    def devices(self) -> tuple[DiskSpec, DeviceSpec]:
        """``disk@0`` and ``network@0`` that any guest can be given, behind its first two root ports."""

    def stand_in(self) -> NetworkSpec:
        """For the ``network@0`` of `devices`: another tap, another MAC address, another MTU."""

    def away(self, spec: GuestSpec) -> GuestSpec:
        """The same guest as the other host receives it."""

    def address(self) -> tuple[str, int]:
        """Where migration data may arrive, free."""

    async def restarted(self) -> Engine:
        """The first host's engine after a restart of its manager."""

    async def booted(self, guest: Guest) -> None:
        """Let a guest run, and wait until it is up. It has no agent."""

    def core(self) -> Path:
        """A file that is not there, for a guest's memory."""

    def kill(self, guest: Guest) -> None:
        """End its process as a crash does."""

    def hang(self, guest: Guest) -> None:
        """Have its process do nothing at all."""

    def go_on(self, guest: Guest) -> None:
        """The end of that."""

    def copies(self, names: Sequence[str]) -> tuple[tuple[DiskSpec, ...], tuple[DiskSpec, ...]]:
        """For each name, such as ``disk@0``, a disk of a guest, and an empty one of the same size on the other host."""

    async def write(self, guest: Guest, device: str, mark: int) -> None:
        """Have a guest write a byte to the beginning of a disk."""

    async def read(self, guest: Guest, disk: DiskSpec) -> int:
        """That byte, as the storage of the guest's host has it."""

    def whereabouts(self, guest: Guest) -> tuple[list[set[int]], set[int]]:
        """The CPUs that each of its virtual CPUs may run on, and those of everything else."""


@dataclass
class Ends:
    """Both ends of a migration that is ready to begin."""

    source: Guest
    target: Guest
    host: str
    port: int

    async def copy(self) -> str:
        """Send until the source waits for a word, or it is over; QEMU's last word."""
        await self.source.send(self.host, self.port)
        return await until(self.source, lambda status: status == MigrationStatus.PRE_SWITCHOVER or status in ENDED)


async def until(guest: Guest, condition: Callable[[str], bool]) -> str:
    """Wait for a state of the migration."""
    async with asyncio.timeout(LIMIT_S):
        while not condition(status := (await guest.progress()).status):
            await asyncio.sleep(0.02)
    return status


async def until_state(guest: Guest, state: RunState) -> None:
    """Wait until a guest does something."""
    async with asyncio.timeout(LIMIT_S):
        while await guest.state() is not state:
            await asyncio.sleep(0.02)


async def until_event(queue: asyncio.Queue[GuestEvent], kind: GuestEventKind) -> GuestEvent:
    """Wait for an event."""
    async with asyncio.timeout(LIMIT_S):
        while (event := await queue.get()).kind is not kind:
            pass
    return event


async def make_ends(
    bench: EngineBench,
    target_key: str = KEY,
    plan: MigrationPlan = PLAN,
    source: Guest | None = None,
    away: GuestSpec | None = None,
) -> Ends:
    """A guest that runs, and one that waits for it."""
    if source is None or away is None:
        spec = bench.spec()
        source, away = await bench.engine.start(spec), bench.away(spec)
        await source.resume()
    target = await bench.other.start(away)
    host, port = bench.address()
    await target.set_migration(MigrationEnd.RECEIVE, plan, target_key)
    await target.listen(host, port)
    await source.set_migration(MigrationEnd.SEND, plan, KEY)
    return Ends(source, target, host, port)


async def check_a_guest_starts_stopped(bench: EngineBench) -> None:
    """It runs only after `resume`."""
    guest = await bench.engine.start(bench.spec())
    assert await guest.state() is RunState.PAUSED
    await asyncio.sleep(0.2)
    assert await guest.state() is RunState.PAUSED
    await guest.resume()
    assert await guest.state() is RunState.RUNNING


async def check_pausing_is_reported(bench: EngineBench) -> None:
    """To everybody who has subscribed, with the time it happened."""
    guest = await bench.engine.start(bench.spec())
    with guest.events() as one, guest.events() as another:
        await guest.resume()
        await guest.pause()
        for queue in (one, another):
            resumed = await until_event(queue, GuestEventKind.RESUMED)
            stopped = await until_event(queue, GuestEventKind.STOPPED)
            assert stopped.at >= resumed.at
    assert await guest.state() is RunState.PAUSED


async def check_the_last_event_is_the_end(bench: EngineBench) -> None:
    """For those who have subscribed before, and for those who come too late."""
    guest = await bench.engine.start(bench.spec())
    with guest.events() as queue:
        await guest.quit()
        await until_event(queue, GuestEventKind.GONE)
        assert queue.empty()
    assert guest.is_gone
    with guest.events() as queue:
        assert (await queue.get()).kind is GuestEventKind.GONE
    await guest.quit()
    async with asyncio.timeout(LIMIT_S):
        await guest.wait_gone()
    with pytest.raises(HostError):
        await guest.state()


async def check_a_killed_guest_is_noticed(bench: EngineBench) -> None:
    """It is not found again, and the same guest can be started afresh."""
    spec = bench.spec()
    guest = await bench.engine.start(spec)
    await guest.resume()
    with guest.events() as queue:
        bench.kill(guest)
        await until_event(queue, GuestEventKind.GONE)
        assert queue.empty()
    assert guest.is_gone
    assert await bench.engine.attach(spec.uuid, spec.name, spec.directory) is None
    again = await bench.engine.start(spec)
    assert await again.state() is RunState.PAUSED


async def check_a_reset_is_reported(bench: EngineBench) -> None:
    """And the guest starts again by itself."""
    guest = await bench.engine.start(bench.spec())
    await guest.resume()
    with guest.events() as queue:
        await guest.reset()
        await until_event(queue, GuestEventKind.RESET)
    await until_state(guest, RunState.RUNNING)


async def check_a_panic_is_reported(bench: EngineBench) -> None:
    """The guest's kernel panics on an NMI, tells so, and starts anew as it was told to."""
    guest = await bench.engine.start(bench.spec())
    await bench.booted(guest)
    with guest.events() as queue:
        await guest.inject_nmi()
        await until_event(queue, GuestEventKind.PANICKED)
        await until_event(queue, GuestEventKind.RESET)
    await until_state(guest, RunState.RUNNING)


async def check_memory_is_kept_for_a_debugger(bench: EngineBench) -> None:
    """In a file; the guest runs on. A file that cannot be written is an error, and the guest runs on as well."""
    guest = await bench.engine.start(bench.spec())
    await guest.resume()
    heard: list[int] = []
    core = bench.core()
    await guest.dump(core, heard.append)
    assert core.stat().st_size > 0
    assert all(0 <= percent <= 100 for percent in heard)
    await until_state(guest, RunState.RUNNING)
    with pytest.raises(HostError):
        await guest.dump(core, heard.append)
    with pytest.raises(HostError):
        await guest.dump(core / "below", heard.append)
    await until_state(guest, RunState.RUNNING)


async def check_a_core_can_be_called_off(bench: EngineBench) -> None:
    """The guest goes on at once, and can be asked for another one."""
    guest = await bench.engine.start(bench.spec())
    await guest.resume()
    core = bench.core()
    begun = asyncio.Event()
    dumping = asyncio.ensure_future(guest.dump(core, lambda percent: begun.set()))
    async with asyncio.timeout(LIMIT_S):
        await begun.wait()
    dumping.cancel()
    await asyncio.gather(dumping, return_exceptions=True)
    await until_state(guest, RunState.RUNNING)
    core.unlink()
    await guest.dump(core, lambda percent: None)
    assert core.stat().st_size > 0
    await until_state(guest, RunState.RUNNING)


async def check_a_guest_is_seen_to_be_past_its_firmware(bench: EngineBench) -> None:
    """When its drivers have taken over its devices."""
    guest = await bench.engine.start(bench.spec())
    await bench.booted(guest)
    assert await guest.has_driver()


async def check_a_break_is_sent(bench: EngineBench) -> None:
    """To a guest that is there, whether it runs or not; nobody else can be sent one."""
    guest = await bench.engine.start(bench.spec())
    await guest.send_break()
    await guest.resume()
    await guest.send_break()
    await guest.quit()
    with pytest.raises(HostError):
        await guest.send_break()


async def check_a_guest_without_an_agent_is_known(bench: EngineBench) -> None:
    """Without waiting for an answer that does not come."""
    guest = await bench.engine.start(bench.spec())
    await bench.booted(guest)
    assert not await guest.has_agent()


async def check_the_power_button_switches_off(bench: EngineBench) -> None:
    """The guest does it by itself, says so, and then its process ends."""
    guest = await bench.engine.start(bench.spec())
    await bench.booted(guest)
    with guest.events() as queue:
        await guest.press_power_button()
        event = await until_event(queue, GuestEventKind.SHUT_DOWN)
        assert event.data["guest"], f"it was not the guest that shut down: {event}"
        await until_event(queue, GuestEventKind.GONE)


async def check_a_guest_that_is_ended_has_not_shut_down(bench: EngineBench) -> None:
    """Whatever is heard of it: it was not the guest's doing."""
    guest = await bench.engine.start(bench.spec())
    with guest.events() as queue:
        await guest.resume()
        await guest.quit()
        async with asyncio.timeout(LIMIT_S):
            while (event := await queue.get()).kind is not GuestEventKind.GONE:
                assert event.kind is not GuestEventKind.SHUT_DOWN or not event.data["guest"]


async def check_threads_are_where_they_belong(bench: EngineBench) -> None:
    """Each virtual CPU on its own CPUs, everything else with the control domain; both may change."""
    a, b = bench.cpus
    await bench.engine.place_control(ControlPlacement(frozenset({b})))
    placement = Placement((frozenset({a}), frozenset({a, b})))
    guest = await bench.engine.start(replace(bench.spec(), vcpus=2, placement=placement))
    assert bench.whereabouts(guest) == ([{a}, {a, b}], {b})
    await guest.place(Placement((frozenset({b}), frozenset({a}))))
    assert bench.whereabouts(guest) == ([{b}, {a}], {b})
    await bench.engine.place_control(ControlPlacement(frozenset({a, b})))
    assert bench.whereabouts(guest) == ([{b}, {a}], {a, b})
    assert len(guest.cpu_seconds()) == 2
    assert min(guest.cpu_seconds()) >= 0.0
    assert len(guest.cpu_wait_seconds()) == 2
    assert min(guest.cpu_wait_seconds()) >= 0.0


async def check_virtual_cpus_are_plugged_while_there_are_sockets(bench: EngineBench) -> None:
    """Each has the next number, waits for the guest to start it, and has a place of its own."""
    a, b = bench.cpus
    await bench.engine.place_control(ControlPlacement(frozenset({b})))
    guest = await bench.engine.start(bench.spec())
    assert await guest.count_vcpus() == 1
    for vid in range(1, MAX_VCPUS):
        assert await guest.plug_vcpu() == vid
        assert not await guest.has_started(vid), "a guest that is stopped has not started it"
    with pytest.raises(HostError) as caught:
        await guest.plug_vcpu()
    assert caught.value.code == "no-socket"
    assert (await guest.count_vcpus(), len(guest.cpu_seconds())) == (MAX_VCPUS, MAX_VCPUS)
    places = [frozenset({a}), frozenset({a, b}), frozenset({b})]
    await guest.place(Placement(tuple(places)))
    assert bench.whereabouts(guest) == ([set(cpus) for cpus in places], {b})
    found = await (await bench.restarted()).attach(guest.uuid, "ldg", guest.console.parent)
    assert found is not None
    assert await found.count_vcpus() == MAX_VCPUS
    await found.quit()


async def check_a_virtual_cpu_is_used_and_given_back(bench: EngineBench) -> None:
    """By a guest that does so by itself; what is unplugged can be plugged again."""
    guest = await bench.engine.start(bench.spec())
    await bench.booted(guest)
    for _ in range(2):
        assert await guest.plug_vcpu() == 1
        async with asyncio.timeout(LIMIT_S):
            while not await guest.has_started(1):
                await asyncio.sleep(0.02)
        assert await guest.unplug_vcpu(LIMIT_S)
        assert (await guest.count_vcpus(), len(guest.cpu_seconds())) == (1, 1)


async def check_a_guest_can_be_ended_by_several_at_once(bench: EngineBench) -> None:
    """The verb that ends it and whoever follows it both let go of it, at the same moment."""
    guest = await bench.engine.start(bench.spec())
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*(guest.quit() for _ in range(4)), guest.wait_gone())
    assert guest.is_gone


async def check_a_guest_is_not_started_twice(bench: EngineBench) -> None:
    """The second start is refused, and the first guest is left alone."""
    spec = bench.spec()
    guest = await bench.engine.start(spec)
    with pytest.raises(HostError) as caught:
        await bench.engine.start(spec)
    assert caught.value.code == "already-running"
    assert await guest.state() is RunState.PAUSED


async def check_a_guest_is_found_after_a_restart(bench: EngineBench) -> None:
    """It has run on meanwhile; one that is gone, or never was, is not found."""
    spec = bench.spec()
    guest = await bench.engine.start(spec)
    await guest.resume()
    engine = await bench.restarted()
    found = await engine.attach(spec.uuid, spec.name, spec.directory)
    assert found is not None
    assert await found.state() is RunState.RUNNING
    await found.quit()
    assert await engine.attach(spec.uuid, spec.name, spec.directory) is None
    unknown = bench.spec()
    assert await engine.attach(unknown.uuid, unknown.name, unknown.directory) is None


async def check_a_silent_guest_is_found_after_a_restart(bench: EngineBench) -> None:
    """It lives, whatever it is asked: it answers once it can, and can be ended before."""
    spec = bench.spec()
    guest = await bench.engine.start(spec)
    await guest.resume()
    for can_go_on in (True, False):
        bench.hang(guest)
        engine = await bench.restarted()
        found = await engine.attach(spec.uuid, spec.name, spec.directory)
        assert found is not None
        with pytest.raises(HostError) as caught:
            await found.state()
        assert caught.value.code == "qemu-silent"
        with pytest.raises(HostError):
            await engine.start(spec)
        assert not found.is_gone
        if can_go_on:
            bench.go_on(guest)
            async with asyncio.timeout(LIMIT_S):
                while not found.cpu_seconds():
                    await asyncio.sleep(0.02)
            await until_state(found, RunState.RUNNING)
            await engine.close()
    with found.events() as events:
        await found.quit()
        await until_event(events, GuestEventKind.GONE)
    assert found.is_gone
    assert await engine.attach(spec.uuid, spec.name, spec.directory) is None


def with_room(spec: GuestSpec) -> GuestSpec:
    """The same guest, with room for memory that is added while it runs."""
    return replace(spec, machine=replace(spec.machine, memory_max_mib=1024))


async def until_added(guest: Guest, size_mib: int) -> AddedMemory:
    """Wait until a guest has so much memory beyond what it was started with."""
    async with asyncio.timeout(LIMIT_S):
        while (added := await guest.added_memory()) is None or added.size_mib != size_mib:
            await asyncio.sleep(0.02)
    return added


async def check_memory_is_added_and_taken_back(bench: EngineBench) -> None:
    """The guest takes what it is offered and gives back what it is asked for; it has it again after its restart."""
    guest = await bench.engine.start(with_room(bench.spec()))
    await bench.booted(guest)
    assert await guest.added_memory() == AddedMemory(4096, 0, 0, 768)
    await guest.request_memory(512)
    assert await until_added(guest, 512) == AddedMemory(4096, 512, 512, 768)
    await guest.request_memory(256)
    await until_added(guest, 256)
    await guest.reset()
    await until_added(guest, 256)
    with pytest.raises(HostError):
        await guest.request_memory(1024)
    await guest.request_memory(0)
    await until_added(guest, 0)


async def check_no_memory_is_added_without_room(bench: EngineBench) -> None:
    """A machine that was not made for it."""
    guest = await bench.engine.start(bench.spec())
    assert await guest.added_memory() is None


async def check_added_memory_moves(bench: EngineBench) -> None:
    """The guest, which stands still meanwhile, has it at the other end, and can be given and asked for more there."""
    spec = with_room(bench.spec())
    source = await bench.engine.start(spec)
    await bench.booted(source)
    await source.request_memory(256)
    await until_added(source, 256)
    await source.pause()
    target = await bench.other.start(bench.away(replace(spec, added_memory_mib=256)))
    host, port = bench.address()
    await target.set_migration(MigrationEnd.RECEIVE, PLAN, KEY)
    await target.listen(host, port)
    await source.set_migration(MigrationEnd.SEND, PLAN, KEY)
    await Ends(source, target, host, port).copy()
    await source.continue_switchover()
    assert await until(target, ENDED.__contains__) == MigrationStatus.COMPLETED
    await source.quit()
    await target.resume()
    assert await target.added_memory() == AddedMemory(4096, 256, 256, 768)
    await target.request_memory(512)
    await until_added(target, 512)
    await target.request_memory(0)
    await until_added(target, 0)


async def check_memory_moves(bench: EngineBench) -> None:
    """The source waits for a word before the last part, and both ends are stopped when all has crossed."""
    ends = await make_ends(bench)
    with ends.source.events() as queue:
        assert await ends.copy() == MigrationStatus.PRE_SWITCHOVER
        stopped = await until_event(queue, GuestEventKind.STOPPED)
        assert stopped.at > 0
        assert await ends.target.state() is RunState.INCOMING
        await ends.source.continue_switchover()
        assert await until(ends.source, ENDED.__contains__) == MigrationStatus.COMPLETED
    assert await until(ends.target, ENDED.__contains__) == MigrationStatus.COMPLETED
    assert await ends.source.state() is RunState.SENT
    assert await ends.target.state() is RunState.PAUSED
    progress = await ends.source.progress()
    assert progress.passes >= 1
    assert progress.transferred_bytes > 0
    await ends.source.quit()
    await ends.target.resume()
    assert await ends.target.state() is RunState.RUNNING
    await ends.target.announce()
    await ends.target.clear_migration()


async def check_memory_moves_as_it_was_tuned(bench: EngineBench) -> None:
    """Both ends take the settings, each end with all of them read back; and afterwards those of another plan."""
    spec = bench.spec()
    source = await bench.engine.start(spec)
    await source.resume()
    for plan in (SQUEEZED, DIFFERENCES, PLAN):
        ends = await make_ends(bench, plan=plan, source=source, away=bench.away(spec))
        assert await ends.copy() == MigrationStatus.PRE_SWITCHOVER
        await ends.source.continue_switchover()
        assert await until(ends.target, ENDED.__contains__) == MigrationStatus.COMPLETED
        assert await ends.target.state() is RunState.PAUSED
        await ends.target.quit()
        await source.resume()
        await source.clear_migration()


async def check_a_setting_that_qemu_does_not_take_is_refused(bench: EngineBench) -> None:
    """In QEMU's words, and nothing was begun."""
    guest = await bench.engine.start(bench.spec())
    await guest.resume()
    with pytest.raises(HostError) as caught:
        await guest.set_migration(MigrationEnd.SEND, replace(PLAN, capabilities=(*PLAN.capabilities, "xbzrle")), KEY)
    assert caught.value.code == "qemu-refused"
    assert await guest.state() is RunState.RUNNING
    await guest.clear_migration()
    await guest.set_migration(MigrationEnd.SEND, DIFFERENCES, KEY)


async def check_a_copy_that_is_held_slow_is_released(bench: EngineBench) -> None:
    """By another limit, while it runs."""
    ends = await make_ends(bench, plan=replace(PLAN, max_bandwidth_bytes_s=1 << 20))
    await ends.source.send(ends.host, ends.port)
    await until(ends.source, MigrationStatus.ACTIVE.__eq__)
    await asyncio.sleep(0.3)
    assert (await ends.source.progress()).status == MigrationStatus.ACTIVE
    await ends.source.set_bandwidth(0)
    assert await until(ends.source, lambda status: status != MigrationStatus.ACTIVE) == MigrationStatus.PRE_SWITCHOVER
    await ends.source.cancel_migration()


async def check_a_guest_that_was_sent_can_come_back(bench: EngineBench) -> None:
    """The target has refused: the source, and it alone, runs again, and can be sent once more."""
    ends = await make_ends(bench)
    await ends.copy()
    await ends.source.continue_switchover()
    await until(ends.source, ENDED.__contains__)
    await ends.target.quit()
    await ends.source.resume()
    assert await ends.source.state() is RunState.RUNNING
    await ends.source.clear_migration()
    await ends.source.set_migration(MigrationEnd.SEND, PLAN, OTHER_KEY)


async def check_a_cancelled_copy_leaves_the_guest_running(bench: EngineBench) -> None:
    """Also when it was stopped already for the last part."""
    ends = await make_ends(bench)
    assert await ends.copy() == MigrationStatus.PRE_SWITCHOVER
    await ends.source.cancel_migration()
    await until(ends.source, ENDED.__contains__)
    await _resumed(ends.source)
    assert await ends.target.state() is not RunState.RUNNING


async def check_a_running_copy_can_be_told_to_hold_the_guest_back(bench: EngineBench) -> None:
    """If the plan made it ready for that; the copy goes on."""
    plan = replace(
        PLAN, capabilities=tuple(sorted((*PLAN.capabilities, "auto-converge"))), max_bandwidth_bytes_s=1 << 20
    )
    ends = await make_ends(bench, plan=plan)
    await ends.source.send(ends.host, ends.port)
    await until(ends.source, MigrationStatus.ACTIVE.__eq__)
    await ends.source.throttle(50)
    assert (await ends.source.progress()).status == MigrationStatus.ACTIVE
    assert (await ends.source.progress()).throttle_percent in (0, 50)
    await ends.source.cancel_migration()
    await until(ends.source, ENDED.__contains__)


IN_PARTS = replace(
    PLAN,
    capabilities=("events", "pause-before-switchover", "postcopy-ram", "return-path"),
    channels=1,
    max_bandwidth_bytes_s=1 << 20,
)
"""So slow that something is missing for long."""


async def hand_over_in_parts(bench: EngineBench) -> Ends:
    """A guest that runs on the target, and lacks most of its memory."""
    ends = await make_ends(bench, plan=IN_PARTS)
    await go_over_in_parts(ends)
    return ends


async def go_over_in_parts(ends: Ends) -> None:
    """Have a guest go over before most of its memory does."""
    await ends.source.send(ends.host, ends.port)
    await until(ends.source, MigrationStatus.ACTIVE.__eq__)
    await ends.source.start_postcopy()
    await until(ends.source, MigrationStatus.PRE_SWITCHOVER.__eq__)
    assert await ends.target.state() is RunState.INCOMING
    await ends.source.continue_switchover()
    await until(ends.source, MigrationStatus.POSTCOPY_ACTIVE.__eq__)
    await until_state(ends.target, RunState.PAUSED)
    assert (await ends.target.progress()).status == MigrationStatus.POSTCOPY_ACTIVE
    await ends.target.resume()


async def check_a_guest_goes_over_before_all_of_its_memory(bench: EngineBench) -> None:
    """It could go back until then, and cannot any more; it gets the rest while it runs."""
    ends = await hand_over_in_parts(bench)
    with pytest.raises(HostError):
        await ends.source.cancel_migration()
    with pytest.raises(HostError):
        await ends.source.resume()
    await ends.source.set_bandwidth(0)
    assert await until(ends.source, ENDED.__contains__) == MigrationStatus.COMPLETED
    assert await until(ends.target, ENDED.__contains__) == MigrationStatus.COMPLETED
    assert await ends.target.state() is RunState.RUNNING
    assert await ends.source.state() is RunState.SENT


async def check_a_postcopy_that_is_broken_can_be_mended(bench: EngineBench) -> None:
    """More than once, at another port each time, whether or not the target knows that it is broken."""
    ends = await hand_over_in_parts(bench)
    with pytest.raises(HostError):
        await ends.source.send_again(ends.host, ends.port)
    for tell in (True, False):
        await ends.source.pause_postcopy()
        await until(ends.source, MigrationStatus.POSTCOPY_PAUSED.__eq__)
        with pytest.raises(HostError):
            await ends.source.resume()
        if tell:
            await until(ends.target, MigrationStatus.POSTCOPY_PAUSED.__eq__)
        for _ in range(2):
            host, port = bench.address()
            await ends.target.listen_again(host, port)
        await ends.source.send_again(host, port)
        await until(ends.source, MigrationStatus.POSTCOPY_ACTIVE.__eq__)
        assert await ends.target.state() is RunState.RUNNING
    await ends.source.set_bandwidth(0)
    assert await until(ends.source, ENDED.__contains__) == MigrationStatus.COMPLETED
    assert await until(ends.target, ENDED.__contains__) == MigrationStatus.COMPLETED


async def check_a_postcopy_is_lost_with_the_target(bench: EngineBench) -> None:
    """The source notices, cannot run the guest, and can be ended."""
    ends = await hand_over_in_parts(bench)
    await ends.target.quit()
    await until(ends.source, MigrationStatus.POSTCOPY_PAUSED.__eq__)
    with pytest.raises(HostError):
        await ends.source.resume()
    await ends.source.quit()
    assert ends.source.is_gone


async def check_a_postcopy_is_lost_with_the_source(bench: EngineBench) -> None:
    """The target's QEMU may hang, as a page will never come; it can be ended all the same."""
    ends = await hand_over_in_parts(bench)
    await ends.source.quit()
    await ends.target.quit()
    assert ends.target.is_gone


async def check_only_a_postcopy_can_be_mended(bench: EngineBench) -> None:
    """A copy of the ordinary kind is neither paused nor waited for again."""
    ends = await make_ends(bench, plan=IN_PARTS)
    await ends.source.send(ends.host, ends.port)
    await until(ends.source, MigrationStatus.ACTIVE.__eq__)
    for call in (ends.source.pause_postcopy(), ends.target.listen_again(*bench.address())):
        with pytest.raises(HostError):
            await call
    await ends.source.cancel_migration()
    await until(ends.source, ENDED.__contains__)
    assert await ends.source.state() is RunState.RUNNING


async def check_a_cut_connection_leaves_the_guest_running(bench: EngineBench) -> None:
    """In the middle of the copy: that fails, at both ends."""
    ends = await make_ends(bench, plan=replace(PLAN, max_bandwidth_bytes_s=1 << 20))
    await ends.source.send(ends.host, ends.port)
    await until(ends.source, MigrationStatus.ACTIVE.__eq__)
    await ends.source.cut_migration()
    assert await until(ends.source, ENDED.__contains__) == MigrationStatus.FAILED
    assert await until(ends.target, ENDED.__contains__) == MigrationStatus.FAILED
    assert await ends.source.state() is RunState.RUNNING


async def check_a_cut_after_a_cancel_does_no_harm(bench: EngineBench) -> None:
    """The order for a guest that stands still for its last part."""
    ends = await make_ends(bench)
    assert await ends.copy() == MigrationStatus.PRE_SWITCHOVER
    await ends.source.cancel_migration()
    await ends.source.cut_migration()
    await until(ends.source, ENDED.__contains__)
    await _resumed(ends.source)


async def check_a_wrong_key_is_refused(bench: EngineBench) -> None:
    """Nothing crosses, and the guest runs on."""
    ends = await make_ends(bench, target_key=OTHER_KEY)
    assert await ends.copy() == MigrationStatus.FAILED
    assert await ends.source.state() is RunState.RUNNING
    assert await ends.target.state() is RunState.INCOMING


async def check_a_dead_target_fails_the_copy(bench: EngineBench) -> None:
    """The guest runs on where it is."""
    ends = await make_ends(bench)
    await ends.target.quit()
    assert await ends.copy() == MigrationStatus.FAILED
    await _resumed(ends.source)


async def check_a_port_is_taken_once(bench: EngineBench) -> None:
    """The second one is told by a code of its own, so that the next port can be tried."""
    host, port = bench.address()
    receivers = [await bench.other.start(bench.away(bench.spec())) for _ in range(2)]
    for receiver in receivers:
        await receiver.set_migration(MigrationEnd.RECEIVE, PLAN, KEY)
    await receivers[0].listen(host, port)
    with pytest.raises(HostError) as caught:
        await receivers[1].listen(host, port)
    assert caught.value.code == "port-taken"


async def check_what_a_guest_does_with_its_memory(bench: EngineBench) -> None:
    """Not all of it is in use, nothing changes while it stands still, and looking at it does no harm."""
    guest = await bench.engine.start(bench.spec())
    try:
        use = await guest.memory_use()
        assert use.total_bytes == bench.spec().memory_mib << 20
        assert 0 <= use.nonzero_bytes <= use.total_bytes
        assert await guest.dirty_rate(0.05) == 0
        await guest.resume()
        assert await guest.dirty_rate(0.2) >= 0
        assert await guest.state() is RunState.RUNNING
    finally:
        await guest.quit()


async def check_a_trial_crosses_between_two_hosts(bench: EngineBench) -> None:
    """Encrypted like a migration; all of it is sent, as none of it is zero; and both ends are gone when told so."""
    spec, other = (one.directory for one in (bench.spec(), bench.away(bench.spec())))
    plan = replace(PLAN, capabilities=("events", "pause-before-switchover", "return-path"), channels=1)
    sender = await bench.engine.start_trial(TrialSpec("trial-1", spec.with_name("trial-1"), 32, incoming=False))
    receiver = await bench.other.start_trial(TrialSpec("trial-2", other.with_name("trial-2"), 32, incoming=True))
    try:
        host, port = bench.address()
        for guest, end in ((receiver, MigrationEnd.RECEIVE), (sender, MigrationEnd.SEND)):
            await guest.set_migration(end, plan, KEY)
        await receiver.listen(host, port)
        ends = Ends(sender, receiver, host, port)
        assert await ends.copy() == MigrationStatus.PRE_SWITCHOVER
        progress = await sender.progress()
        assert progress.transferred_bytes > 16 << 20
        assert progress.transferred_bytes + progress.remaining_bytes >= 32 << 20
    finally:
        for guest in (sender, receiver):
            await guest.quit()
    assert sender.is_gone
    assert receiver.is_gone


async def check_an_unknown_capability_is_refused(bench: EngineBench) -> None:
    """Before anything is started."""
    guest = await bench.engine.start(bench.spec())
    plan = replace(PLAN, capabilities=(*PLAN.capabilities, "teleport"))
    with pytest.raises(HostError):
        await guest.set_migration(MigrationEnd.SEND, plan, KEY)
    assert (await guest.progress()).status == MigrationStatus.NONE


async def check_the_facts_are_concrete(bench: EngineBench) -> None:
    """No alias among machine types, and every feature of a CPU that can be had is one of the host's."""
    facts = bench.engine.facts
    assert facts.default_machine_type in facts.machine_types
    assert facts.default_machine_type.rpartition("-")[2][0].isdigit()
    for arch in ("native", "generic"):
        model, features = bench.engine.resolve_cpu(arch)
        assert model.rpartition("-v")[2].isdigit()
        assert set(features) <= set(facts.cpu_features)
    assert {"events", "pause-before-switchover", "return-path"} <= set(facts.migration_capabilities)


def with_ports(spec: GuestSpec, root_ports: int = 4) -> GuestSpec:
    """A guest with room for devices that come later."""
    return replace(spec, machine=replace(spec.machine, root_ports=root_ports))


async def check_devices_come_and_go(bench: EngineBench) -> None:
    """While the guest runs, more than once; each end is told, and a device is not given twice."""
    guest = await bench.engine.start(with_ports(bench.spec()))
    await bench.booted(guest)
    assert await guest.devices() == frozenset()
    disk, network = bench.devices()
    for _ in range(2):
        await guest.plug(disk)
        await guest.plug(network)
        assert await guest.devices() == {"disk@0", "network@0"}
        with pytest.raises(HostError) as caught:
            await guest.plug(disk)
        assert caught.value.code == "device-taken"
        with guest.events() as queue:
            await guest.unplug("disk@0", LIMIT_S)
            assert (await until_event(queue, GuestEventKind.DEVICE_GONE)).data == {"device": "disk@0"}
        assert await guest.devices() == {"network@0"}
        await guest.unplug("network@0", LIMIT_S)
    assert await guest.devices() == frozenset()
    with pytest.raises(HostError):
        await guest.unplug("disk@0", LIMIT_S)


async def check_a_network_that_is_not_let_go_moves(bench: EngineBench) -> None:
    """The target has no record of it, and gives the guest something in its place; the guest has what it had."""
    spec = with_ports(bench.spec())
    source = await bench.engine.start(spec)
    await bench.booted(source)
    await source.plug(bench.devices()[1])
    await source.set_link("network@0", up=False)
    ends = await make_ends(bench, source=source, away=replace(bench.away(spec), networks=(bench.stand_in(),)))
    assert await ends.copy() == MigrationStatus.PRE_SWITCHOVER
    await source.continue_switchover()
    assert await until(ends.target, ENDED.__contains__) == MigrationStatus.COMPLETED
    await source.quit()
    await ends.target.clear_migration()
    await ends.target.resume()
    await ends.target.unplug("network@0", LIMIT_S)
    assert await ends.target.devices() == frozenset()


async def check_a_cable_is_pulled_and_plugged(bench: EngineBench) -> None:
    """Of an interface that the guest has, and of no other."""
    guest = await bench.engine.start(with_ports(bench.spec()))
    _, network = bench.devices()
    await guest.plug(network)
    for up in (False, True):
        await guest.set_link("network@0", up=up)
    with pytest.raises(HostError):
        await guest.set_link("network@1", up=False)


async def check_a_device_without_a_root_port_is_refused(bench: EngineBench) -> None:
    """And nothing of it is left: it can be given behind a port that is there."""
    guest = await bench.engine.start(with_ports(bench.spec(), 1))
    disk, _ = bench.devices()
    with pytest.raises(HostError) as caught:
        await guest.plug(replace(disk, port=3))
    assert caught.value.code == "qemu-refused"
    assert await guest.devices() == frozenset()
    await guest.plug(disk)
    assert await guest.devices() == {"disk@0"}


async def check_a_device_that_is_not_let_go_stays(bench: EngineBench) -> None:
    """A guest that does not run cannot let it go; it has it as before, also for a manager that comes later."""
    spec = with_ports(bench.spec())
    guest = await bench.engine.start(spec)
    disk, _ = bench.devices()
    await guest.plug(disk)
    with pytest.raises(HostError) as caught:
        await guest.unplug("disk@0", 0.2)
    assert caught.value.code == "device-held"
    assert await guest.devices() == {"disk@0"}
    with pytest.raises(HostError) as caught:
        await guest.unplug("disk@0", 0.2)
    assert caught.value.code == "device-held"
    found = await (await bench.restarted()).attach(spec.uuid, spec.name, spec.directory)
    assert found is not None
    assert await found.devices() == {"disk@0"}


async def check_a_disk_is_cut_and_mended(bench: EngineBench) -> None:
    """The guest keeps the device, and nothing is behind it for as long as it is cut; then it can be let go."""
    guest = await bench.engine.start(with_ports(bench.spec()))
    await bench.booted(guest)
    disk, _ = bench.devices()
    await guest.plug(disk)
    works, is_cut = {"disk@0": DiskState(disk.path, False, disk.direct)}, {"disk@0": DiskState(None, False)}
    assert await guest.disks() == works
    for close in (True, False, True):
        await guest.cut_disk("disk@0", close=close)
        assert await guest.disks() == is_cut
        await guest.cut_disk("disk@0", close=close)
        assert await guest.devices() == {"disk@0"}
        await guest.mend_disk(disk)
        assert await guest.disks() == works
    await guest.cut_disk("disk@0", close=False)
    await guest.cut_disk("disk@0")
    with pytest.raises(HostError):
        await guest.mend_disk(replace(disk, path=Path("/nowhere/at/all")))
    assert await guest.disks() == is_cut
    await guest.mend_disk(disk)
    await guest.cut_disk("disk@0")
    await guest.unplug("disk@0", LIMIT_S)
    await guest.plug(disk)
    assert await guest.devices() == {"disk@0"}


async def check_a_plugged_device_moves(bench: EngineBench) -> None:
    """The target is started with it behind the same port, and it can be taken away there."""
    spec = with_ports(bench.spec())
    source = await bench.engine.start(spec)
    await bench.booted(source)
    _, network = bench.devices()
    disk = replace(bench.devices()[0], port=2)
    await source.plug(disk)
    ends = await make_ends(bench, source=source, away=replace(bench.away(spec), disks=(disk,)))
    assert await ends.copy() == MigrationStatus.PRE_SWITCHOVER
    await source.continue_switchover()
    assert await until(ends.target, ENDED.__contains__) == MigrationStatus.COMPLETED
    await source.quit()
    await ends.target.clear_migration()
    await ends.target.resume()
    await ends.target.unplug("disk@0", LIMIT_S)
    await ends.target.plug(network)
    assert await ends.target.devices() == {"network@0"}


DISKS = ("disk@0", "disk@1")


@dataclass
class Copies:
    """Both ends of a migration whose disks are copied."""

    ends: Ends
    port: int
    ours: tuple[DiskSpec, ...]
    theirs: tuple[DiskSpec, ...]
    bench: EngineBench

    async def begin(self, limit_bytes_s: int = 0) -> None:
        await self.ends.source.mirror_disks(DISKS, self.ends.host, self.port, limit_bytes_s)

    async def until(self, condition: Callable[[MirrorState], bool]) -> None:
        """Wait until it holds for each disk."""
        async with asyncio.timeout(LIMIT_S):
            while not all(map(condition, (states := await self.ends.source.mirrors()).values())):
                await asyncio.sleep(0.02)
            assert sorted(states) == list(DISKS)

    async def read(self) -> list[tuple[int, int]]:
        """What both hosts have, for each disk."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return [
            (await self.bench.read(self.ends.source, mine), await self.bench.read(self.ends.target, other))
            for mine, other in pairs
        ]


async def make_copies(bench: EngineBench, target_key: str = KEY) -> Copies:
    """A guest that runs, and one that waits for its memory and its disks."""
    ours, theirs = bench.copies(DISKS)
    spec = replace(with_ports(bench.spec()), disks=ours)
    away = replace(bench.away(spec), disks=theirs)
    source = await bench.engine.start(spec)
    await source.resume()
    for number, device in enumerate(DISKS):
        await bench.write(source, device, number + 1)
    plan = replace(PLAN, capabilities=(*PLAN.capabilities, "late-block-activate"))
    ends = await make_ends(bench, target_key, plan, source, away)
    host, port = bench.address()
    await ends.target.offer_disks(DISKS, host, port)
    return Copies(ends, port, ours, theirs, bench)


async def check_disks_are_copied_while_the_guest_writes(bench: EngineBench) -> None:
    """And are the same on both sides when it has moved; what it writes there is not written here."""
    copies = await make_copies(bench)
    source, target = copies.ends.source, copies.ends.target
    assert await source.mirrors() == {}
    await copies.begin()
    await copies.until(lambda state: state.is_ready and not state.error and state.sent_bytes == state.total_bytes > 0)
    assert {device: state.path for device, state in (await source.disks()).items()} == {
        disk.device: disk.path for disk in copies.ours
    }
    await bench.write(source, "disk@0", 7)
    await source.limit_mirror("disk@0", 1 << 20)
    await source.tie_mirrors()
    await copies.until(lambda state: state.is_tied)
    await bench.write(source, "disk@1", 8)
    assert await copies.ends.copy() == MigrationStatus.PRE_SWITCHOVER
    await source.end_mirrors(LIMIT_S)
    assert await source.mirrors() == {}
    assert await copies.read() == [(7, 7), (8, 8)]
    await source.continue_switchover()
    assert await until(target, ENDED.__contains__) == MigrationStatus.COMPLETED
    await target.withdraw_disks()
    await target.withdraw_disks()
    await target.clear_migration()
    await source.quit()
    await target.resume()
    await bench.write(target, "disk@0", 9)
    assert await target.state() is RunState.RUNNING
    assert await bench.read(source, copies.ours[0]) == 7


async def check_a_copy_of_disks_that_is_dropped_does_no_harm(bench: EngineBench) -> None:
    """Nothing of it is left, also when it has just begun; the guest runs and writes, and can be sent again."""
    copies = await make_copies(bench)
    source = copies.ends.source
    await source.drop_mirrors()
    await copies.begin(64 << 10)
    with pytest.raises(HostError) as caught:
        await source.tie_mirrors()
    assert caught.value.code == "not-mirrored"
    with pytest.raises(HostError) as caught:
        await source.end_mirrors(LIMIT_S)
    assert caught.value.code == "not-mirrored"
    await source.drop_mirrors()
    assert await source.mirrors() == {}
    await copies.begin()
    await copies.until(lambda state: state.is_ready)
    await source.tie_mirrors()
    await source.drop_mirrors()
    await bench.write(source, "disk@0", 5)
    assert (await copies.read())[0] == (5, 1)
    assert await source.state() is RunState.RUNNING
    assert not any(disk.has_failed for disk in (await source.disks()).values())


async def check_a_dead_target_fails_the_copy_of_disks(bench: EngineBench) -> None:
    """The guest notices nothing of it, whenever it happens."""
    copies = await make_copies(bench)
    source = copies.ends.source
    await copies.begin()
    await copies.until(lambda state: state.is_ready)
    await source.tie_mirrors()
    bench.kill(copies.ends.target)
    await bench.write(source, "disk@0", 5)
    await copies.until(lambda state: bool(state.error) or state.is_ready)
    await source.drop_mirrors()
    assert await source.mirrors() == {}
    await bench.write(source, "disk@1", 6)
    assert [await bench.read(source, disk) for disk in copies.ours] == [5, 6]
    assert await source.state() is RunState.RUNNING


async def check_a_hung_target_is_let_go(bench: EngineBench) -> None:
    """The end of a copy of disks does not wait for it, and the guest goes on."""
    copies = await make_copies(bench)
    source = copies.ends.source
    await copies.begin(256 << 10)
    await asyncio.sleep(0.1)
    bench.hang(copies.ends.target)
    await asyncio.sleep(1.0)
    async with asyncio.timeout(15):
        await source.drop_mirrors()
    await bench.write(source, "disk@0", 5)
    bench.go_on(copies.ends.target)
    assert await source.mirrors() == {}
    assert await bench.read(source, copies.ours[0]) == 5
    assert await source.state() is RunState.RUNNING


async def check_disks_are_not_taken_from_a_stranger(bench: EngineBench) -> None:
    """Without the key nothing can be written to them."""
    copies = await make_copies(bench, OTHER_KEY)
    with pytest.raises(HostError):
        await copies.begin()
    await copies.ends.source.drop_mirrors()
    assert await copies.ends.source.mirrors() == {}
    assert [theirs for _, theirs in await copies.read()] == [0, 0]


async def _resumed(guest: Guest) -> None:
    """It runs, by itself or with help: QEMU does it by itself in some of these cases."""
    async with asyncio.timeout(LIMIT_S):
        while await guest.state() is not RunState.RUNNING:
            try:
                await guest.resume()
            except HostError:
                await asyncio.sleep(0.05)


CHECKS: tuple[Callable[[EngineBench], Awaitable[None]], ...] = tuple(
    check for name, check in list(globals().items()) if name.startswith("check_")
)
