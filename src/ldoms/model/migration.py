"""A migration: what is asked, what the two managers tell each other, and the record that stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ldoms.model.boost import Boost
from ldoms.model.domain import Domain
from ldoms.model.findings import Finding
from ldoms.model.forecast import Forecast, LinkSpeed
from ldoms.model.guest import GuestTime
from ldoms.model.host import HostFacts
from ldoms.model.images import BootFileFacts, Destination, ImageFacts
from ldoms.model.ownership import OwnerState, Verdict
from ldoms.model.phases import Phase
from ldoms.model.queue import Queued
from ldoms.model.services import Services, Volume
from ldoms.model.tuning import Tuning

DEFAULT_MAX_SUSPEND_S = 0.3
POSTCOPY = "postcopy-ram"
"""QEMU's capability, which it takes only before the copy begins."""


class Outcome(StrEnum):
    """How a migration ended, or that it has not."""

    UNDER_WAY = "under-way"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNDECIDED = "undecided"
    """The target's answer is missing; it is asked again until it comes."""


class Role(StrEnum):
    """What this host is in a migration."""

    SOURCE = "source"
    TARGET = "target"


class OnStall(StrEnum):
    """What is done about a copy that does not come to an end within what was promised."""

    ABORT = "abort"
    """The guest stays where it is."""
    THROTTLE = "throttle"
    """The guest is held back, in steps; if that does not help, it stays where it is."""
    SUSPEND = "suspend"
    """The guest is suspended for as long as the rest of the copy takes, however long that is."""
    POSTCOPY = "postcopy"
    """The guest goes over at once, and fetches the rest of its memory while it runs there.

    Until it has all of it, the end of either QEMU, or of either host, is its end.
    """


class Pages(StrEnum):
    """What a target knows of the memory of a guest that runs there before all of it has come."""

    MISSING = "missing"
    """Some of it is on the source only."""
    WHOLE = "whole"
    LOST = "lost"
    """The guest has ended before it had all of it."""


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """What the administrator asked of a migration.

    Attributes:
        host: the target, as it was typed.
        new_name: of the domain on the target; empty = the same.
        max_suspend_s: longest suspension that is allowed.
        max_time_s: longest time from the request to the end that is allowed; 0 = any.
        on_stall: what is done about a copy that does not come to an end within these.
        max_bandwidth_bytes_s: 0 = as fast as it goes.
        encrypted: guest memory is encrypted on its way.
        certificates: the hosts trust each other's certificates, no person is authenticated (``-c``).
        save_spconfig: both hosts save their configuration afterwards, whatever theirs say (``-s``).
        core_map: for each core that was named for the domain, which it is to have on the target (``cidmap=``).
        tuning: what was set by hand of how memory is copied (``--tune``).
        copy_storage: disks that the hosts do not share are copied.
        boost: strands that are lent to the control domains meanwhile; 0 = as many as help; None = none.
    """

    host: str
    user: str = ""
    new_name: str = ""
    force: bool = False
    dry_run: bool = False
    certificates: bool = False
    max_suspend_s: float = DEFAULT_MAX_SUSPEND_S
    max_bandwidth_bytes_s: int = 0
    encrypted: bool = True
    save_spconfig: bool = False
    core_map: tuple[tuple[int, int], ...] = ()
    max_time_s: float = 0.0
    on_stall: OnStall = OnStall.THROTTLE
    tuning: Tuning = field(default_factory=Tuning)
    copy_storage: bool = False
    boost: int | None = None


