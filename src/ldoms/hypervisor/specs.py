"""What a guest is to be: its machine, devices and memory, and where its threads run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ldoms.model.domain import Machine
from ldoms.model.sizes import ACTIVE_ALIGNMENT_MIB


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk of a guest.

    Attributes:
        device: ``disk@ID``.
        path: image file or block device; None = nothing is behind it, and every request fails.
        is_device: it is a block device.
        direct: the file system can do without the host's page cache, as shared storage needs it.
        port: number of the root port it sits behind.
        boot_index: the firmware tries the lowest first.
        queues: for requests; 0 = as many as QEMU was started with virtual CPUs.
        shared: other guests may write to it, too.
    """

    device: str
    path: Path | None
    is_device: bool
    format: str
    read_only: bool
    direct: bool
    port: int
    boot_index: int
    queues: int = 0
    shared: bool = False


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network interface of a guest; `tap` exists already.

    Attributes:
        boot_index: the firmware tries the lowest first; None = it has no code to boot from the network.
    """

    device: str
    tap: str
    mac: str
    mtu: int
    port: int
    boot_index: int | None = None


DeviceSpec: TypeAlias = DiskSpec | NetworkSpec
"""What can be given to a guest that runs."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the threads of a guest run.

    Attributes:
        vcpus: for each virtual CPU of the machine, the host CPUs that it may run on.
        vcpu_quota: of CPU time that all virtual CPUs together get, in CPUs; None = no limit.
        share: what they count against other domains that want the same CPU: what its strands are worth, in CPUs.
    """

    vcpus: tuple[frozenset[int], ...]
    vcpu_quota: float | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class ControlPlacement:
    """Where everything of QEMU that is not a virtual CPU runs: the CPUs of the control domain; see `Placement`."""

    cpus: frozenset[int]
    quota: float | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """A guest to start: the machine in full, so that two hosts make the same one of it.

    Attributes:
        directory: for its sockets and logs, private to it; made if missing.
        kernel, initrd, boot_args: for a direct kernel boot; without a kernel the firmware boots from the disks.
        memory_mib: that it is started with.
        added_memory_mib: that it has been given beyond that, on the host that it comes from.
        hostid: the serial number that the machine shows to its guest; empty = none.
        incoming: wait for another host's memory instead of starting afresh.
    """

    uuid: str
    name: str
    directory: Path
    machine: Machine
    vcpus: int
    memory_mib: int
    placement: Placement
    disks: tuple[DiskSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    kernel: Path | None = None
    initrd: Path | None = None
    boot_args: str = ""
    hostid: str = ""
    incoming: bool = False
    added_memory_mib: int = 0

    @property
    def memory_room_mib(self) -> int:
        """How much memory can be added while it runs: what its machine leaves room for, in whole steps."""
        room = self.machine.memory_max_mib - self.memory_mib
        return max(0, room // ACTIVE_ALIGNMENT_MIB * ACTIVE_ALIGNMENT_MIB)


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One end of a trial of a link: memory, and nothing that could run.

    Attributes:
        directory: for its sockets and logs, private to it; made if missing.
        incoming: receive; else it has memory that is not zero, to be sent.
    """

    uuid: str
    directory: Path
    memory_mib: int
    incoming: bool
