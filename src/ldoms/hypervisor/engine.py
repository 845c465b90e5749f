"""What the rest of ldoms asks of a hypervisor: start guests, follow them, and move their memory.

`QemuEngine` does it with QEMU, `FakeEngine` in memory; ``tests/contracts/engine.py`` holds both to the same promises.
What is handed over is in `specs.py`, what comes back in `states.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ldoms.hypervisor.specs import ControlPlacement, DeviceSpec, DiskSpec, GuestSpec, Placement, TrialSpec
from ldoms.hypervisor.states import (
    AddedMemory,
    DiskState,
    GuestEvent,
    GuestVcpu,
    MigrationEnd,
    MirrorState,
    PowerWish,
    RunState,
)
from ldoms.model.forecast import MemoryUse
from ldoms.model.guest import CpuTimes, TimeService
from ldoms.model.host import HypervisorFacts
from ldoms.model.migration import MigrationPlan, Progress


class Agent(Protocol):
    """The guest agent, if there is one in the guest."""

    async def ping(self) -> bool:
        """Whether it answers."""

    async def clock(self) -> float:
        """The guest's clock, seconds since 1970.

        Raises:
            HostError: it does not answer.
        """

    async def set_clock(self, at: float) -> None:
        """Set the guest's clock.

        Raises:
            HostError: it does not answer, or cannot.
        """

    async def time_service(self) -> TimeService | None:
        """What keeps the guest's clock right; None if there is nothing that we know, or nobody may ask it.

        Raises:
            HostError: it does not answer.
        """

    async def vcpus(self) -> tuple[GuestVcpu, ...]:
        """The virtual CPUs that the guest knows of, by number.

        Raises:
            HostError: it does not answer, or cannot.
        """

    async def set_vcpus(self, vids: Sequence[int], *, online: bool) -> None:
        """Bring virtual CPUs online or take them offline, one after the other; look at `vcpus` for what came of it.

        Raises:
            HostError: it does not answer, or refuses the first one.
        """

    async def cpu_times(self) -> tuple[CpuTimes, ...]:
        """What the virtual CPUs that are online have done since the guest booted, by number.

        Raises:
            HostError: it does not answer, or cannot: QEMU's can since 7.1.
        """

    async def shut_down(self, wish: PowerWish = PowerWish.OFF) -> None:
        """Ask the guest to shut down, or to restart, in good order.

        Raises:
            HostError: it does not answer.
        """

    async def switch_off(self) -> None:
        """Have the guest write its file systems and switch off, without ending what runs in it.

        Raises:
            HostError: it does not answer, or may not run programs.
        """

    async def tell(self, text: str) -> None:
        """Show a text on the terminals of the guest's users.

        Raises:
            HostError: it does not answer, may not run programs, or cannot.
        """

    async def system(self) -> str:
        """The name of the guest's operating system, such as ``Debian GNU/Linux 12 (bookworm)``.

        Raises:
            HostError: it does not answer, or does not know.
        """


class Guest(Protocol):
    """A guest whose QEMU runs on this host.

    Every call raises `HostError` when QEMU refuses or does not answer in time.
    """

    @property
    def uuid(self) -> str:
        """Of the domain that it is the guest of."""

    @property
    def agent(self) -> Agent:
        """The way to the guest agent."""

    @property
    def console(self) -> Path:
        """The socket of its console; one client at a time."""

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended."""

    def events(self) -> AbstractContextManager[asyncio.Queue[GuestEvent]]:
        """Subscribe to what it reports from now on; the last event is `GuestEventKind.GONE`."""

    async def state(self) -> RunState:
        """What it does."""

    async def resume(self) -> float:
        """Let it run; the host's clock when it did.

        Not while it is `RunState.INCOMING`: QEMU takes that for a wish, and lets the guest run by itself as soon as
        the memory has come. The fake refuses, so that the mistake shows.
        """

    async def pause(self) -> None:
        """Stop its virtual CPUs."""

    async def press_power_button(self) -> None:
        """Ask it to shut down, through ACPI."""

    async def reset(self) -> None:
        """Restart it as the reset button does."""

    async def inject_nmi(self) -> None:
        """Interrupt it in a way that it cannot mask; what it makes of that is its own business."""

    async def dump(self, path: Path, progress: Callable[[int], None]) -> None:
        """Write its memory to a file for a debugger. It stands still meanwhile, and goes on afterwards.

        It goes on as well when this is cancelled, or when this manager ends.

        Args:
            path: of the file, which must not be there.
            progress: hears how far it is, in percent.

        Raises:
            HostError: the file cannot be written, or nothing was written for a minute; what there is of it is the
                caller's to remove.
        """

    async def has_agent(self) -> bool:
        """Whether something in the guest, its agent, has opened the agent's channel. The agent itself is not asked."""

    async def has_driver(self) -> bool:
        """Whether a driver of the guest has taken over one of its virtual devices: it is past its firmware.

        True where that cannot be known.
        """

    async def send_break(self) -> None:
        """Send a break on its serial line."""

    async def quit(self) -> None:
        """End the process at once, and return when it is gone."""

    async def wait_gone(self) -> None:
        """Return when the process has ended."""

    async def place(self, placement: Placement) -> None:
        """Move its virtual CPUs to the given host CPUs."""

    def cpu_seconds(self) -> tuple[float, ...]:
        """CPU time that each virtual CPU of its machine has used so far."""

    def cpu_wait_seconds(self) -> tuple[float, ...]:
        """For how long each of them has wanted a CPU of the host so far, and had none; 0 where nobody counts it."""

    # Virtual CPUs: they have no gaps, so that their number says it all

    async def count_vcpus(self) -> int:
        """How many virtual CPUs its machine has, whether the guest uses them or not."""

    async def plug_vcpu(self) -> int:
        """Give its machine the next virtual CPU; its number. Until it is placed it runs with the control domain.

        Raises:
            HostError: code ``no-socket``: the machine has no place for another one.
        """

    async def unplug_vcpu(self, limit_s: float) -> bool:
        """Take the last virtual CPU out of its machine; False if the guest has not let go of it in time.

        The guest may still do so later. Not under TCG, unless the guest is never to be moved: QEMU 10.0 hangs.
        """

    async def has_started(self, vid: int) -> bool:
        """Whether the guest has begun to use a virtual CPU since it was plugged or the machine was reset."""

    # Devices

    async def devices(self) -> frozenset[str]:
        """Its disks and network interfaces, as ``disk@ID`` and ``network@ID``."""

    async def plug(self, device: DeviceSpec) -> None:
        """Give it a device, behind a root port that is free; the guest sees it at once, or when it runs.

        Raises:
            HostError: it cannot be given; nothing is left behind.
        """

    async def unplug(self, device: str, limit_s: float) -> None:
        """Ask the guest to let go of ``disk@ID`` or ``network@ID``, and return when its back end is closed, too.

        Raises:
            HostError: code ``device-held``: the guest has not let it go in time. It has it as before; QEMU cannot take
                the wish back, so that it may still let it go: `GuestEventKind.DEVICE_GONE` tells.
        """

    async def set_link(self, device: str, *, up: bool) -> None:
        """Plug the cable of ``network@ID`` in, or pull it out: the guest sees its interface gain or lose the link.

        Raises:
            HostError: it has no such interface.
        """

    # Memory

    async def added_memory(self) -> AddedMemory | None:
        """What it has beyond the memory that it was started with; None if nothing can be added."""

    async def request_memory(self, size_mib: int) -> None:
        """Ask it to have `size_mib` beyond what it was started with, a multiple of 256.

        It takes or gives back in its own time, as far as it can: look at `added_memory`.

        Raises:
            HostError: it is more than the maximum.
        """

    async def memory_use(self) -> MemoryUse:
        """How much memory it has, and how much of that is not zero, from samples; takes some hundredths of a second.

        Raises:
            HostError: code ``no-look``: the host does not let us look.
        """

    async def dirty_rate(self, window_s: float) -> float:
        """Bytes per second of its memory that it changes, counted over a window of at least 0.05 s.

        A page that changes twice within the window counts once. One question at a time; it goes on in QEMU when this
        is cancelled.
        """

    async def disks(self) -> Mapping[str, DiskState]:
        """How each of its disks does."""

    async def cut_disk(self, device: str, *, close: bool = True) -> None:
        """Put nothing behind ``disk@ID``, which the guest keeps: every request for it fails from now on.

        With `close` what was behind it is closed, and what QEMU has not written yet may be lost; without it waits to
        be put back by `mend_disk`. Nothing happens if nothing is behind the disk.
        """

    async def mend_disk(self, disk: DiskSpec) -> None:
        """Put something behind a disk that was cut: what was there, unless that was closed.

        Requests that wait for it go on when the guest is resumed.

        Raises:
            HostError: it cannot be opened; nothing is behind the disk, as before.
        """

    # Disks that the other host of a migration has not: between `set_migration`, by which they are encrypted, too, and
    # `clear_migration`

    async def offer_disks(self, devices: Sequence[str], host: str, port: int) -> None:
        """Let the other host write to disks of a guest that waits for its memory.

        Args:
            devices: ``disk@ID``, each.
            host: address to listen at.
            port: to listen at.

        Raises:
            HostError: code ``port-taken``: another process has the port.
        """

    async def withdraw_disks(self) -> None:
        """The end of that; nothing happens if there was no beginning.

        It comes before `resume`: QEMU 10.0 would let two write. The fake refuses, so that the mistake shows.
        """

    async def mirror_disks(self, devices: Sequence[str], host: str, port: int, limit_bytes_s: int) -> None:
        """Begin to copy disks to a host that offers to take them; the guest goes on writing.

        Args:
            devices: ``disk@ID``, each.
            host: where the other host listens.
            port: where it listens.
            limit_bytes_s: for each disk; 0 = none.

        Raises:
            HostError: one cannot be begun; what was begun goes on until `drop_mirrors`.
        """

    async def mirrors(self) -> Mapping[str, MirrorState]:
        """How far the copy of each disk is, by ``disk@ID``."""

    async def limit_mirror(self, device: str, bytes_s: int) -> None:
        """Limit the speed of the copy of one disk; 0 = not at all."""

    async def tie_mirrors(self) -> None:
        """Have each write of the guest wait until the other host has it: nothing will be left to be copied.

        Raises:
            HostError: code ``not-mirrored``: a copy is not ready.
        """

    async def end_mirrors(self, limit_s: float) -> None:
        """End the copies of a guest that stands still: the disks are the same on both sides now.

        Raises:
            HostError: code ``not-mirrored``: they are not, or not in time; `drop_mirrors` ends the copies.
        """

    async def drop_mirrors(self) -> None:
        """End all copies of disks, however far they are; connections are broken. Never raises.

        Not before the copy of the memory was ended, as with `cut_migration`. Nothing happens if there are none.
        """

    # Migration

    async def set_migration(self, end: MigrationEnd, plan: MigrationPlan, key: str) -> None:
        """Set capabilities and parameters, all of them, and read them back.

        Raises:
            HostError: QEMU did not take them; nothing was started.
        """

    async def clear_migration(self) -> None:
        """Take back what `set_migration` set, and forget the key. Never raises."""

    async def listen(self, host: str, port: int) -> None:
        """Wait for the memory of another host's guest.

        Raises:
            HostError: code ``port-taken``: another process has the port.
        """

    async def send(self, host: str, port: int) -> None:
        """Start to send the guest's memory; it goes on running.

        Raises:
            HostError: code ``target-mute``: the other end took the connection and says nothing. The copy has failed,
                the guest runs on; it may have stood still for as long as was waited (QEMU 10.0).
        """

    async def continue_switchover(self) -> None:
        """Leave `MigrationStatus.PRE_SWITCHOVER`: send the rest."""

    async def cancel_migration(self) -> None:
        """Ask for an end of the migration; look at `progress` for what came of it."""

    async def cut_migration(self) -> None:
        """Break the connections of a migration, also when QEMU is blocked on them: the copy fails.

        At `MigrationStatus.PRE_SWITCHOVER` never before `cancel_migration`: QEMU 10.0 that was cut first there was seen
        to refuse ``cont`` afterwards, for as long as anybody tried.

        Raises:
            HostError: code ``no-cut``: the kernel does not allow it.
        """

    # Postcopy, of a plan that allows it: from `start_postcopy` to the end QEMU says one of `IN_POSTCOPY`

    async def start_postcopy(self) -> None:
        """Go over as soon as can be, with what was sent so far.

        It passes through `MigrationStatus.PRE_SWITCHOVER` as ever. The receiving end is `RunState.PAUSED` when it has
        all that it needs to run. From then on this end cannot run again, and a cancel is refused.
        """

    async def pause_postcopy(self) -> None:
        """Break the connection, as either end, also when QEMU's main loop waits for a page that does not come.

        Raises:
            HostError: there is none: it is `MigrationStatus.POSTCOPY_PAUSED` already, or not in postcopy.
        """

    async def listen_again(self, host: str, port: int) -> None:
        """Wait for the rest of the memory at another place, also when QEMU's main loop waits; may be repeated.

        Raises:
            HostError: code ``port-taken``, or it is not in postcopy.
        """

    async def send_again(self, host: str, port: int) -> None:
        """Go on sending the rest, over a new connection; look at `progress` for what comes of it.

        Raises:
            HostError: it is not `MigrationStatus.POSTCOPY_PAUSED`.
        """

    async def progress(self) -> Progress:
        """How far the migration is."""

    def unsent_bytes(self) -> int:
        """Of a migration, what QEMU has handed to the kernel and the other end has not received: it comes first.

        QEMU counts it as sent.
        """

    def limit_unsent(self, size: int) -> None:
        """Have QEMU hand no more than about so many bytes of a migration to the kernel before they can be sent.

        What is on its way already does not count. Nothing happens where that cannot be had.
        """

    async def set_downtime_limit(self, seconds: float) -> None:
        """Allow a running migration to suspend the guest for so long; 0: it goes over only if nothing is left."""

    async def set_bandwidth(self, bytes_s: int) -> None:
        """Limit a running migration to so much; 0 = as fast as it goes."""

    async def throttle(self, percent: int) -> None:
        """Have a running migration hold the guest back by that share of its CPU time, soon, to its end.

        The plan of the migration must have the capability ``auto-converge``. QEMU begins with it after two looks at
        what the guest has changed, at least a second apart: `progress` tells.
        """

    async def announce(self) -> None:
        """Tell the network where the guest's addresses are now."""