@dataclass(frozen=True, slots=True)
class LimitChanges:
    """What is to be changed of a migration that is under way; None = as it is.

    Attributes:
        max_bandwidth_bytes_s: 0 = as fast as it goes.
        max_suspend_s: longest suspension that is allowed.
        max_time_s: from the request to the end; 0 = any.
    """

    max_bandwidth_bytes_s: int | None = None
    max_suspend_s: float | None = None
    max_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """A domain that is to move, as its host describes it to the other one.

    Attributes:
        active: a guest runs in it; its memory has to be copied.
        images: what the source sees of each disk.
        boot_files: what the source boots it from.
        mtus: of each virtual switch that it is connected to, by name.
        volumes: behind each disk, by ``volume@service``.
        softstate: what is known of the software in the guest.
        dependants: domains that name this one as master.
        default_vlans: of each virtual switch that it is connected to, by name: the VLAN of a network that names none.
        shared_volumes: those that other guests may have at the same time, as ``volume@service``.
    """

    domain: Domain
    active: bool
    images: tuple[ImageFacts, ...] = ()
    boot_files: tuple[BootFileFacts, ...] = ()
    mtus: Mapping[str, int] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    softstate: str = ""
    dependants: tuple[str, ...] = ()
    default_vlans: Mapping[str, int] = field(default_factory=dict)
    shared_volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What a target says of itself and of its fitness for one domain.

    Attributes:
        names: of every domain, with its UUID.
        macs: every MAC address in use, with the domain that has it.
        free_console_ports: how many, over all concentrators.
        console_groups: names taken.
        images: what it sees under the paths that its own volumes of the same names have.
        free_data_port: whether a port for migration data can be had.
        busy: operations under way that would be in the way, in words.
        network_abilities: what can be enforced on the switches that the domain needs; see `ldoms.model.vnet`.
        free_cores: how many are free as a whole; None: the manager there is too old to say.
        whole_cores: which are.
        shared_volumes: of the domain's, those that several guests may have here.
        destinations: where the copies of the domain's disks would be, if they are to be copied.
        grants_turns: it is asked for one before it prepares; False: the manager there is too old for that.
    """

    host: HostFacts
    services: Services
    names: Mapping[str, str]
    macs: Mapping[str, str]
    free_strands: int
    free_memory_mib: int
    available_memory_mib: int
    free_console_ports: int
    console_groups: tuple[str, ...] = ()
    images: tuple[ImageFacts, ...] = ()
    boot_files: tuple[BootFileFacts, ...] = ()
    free_data_port: bool = True
    data_mtu: int = 0
    busy: tuple[str, ...] = ()
    masters: tuple[str, ...] = ()
    network_abilities: tuple[str, ...] = ()
    free_cores: int | None = None
    whole_cores: tuple[int, ...] = ()
    shared_volumes: tuple[str, ...] = ()
    destinations: tuple[Destination, ...] = ()
    grants_turns: bool = False


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The offset between the clocks of two hosts, as NTP finds it (RFC 5905 section 8).

    Attributes:
        offset_s: what the target's clock is ahead.
        uncertainty_s: half of the round trip.
    """

    offset_s: float
    uncertainty_s: float


