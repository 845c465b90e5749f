"""A logical domain: what was asked for (constraints), what was given (bindings), and how it does (status)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ldoms.model.errors import NotFound
from ldoms.model.identity import CONTROL_DOMAIN
from ldoms.model.policy import Policy, PolicyStatus
from ldoms.model.vnet import Protection, Pvlan


class DomainState(StrEnum):
    """The STATE column of ``ldm list``."""

    INACTIVE = "inactive"
    """Only constraints exist; nothing is reserved."""
    BOUND = "bound"
    """Resources are reserved; the guest does not run."""
    STARTING = "starting"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    """Stopped for the last part of a migration, or until its outcome is settled."""
    STOPPING = "stopping"


class CpuArch(StrEnum):
    """Which CPU the guest sees. SPARC class names are read as ``generic``."""

    NATIVE = "native"
    """The best CPU of this host; moves between hosts that have its features."""
    GENERIC = "generic"
    """A CPU that any host of the last decade can give."""


class Threading(StrEnum):
    """How many of a core's strands a domain uses."""

    MAX_THROUGHPUT = "max-throughput"
    MAX_IPC = "max-ipc"
    """One of each core: a virtual CPU has a core for itself."""


class FailurePolicy(StrEnum):
    """What happens to the slaves of a domain when it fails."""

    IGNORE = "ignore"
    PANIC = "panic"
    RESET = "reset"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class VirtualDisk:
    """A disk of the guest, on a volume of a virtual disk service.

    Attributes:
        id: the guest's ``disk@ID``; the boot order, lowest first.
        timeout_s: how long I/O may wait for its service, 0 = for ever. Kept and shown.
    """

    name: str
    volume: str
    service: str
    id: int
    timeout_s: int = 0