class Engine(Protocol):
    """The hypervisor of a host."""

    @property
    def facts(self) -> HypervisorFacts:
        """What it can do."""

    async def start(self, spec: GuestSpec) -> Guest:
        """Start a guest, stopped: it runs only after `Guest.resume`.

        Raises:
            HostError: it cannot be started; nothing is left behind.
        """

    async def start_trial(self, spec: TrialSpec) -> Guest:
        """Start one end of a trial of a link: memory without a machine, on the control domain's CPUs; it never runs.

        It ends with `Guest.quit`, and by itself when this manager ends.

        Raises:
            HostError: it cannot be started; nothing is left behind.
        """

    async def attach(self, uuid: str, name: str, directory: Path) -> Guest | None:
        """Find a guest again that an earlier manager has started; None if its process has ended.

        A guest whose process is there and says nothing is found as well: every call raises `HostError`, but those that
        end it, until it answers.
        """

    async def place_control(self, placement: ControlPlacement) -> None:
        """Move what is not a virtual CPU, of every guest, to the CPUs of the control domain."""

    def resolve_cpu(self, arch: str) -> tuple[str, tuple[str, ...]]:
        """The versioned CPU model for ``native`` or ``generic``, and every feature that it turns on."""

    async def close(self) -> None:
        """Let go of all guests; they go on running."""