@dataclass(frozen=True, slots=True)
class CheckFacts:
    """All that the rules look at.

    Attributes:
        guest_time: the guest's clock; None = no guest, or one that does not tell.
        source_free_strands: that can be lent to the control domain of the source.
        link: what the way of the memory carries uncompressed, where that was measured before; None = it was not.
        source_control_cpus: CPUs of the machine that the control domain of the source has.
    """

    options: MigrationOptions
    source: HostFacts
    domain: DomainFacts
    target: TargetFacts
    clock: ClockReading
    source_data_mtu: int = 0
    guest_time: GuestTime | None = None
    source_free_strands: int = 0
    link: LinkSpeed | None = None
    source_control_cpus: float = 0.0

    @property
    def must_stand_still(self) -> bool:
        """Whether the guest has to be suspended for the whole copy.

        TCG's record of the pages that a guest changes holds for the memory that it was started with. In what was
        added later QEMU 10.0 misses changes, or ends by an assertion.
        """
        bindings = self.domain.domain.bindings
        emulated = bindings is not None and bindings.machine is not None and bindings.machine.accelerator == "tcg"
        return self.domain.active and emulated and bindings is not None and bindings.added_memory_mib > 0

    @property
    def has_dirty_ring(self) -> bool:
        """Whether the guest can be told how fast it may change memory: KVM counts that for it."""
        bindings = self.domain.domain.bindings
        under_kvm = bindings is not None and bindings.machine is not None and bindings.machine.accelerator == "kvm"
        return under_kvm and self.source.hypervisor.dirty_ring


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """A disk that is copied, as the hosts do not share what is behind it.

    Attributes:
        device: ``disk@ID``.
        disk: its name.
        service: of its volume.
        volume: as the target has it, or will have it.
        size_bytes: that the guest sees.
        makes_volume: the target does not have the volume yet.
        makes_image: the target has nothing at its path yet; else a block device is there.
        finds_format: the target has the volume, and has never looked at what is behind it.
        content_bytes: that the image takes on the source: what there is to send.
    """

    device: str
    disk: str
    service: str
    volume: Volume
    size_bytes: int
    makes_volume: bool = False
    makes_image: bool = True
    finds_format: bool = False
    content_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """How the memory is copied: one plan, made by the source, set and read back on both ends.

    Attributes:
        capabilities: of QEMU's that are on; all others are off.
        channels: connections that carry memory.
        cipher: GnuTLS priority string; empty = not encrypted.
        downtime_limit_s: what QEMU is told at first.
        downtime_most_s: what it is told at most: `max_suspend_s` less what QEMU does not count; 0 = not known.
        max_time_s: from the request to the end; 0 = any.
        on_stall: what is done about a copy that does not come to an end.
        throttle_percents: of its CPU time that the guest is held back by at a stall, step by step; empty = never.
        stands_still: the guest is suspended for the whole copy, not only for the last part.
        reasons: for each choice, by its name.
        zero_pages: who looks for empty pages, see `ldoms.model.tuning.ZeroPages`; empty = QEMU's own choice.
        xbzrle_cache_bytes: of the cache for sending differences; 0 = none are sent.
        switchover_bandwidth_bytes_s: what QEMU takes for the speed of the last part; 0 = what it measures itself.
        dirty_limit_bytes_s: how fast each virtual CPU may change memory; 0 = no limit.
        disks: that are copied before the memory.
    """

    capabilities: tuple[str, ...]
    channels: int
    cipher: str
    compression: str
    max_bandwidth_bytes_s: int
    downtime_limit_s: float
    max_suspend_s: float
    reasons: Mapping[str, str] = field(default_factory=dict)
    stands_still: bool = False
    downtime_most_s: float = 0.0
    max_time_s: float = 0.0
    on_stall: OnStall = OnStall.ABORT
    throttle_percents: tuple[int, ...] = ()
    zero_pages: str = ""
    xbzrle_cache_bytes: int = 0
    switchover_bandwidth_bytes_s: int = 0
    dirty_limit_bytes_s: int = 0
    disks: tuple[DiskCopy, ...] = ()

    @property
    def encrypted(self) -> bool:
        """Whether guest memory is encrypted on its way."""
        return bool(self.cipher)

    @property
    def may_postcopy(self) -> bool:
        """Whether the guest may go over before all of its memory has."""
        return POSTCOPY in self.capabilities