@dataclass(frozen=True, slots=True)
class VirtualNetwork:
    """A network interface of the guest, on a virtual switch.

    Attributes:
        id: the guest's ``network@ID``.
        mac: fixed when the interface is added; moves along.
        mtu: bytes; 0 = that of the switch.
        pvid: VLAN of untagged frames.
        vids: VLANs that the guest tags itself, in ascending order.
        alt_macs: further MAC addresses that the guest may use.
        maxbw_bits_s: limit of each direction; 0 = none.
        allowed_ips: addresses and networks that the guest may use, with `Protection.IP_NOSPOOF`.
        kept: properties that nothing on Linux enforces, as they were set; kept and shown.
    """

    name: str
    switch: str
    id: int
    mac: str
    mtu: int = 0
    pvid: int = 1
    linkprop: str = ""
    vids: tuple[int, ...] = ()
    alt_macs: tuple[str, ...] = ()
    pvlan: Pvlan | None = None
    maxbw_bits_s: int = 0
    allowed_ips: tuple[str, ...] = ()
    protection: tuple[Protection, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()

    @property
    def macs(self) -> tuple[str, ...]:
        """Every MAC address that it may use, its own first."""
        return (self.mac, *self.alt_macs)


@dataclass(frozen=True, slots=True)
class ConsoleConstraint:
    """What was asked of the console; empty means: any concentrator, any port, the domain's name as group.

    Attributes:
        log: what the guest says is kept in a file.
    """

    service: str = ""
    group: str = ""
    port: int = 0
    log: bool = True


@dataclass(frozen=True, slots=True)
class Constraints:
    """The properties of a domain that ``add-domain`` and ``set-domain`` take, and its CPUs and memory.

    Attributes:
        vcpus: number of virtual CPUs, 0 = none asked for yet.
        memory_mib: 0 = none asked for yet.
        masters: names of up to four domains that this one depends on.
        shutdown_group: 0 to 15; higher ones are stopped first.
        platform: properties that mean something on SPARC only, as they were set; kept and shown.
        crypto_units: cryptographic units, which only SPARC has; kept and shown.
        whole_core: it shares no core with another domain.
        max_cores: on how many cores its virtual CPUs may be at most; 0 = no limit.
        core_ids: the whole cores that it is to have, by their numbers, ascending; empty = any.
    """

    vcpus: int = 0
    memory_mib: int = 0
    cpu_arch: CpuArch = CpuArch.NATIVE
    failure_policy: FailurePolicy = FailurePolicy.IGNORE
    masters: tuple[str, ...] = ()
    shutdown_group: int = 15
    platform: tuple[tuple[str, str], ...] = ()
    crypto_units: int = 0
    whole_core: bool = False
    max_cores: int = 0
    threading: Threading = Threading.MAX_THROUGHPUT
    core_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class VcpuBinding:
    """One virtual CPU and the strand that it runs on; `core` is the strand's host CPU."""

    vid: int
    strand: int
    core: int


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """A range of guest memory: where the guest sees it, and which part of the partition it takes (MiB)."""

    real_address_mib: int
    physical_address_mib: int
    size_mib: int


@dataclass(frozen=True, slots=True)
class CpuModel:
    """The CPU that the guest sees, in full.

    Attributes:
        model: versioned name of QEMU's, such as ``Westmere-v2``.
        features: every feature that is on in the guest, sorted: what a target must be able to give.
    """

    model: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware that the guest sees; resolved when the domain is bound and never changed while it is.

    Attributes:
        type: versioned machine type, never an alias (QEMU, docs/devel/migration/compatibility.rst).
        accelerator: ``kvm`` or ``tcg``.
        qemu_version: of the QEMU that resolved it, for the record.
        max_vcpus: how many virtual CPUs it has sockets for; 0 = as many as the domain has.
        root_ports: PCI Express root ports that there are at least, so that some are spare for devices that are added
            while the guest runs; 0 = as many as devices.
        memory_max_mib: to which the memory of the guest can grow while it runs; 0 = it cannot.
        disk_queues: of each disk; 0 = as many as virtual CPUs.
        panic_device: it has a device by which its kernel can tell that it has panicked.
    """

    type: str
    accelerator: str
    cpu: CpuModel
    qemu_version: str
    max_vcpus: int = 0
    root_ports: int = 0
    memory_max_mib: int = 0
    panic_device: bool = False
    disk_queues: int = 0


@dataclass(frozen=True, slots=True)
class Port:
    """The PCI Express root port that a device sits behind: its place is part of what the guest sees.

    Attributes:
        device: ``disk@ID`` or ``network@ID``.
        number: 0 to 159.
        boots: it is a network that the running guest was started with to boot from.
    """

    device: str
    number: int
    boots: bool = False


@dataclass(frozen=True, slots=True)
class Bindings:
    """What a bound domain has been given.

    Attributes:
        boot_memory_mib: of its memory, what the guest was started with; the rest was added while it ran. 0 = all of it.
        vcpus: the virtual CPUs that it uses, by number.
        parked: virtual CPUs that its running guest's machine has and that were taken from it: the guest keeps them
            offline. They have no strand of their own: should the guest wake one, it shares those of the domain.
        idle: strands of its whole cores that no virtual CPU runs on.
    """

    vcpus: tuple[VcpuBinding, ...]
    memory: tuple[MemoryBlock, ...]
    console_service: str = ""
    console_port: int = 0
    machine: Machine | None = None
    ports: tuple[Port, ...] = ()
    boot_memory_mib: int = 0
    parked: tuple[int, ...] = ()
    idle: tuple[int, ...] = ()

    @property
    def held(self) -> frozenset[int]:
        """Every host strand that nobody else may have."""
        return frozenset((*self.strands, *self.idle))

    @property
    def plugged(self) -> tuple[int, ...]:
        """Numbers of the virtual CPUs of its guest's machine, in order."""
        return tuple(sorted((*(vcpu.vid for vcpu in self.vcpus), *self.parked)))

    @property
    def strands(self) -> tuple[int, ...]:
        """The host strands of the domain, in the order of its virtual CPUs."""
        return tuple(vcpu.strand for vcpu in self.vcpus)

    @property
    def memory_mib(self) -> int:
        """All memory that the domain has."""
        return sum(block.size_mib for block in self.memory)

    @property
    def added_memory_mib(self) -> int:
        """What was added to it while its guest ran."""
        return self.memory_mib - self.first_memory_mib

    @property
    def first_memory_mib(self) -> int:
        """What its guest was started with, or is when it is."""
        return self.boot_memory_mib or self.memory_mib


@dataclass(frozen=True, slots=True)
class Domain:
    """Everything about a domain that outlives a restart.

    Attributes:
        order: grows with every domain made on this host; listings follow it.
        variables: name and value of each boot variable, sorted by name.
        bindings: None while the domain is inactive.
        started_at: when its guest was started, on whatever host, in seconds since 1970; 0 = it does not run.
    """

    uuid: str
    name: str
    mac: str
    hostid: str
    order: int
    constraints: Constraints = field(default_factory=Constraints)
    variables: tuple[tuple[str, str], ...] = ()
    disks: tuple[VirtualDisk, ...] = ()
    networks: tuple[VirtualNetwork, ...] = ()
    console: ConsoleConstraint = field(default_factory=ConsoleConstraint)
    bindings: Bindings | None = None
    started_at: float = 0.0
    policies: tuple[Policy, ...] = ()

    @property
    def is_control(self) -> bool:
        """Whether this is the control domain, which is the host itself."""
        return self.name == CONTROL_DOMAIN

    @property
    def is_bound(self) -> bool:
        """Whether resources are reserved for it (bound or active)."""
        return self.bindings is not None

    @property
    def console_group(self) -> str:
        """The group of its console: domains of one group share a port."""
        return self.console.group or self.name

    @property
    def macs(self) -> tuple[str, ...]:
        """Every MAC address that the domain holds."""
        return (self.mac, *(mac for network in self.networks for mac in network.macs))

    def variable(self, name: str, default: str = "") -> str:
        """The value of a boot variable."""
        return dict(self.variables).get(name, default)

    def policy(self, name: str) -> Policy:
        """The resource management policy of that name.

        Raises:
            NotFound: there is none.
        """
        for policy in self.policies:
            if policy.name == name:
                return policy
        raise NotFound(f"Policy {name} was not found in LDom {self.name}")

    def disk(self, name: str) -> VirtualDisk:
        """The disk of that name.

        Raises:
            NotFound: there is none.
        """
        for disk in self.disks:
            if disk.name == name:
                return disk
        raise NotFound(f"Disk {name} was not found in LDom {self.name}")

    def network(self, name: str) -> VirtualNetwork:
        """The network interface of that name.

        Raises:
            NotFound: there is none.
        """
        for network in self.networks:
            if network.name == name:
                return network
        raise NotFound(f"Virtual network {name} was not found in LDom {self.name}")


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """What ``ldm list -o status`` shows of a migration that this domain takes part in.

    Attributes:
        role: ``source`` or ``target``: what this host is.
        peer: the other host, as it was called on the command line.
        progress: percent, 0 to 100.
        error: a person must decide; nothing goes on by itself.
        position, reason: in the queue, from 1, and what it waits for; 0 = it does not wait.
    """

    operation: str
    role: str
    peer: str
    phase: str
    progress: int
    error: bool = False
    position: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DomainStatus:
    """How a domain does right now.

    Attributes:
        flags: the six letters of the FLAGS column.
        utilisation: percent of its strands' time that the guest used lately; None while it does not run.
        vcpu_utilisation: the same for each virtual CPU, in order.
        uptime_s: since the guest was started, on whatever host; None while it does not run.
        softstate: what is known of the software in the guest, or empty.
        norm_utilisation: `utilisation` in percent of what its CPUs could do at full speed.
        norm_vcpu_utilisation: the same for each virtual CPU.
        memory_progress: percent of a change of its memory that is under way; None if none is.
        disk_paths: for each disk with several paths, its name and the ``volume@service`` that the guest uses.
        policies: what each of its resource management policies has done.
        lent_strands: free ones that the control domain may use meanwhile (``migrate-domain --boost``).
    """

    state: DomainState
    flags: str
    utilisation: float | None = None
    vcpu_utilisation: tuple[float, ...] = ()
    uptime_s: float | None = None
    softstate: str = ""
    migration: MigrationStatus | None = None
    norm_utilisation: float | None = None
    norm_vcpu_utilisation: tuple[float, ...] = ()
    memory_progress: int | None = None
    disk_paths: tuple[tuple[str, str], ...] = ()
    policies: tuple[PolicyStatus, ...] = ()
    lent_strands: int = 0


@dataclass(frozen=True, slots=True)
class DomainView:
    """A domain as a listing shows it."""

    domain: Domain
    status: DomainStatus
