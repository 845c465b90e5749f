"""Facts about a host: what it is, what it can do, what is free."""

from __future__ import annotations

from dataclasses import dataclass

from ldoms.model.partition import HostSize

PROTOCOL_VERSION = 1
"""Of the calls between managers. A manager talks to its own version and to the one before."""


OK, FAULT, UNKNOWN = "ok", "fault", "unknown"
"""Health of a part of the host."""


@dataclass(frozen=True, slots=True)
class HypervisorFacts:
    """What the QEMU of a host can do, as it said itself.

    Attributes:
        version: such as ``10.0.2``.
        accelerator: ``kvm`` if a guest really boots with it, else ``tcg``.
        accelerator_reason: why that one was chosen.
        machine_types: versioned ones that it can create, sorted.
        default_machine_type: what ``q35`` stands for.
        cpu_models: versioned models that it can create, sorted.
        cpu_features: everything that a guest could be given, sorted.
        migration_capabilities: names of QEMU's, sorted.
        compressions: methods of multifd compression.
        migration_parameters: names of QEMU's, sorted; empty: the manager there is too old to say.
        dirty_ring: KVM can count what each virtual CPU changes (its dirty ring), which a dirty limit needs.
        postcopy: a guest can run here before all of its memory has come.
        postcopy_reason: why not, in QEMU's words; empty: the manager there is too old to say.
    """

    version: str
    accelerator: str
    accelerator_reason: str
    machine_types: tuple[str, ...]
    default_machine_type: str
    cpu_models: tuple[str, ...]
    cpu_features: tuple[str, ...]
    migration_capabilities: tuple[str, ...]
    compressions: tuple[str, ...]
    migration_parameters: tuple[str, ...] = ()
    dirty_ring: bool = False
    postcopy: bool = False
    postcopy_reason: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is fixed about a host while its manager runs.

    Attributes:
        name: host name.
        identity: fingerprint of its certificate: no two hosts have the same.
        cpu_model: of the processor, as its maker calls it.
        cpu_flags: of the processor that matter to us (``aes``), sorted.
        data_address: where this host receives migration data; empty = the address it was called at.
        confinement: how CPU use is limited: ``cgroup-v2``, ``cgroup-v1`` or ``affinity``.
    """

    name: str
    identity: str
    version: str
    protocol: int
    size: HostSize
    cpu_model: str
    cpu_flags: tuple[str, ...]
    hypervisor: HypervisorFacts
    data_address: str = ""
    confinement: str = "affinity"
    incoming_enabled: bool = True
    outgoing_enabled: bool = True
    saves_configuration: bool = False


@dataclass(frozen=True, slots=True)
class StrandView:
    """A strand in a listing.

    Attributes:
        core: its CPU.
        holder: the domain that holds it, or empty.
        health: ``ok``, or ``fault`` if the kernel does not use its CPU.
    """

    strand: int
    core: int
    holder: str
    health: str = OK


@dataclass(frozen=True, slots=True)
class MemoryView:
    """A range of memory in a listing: where, how much, and the domain that holds it, or empty.

    Attributes:
        health: ``ok``, or ``unknown`` if the kernel has found broken memory: it does not tell whose that is.
    """

    address_mib: int
    size_mib: int
    holder: str
    health: str = OK


@dataclass(frozen=True, slots=True)
class HostView:
    """A host in a listing."""

    facts: HostFacts
    strands: tuple[StrandView, ...]
    memory: tuple[MemoryView, ...]