@dataclass(frozen=True, slots=True)
class DiskProgress:
    """How far the copy of a disk is.

    Attributes:
        disk: its name.
        copied_bytes: dealt with so far, empty parts of a raw image included.
        total_bytes: that are known to be needed: it grows when the guest writes.
    """

    disk: str
    copied_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the copy is, from QEMU's own counters.

    Attributes:
        status: QEMU's word for where it is, such as ``active``.
        passes: times that memory was gone through, the running one included.
        transferred_bytes: sent so far.
        remaining_bytes: still to be sent, as of now.
        total_bytes: guest memory.
        dirty_bytes_s: how fast the guest changes memory, over the last pass; 0 in the first.
        bandwidth_bytes_s: how fast it is sent.
        expected_downtime_s: QEMU's estimate, were the guest stopped now.
        throttle_percent: of the guest's CPU time that is held back.
        disks: that are copied. While they are, ``status`` is ``disks``, and nothing of the memory has been sent.
    """

    status: str
    elapsed_s: float = 0.0
    passes: int = 0
    transferred_bytes: int = 0
    remaining_bytes: int = 0
    total_bytes: int = 0
    dirty_bytes_s: float = 0.0
    bandwidth_bytes_s: float = 0.0
    expected_downtime_s: float = 0.0
    downtime_s: float = 0.0
    throttle_percent: int = 0
    error: str = ""
    disks: tuple[DiskProgress, ...] = ()

    @property
    def percent(self) -> int:
        """Share of the bytes known to be needed that are sent, 0 to 99; it can fall when the guest is busy."""
        done = self.transferred_bytes + sum(disk.copied_bytes for disk in self.disks)
        needed = self.transferred_bytes + self.remaining_bytes + sum(disk.total_bytes for disk in self.disks)
        return min(99, done * 100 // needed) if needed else 0


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """When a phase began (seconds since 1970, source's clock) and how long it took."""

    name: Phase
    started_at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One pass over the guest's memory.

    Attributes:
        sent_bytes: during the pass.
        dirty_bytes: that the guest changed meanwhile: what the next pass starts with.
    """

    number: int
    seconds: float
    sent_bytes: int
    dirty_bytes: int


@dataclass(frozen=True, slots=True)
class Stall:
    """A copy that did not come to an end by itself, as it was when something was first done about it.

    Attributes:
        after_s: since the copy began.
        passes: that had ended.
        left_s: the shortest suspension that any of them would have taken.
        dirty_bytes_s: how fast the guest changed memory.
        bandwidth_bytes_s: how fast it was sent.
        measures: what was done, one after the other, in words.
    """

    after_s: float
    passes: int
    left_s: float
    dirty_bytes_s: float
    bandwidth_bytes_s: float
    measures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Postcopy:
    """The part of a copy in which the guest ran on the target already, and fetched the rest of its memory.

    Attributes:
        began_at: when the guest was handed over, in seconds since 1970, source's clock.
        missing_bytes: of its memory that the target did not have then.
        before_bytes: sent until then.
        seconds: until it had all of it, or had ended; 0 = it has not yet.
        sent_bytes: in that time.
        recoveries: how often a connection that was cut, or stood still, was made anew.
        broken_s: for how long there was none, in all.
        is_lost: the guest has ended before it had all of its memory.
    """

    began_at: float
    missing_bytes: int
    before_bytes: int = 0
    seconds: float = 0.0
    sent_bytes: int = 0
    recoveries: int = 0
    broken_s: float = 0.0
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class CopiedDisk:
    """A disk that was copied.

    Attributes:
        disk: its name.
        path: of the copy, on the target.
        size_bytes: that the guest sees.
        copied_bytes: dealt with, empty parts of a raw image included; what the guest wrote meanwhile comes on top.
        seconds: until both sides were the same for the first time; 0 = they never were.
    """

    disk: str
    path: str
    size_bytes: int
    copied_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A limit that somebody changed while the migration was under way.

    Attributes:
        changed_at: seconds since 1970, source's clock.
        user: who did it.
        name: of the limit, as `MigrationOptions` has it.
        before, after: in the unit that the name ends with.
    """

    changed_at: float
    user: str
    name: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class GuestClock:
    """The guest's clock against its host's, before and after the target corrected it (guest agent)."""

    error_before_s: float
    error_after_s: float


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What stays of a migration: one record for the command line, the web and comparisons.

    Attributes:
        id: of the migration.
        domain: its name on the source.
        target_name: its name on the target.
        source, target: names of the hosts.
        started_at, ended_at: seconds since 1970, source's clock.
        guest_time: the guest's clock on the source, before it moved.
        forecast: what was expected before it began; None = it was not forecast, as no guest ran.
        downtime_s: QEMU's own figure for the suspension.
        stop_resume_s: from the guest's stop on the source to its resumption on the target, by the hosts' clocks,
            corrected for the offset between them.
        slowdown_percent: of its speed that the guest has lost from the begin of the copy to its resumption, as far as
            its host can see: its virtual CPUs were held back, waited for a CPU, or stood still. None = it is not known.
        throttle_percent: the most of its CPU time that the guest was held back by.
        throttled_s: for how long it was.
        held_back_s: CPU time that each of its virtual CPUs could not have for that.
        stall: what was done about a copy that did not end by itself; None = it did.
        cause: why it did not succeed, in a sentence.
        storage: the disks that were copied.
        boost: strands that were lent to the control domains meanwhile; None = none were asked for.
        changes: of its limits, while it was under way.
        queued: that it waits for its turn, or had to; None = it had not.
        earlier: id of the first attempt, whose last part came too late, if this is the second.
        postcopy: how the rest came, if the guest went over before all of its memory had; None = it did not.
    """

    id: str
    domain: str
    target_name: str
    uuid: str
    source: str
    target: str
    user: str
    active: bool
    outcome: Outcome
    started_at: float
    ended_at: float = 0.0
    phases: tuple[PhaseRecord, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    plan: MigrationPlan | None = None
    findings: tuple[Finding, ...] = ()
    clock: ClockReading | None = None
    guest_time: GuestTime | None = None
    guest_clock: GuestClock | None = None
    stopped_at: float = 0.0
    resumed_at: float = 0.0
    downtime_s: float | None = None
    stop_resume_s: float | None = None
    transferred_bytes: int = 0
    bandwidth_bytes_s: float = 0.0
    throttle_percent: int = 0
    cause: str = ""
    throttled_s: float = 0.0
    held_back_s: float = 0.0
    stall: Stall | None = None
    forecast: Forecast | None = None
    storage: tuple[CopiedDisk, ...] = ()
    boost: Boost | None = None
    changes: tuple[LimitChange, ...] = ()
    queued: Queued | None = None
    earlier: str = ""
    slowdown_percent: float | None = None
    postcopy: Postcopy | None = None

    @property
    def total_s(self) -> float:
        """From the request to the end."""
        return max(0.0, self.ended_at - self.started_at)


@dataclass(frozen=True, slots=True)
class MigrationRecord:
    """The journal of a migration on one host: enough to go on, or back, after a restart.

    Attributes:
        peer: the other host: what the source was told to call, or the source's name.
        address: where the peer is called.
        token: by which the target knows the source again. The target keeps only its digest.
        epoch: that the domain will have when the move has succeeded.
        phase: last one entered; written before anything of it is done.
        phase_at: when it was entered, in seconds since 1970.
        called_off: why the source has decided against it, before it does anything about that; empty = it has not.
        settled: nothing is left to do about it on this host.
        suspended: it has failed, and the guest has not been resumed here yet.
    """

    id: str
    role: Role
    uuid: str
    name: str
    peer: str
    address: str
    token: str = field(repr=False)
    epoch: int
    phase: Phase
    phase_at: float
    options: MigrationOptions
    report: MigrationReport
    plan: MigrationPlan | None = None
    active: bool = False
    called_off: str = ""
    settled: bool = False
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """The source's first words: who it is, and what it wants to send.

    Attributes:
        copy_storage: disks that the hosts do not share are to be copied.
    """

    migration: str
    source: HostFacts
    domain: DomainFacts
    new_name: str
    encrypted: bool
    beacon: str
    copy_storage: bool = False


@dataclass(frozen=True, slots=True)
class DescriptionAnswer:
    """The target's answer, with a token for what follows."""

    target: TargetFacts
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClockTimes:
    """The target's clock when a call came in and when its answer left, in seconds since 1970."""

    received_at: float
    answered_at: float


@dataclass(frozen=True, slots=True)
class Preparation:
    """What the target is to get ready for.

    Attributes:
        keeps_time: the guest corrects its clock by itself, gradually; see `ldoms.migration.clock`.
        key: of the data stream, 32 bytes in hexadecimal; empty = not encrypted. It is never stored or logged.
    """

    migration: str
    epoch: int
    source: str
    domain: Domain
    new_name: str
    active: bool
    user: str
    plan: MigrationPlan | None
    options: MigrationOptions
    keeps_time: bool = False
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """What the target is to receive to find out how fast memory crosses.

    Attributes:
        plan: capabilities, encryption and limits as for the migration.
        key: as in a `Preparation`.
    """

    migration: str
    plan: MigrationPlan
    size_mib: int
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where the target waits for the data: host and port; empty for a domain that is not active.

    Attributes:
        disk_port: where it waits for disks; 0 = none are copied.
        lent_strands: that the target's control domain has been lent for it.
        bandwidth_bytes_s: that it may take of the target's network for now; 0 = not limited.
    """

    host: str = ""
    port: int = 0
    disk_port: int = 0
    lent_strands: int = 0
    bandwidth_bytes_s: int = 0


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How a migration stands on the target.

    Attributes:
        state: what the target is to the domain.
        verdict: once there is one.
        complete: the copy is complete and stopped, ready to be taken over.
        resumed_at: when it began to, target's clock; 0 = not yet.
        error: what QEMU said when the copy failed.
        settled: everything that follows the hand-off is done: network announced, clock set.
        bandwidth_bytes_s: that the copy may take of the target's network for now; 0 = not limited.
        pages: of a guest that may run, or runs, there before all of its memory has come; None = it does not.
    """

    state: OwnerState | None
    verdict: Verdict | None = None
    complete: bool = False
    resumed_at: float = 0.0
    error: str = ""
    settled: bool = False
    guest_clock: GuestClock | None = None
    bandwidth_bytes_s: int = 0
    pages: Pages | None = None
