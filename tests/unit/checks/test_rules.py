"""Every rule by cases that fail: one good set of facts, one thing changed, exactly the findings that follow."""

# ruff: noqa: E501 - the table reads best with a case a line

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ldoms.checks import RULES, evaluate
from ldoms.checks.storage import copies
from ldoms.hypervisor.fake import FACTS as HYPERVISOR
from ldoms.model.domain import (
    Bindings,
    Constraints,
    CpuModel,
    Domain,
    Machine,
    MemoryBlock,
    VcpuBinding,
    VirtualDisk,
    VirtualNetwork,
)
from ldoms.model.findings import Severity, blocking
from ldoms.model.guest import GuestTime, TimeService
from ldoms.model.host import PROTOCOL_VERSION, HostFacts
from ldoms.model.images import BootFileFacts, Destination, ImageFacts
from ldoms.model.migration import CheckFacts, ClockReading, DomainFacts, MigrationOptions, OnStall, TargetFacts
from ldoms.model.partition import HostSize
from ldoms.model.services import ConsoleConcentrator, Services, VirtualDiskService, VirtualSwitch, Volume
from ldoms.model.tuning import parse_tuning, split_tuning
from ldoms.model.vnet import Protection, Pvlan, PvlanType

VOLUME = "root@primary-vds0"
MAC, NET_MAC = "00:14:4f:f8:00:01", "00:14:4f:f8:00:02"
UUID = "b0b0b0b0-0000-4000-8000-000000000001"

Facts = Callable[[CheckFacts], CheckFacts]


def host(name: str) -> HostFacts:
    return HostFacts(
        name=name,
        identity=f"SHA256:{name}",
        version="0.1.0",
        protocol=PROTOCOL_VERSION,
        size=HostSize((0, 1), 8, 32768),
        cpu_model="a processor",
        cpu_flags=("aes",),
        hypervisor=HYPERVISOR,
    )


def image(path: str) -> ImageFacts:
    return ImageFacts(VOLUME, path, "", "qcow2", 8 << 30, "42:7", "a-secret", locked=True)


def good() -> CheckFacts:
    """An active domain that may move, and nothing to say about it."""
    machine = Machine("pc-q35-10.0", "tcg", CpuModel("Nehalem-v1", ("lm", "sse2")), "10.0.2")
    vcpus = tuple(VcpuBinding(number, number, 0) for number in range(8))
    domain = Domain(
        uuid=UUID,
        name="ldg1",
        mac=MAC,
        hostid="0x84f80001",
        order=1,
        constraints=Constraints(vcpus=8, memory_mib=1024),
        disks=(VirtualDisk("vdisk0", "root", "primary-vds0", 0),),
        networks=(VirtualNetwork("vnet0", "primary-vsw0", 0, NET_MAC),),
        bindings=Bindings(vcpus, (MemoryBlock(0, 0, 1024),), "primary-vcc0", 5000, machine),
    )
    services = Services(
        disk_services=(VirtualDiskService("primary-vds0", volumes=(Volume("root", "/b/ldg1.qcow2"),)),),
        switches=(VirtualSwitch("primary-vsw0", 0, "00:14:4f:f8:00:09"),),
        concentrators=(ConsoleConcentrator("primary-vcc0", 5000, 5100),),
    )
    return CheckFacts(
        options=MigrationOptions("t4-2", user="tracy"),
        source=host("t4-1"),
        domain=DomainFacts(
            domain,
            active=True,
            images=(image("/a/ldg1.qcow2"),),
            boot_files=(BootFileFacts("boot-file", "/boot/vmlinuz", "abc"),),
            mtus={"primary-vsw0": 1500},
            default_vlans={"primary-vsw0": 1},
            volumes={VOLUME: Volume("root", "/a/ldg1.qcow2")},
        ),
        target=TargetFacts(
            host=host("t4-2"),
            services=services,
            names={"primary": "p"},
            macs={"00:14:4f:f8:00:08": "primary"},
            free_strands=8,
            free_memory_mib=1024,
            available_memory_mib=1024,
            free_console_ports=1,
            images=(image("/b/ldg1.qcow2"),),
            boot_files=(BootFileFacts("boot-file", "/boot/vmlinuz", "abc"),),
            data_mtu=1500,
            network_abilities=("vlan-filtering", "packet-filter"),
        ),
        clock=ClockReading(0.01, 0.001),
        source_data_mtu=1500,
    )


def bound(facts: CheckFacts) -> CheckFacts:
    """The same, with the guest stopped: nobody holds the image."""
    unlocked = tuple(replace(one, locked=False) for one in facts.domain.images)
    facts = domain(active=False, images=unlocked)(facts)
    return target(images=tuple(replace(one, locked=False) for one in facts.target.images))(facts)


def inactive(facts: CheckFacts) -> CheckFacts:
    """The same as a mere description."""
    return of_domain(bindings=None)(bound(facts))


# How to change one thing. Each returns what does it.


def target(**changes: Any) -> Facts:
    return lambda facts: replace(facts, target=replace(facts.target, **changes))


def target_host(**changes: Any) -> Facts:
    return lambda facts: target(host=replace(facts.target.host, **changes))(facts)


def target_qemu(**changes: Any) -> Facts:
    return target_host(hypervisor=replace(HYPERVISOR, **changes))


def source(**changes: Any) -> Facts:
    return lambda facts: replace(facts, source=replace(facts.source, **changes))


def network(**changes: Any) -> Facts:
    def change(facts: CheckFacts) -> CheckFacts:
        (vnet,) = facts.domain.domain.networks
        return of_domain(networks=(replace(vnet, **changes),))(facts)

    return change


def domain(**changes: Any) -> Facts:
    return lambda facts: replace(facts, domain=replace(facts.domain, **changes))


def of_domain(**changes: Any) -> Facts:
    return lambda facts: domain(domain=replace(facts.domain.domain, **changes))(facts)


def guest_time(offset_s: float, *, synchronised: bool | None = None, uncertainty_s: float = 0.01) -> Facts:
    service = None if synchronised is None else TimeService("chrony", synchronised)
    return lambda facts: replace(facts, guest_time=GuestTime(offset_s, uncertainty_s, service))


def whole_cores(free: int | None, strands_per_core: int = 8, max_cores: int = 0) -> Facts:
    constraints = Constraints(vcpus=8, memory_mib=1024, whole_core=True, max_cores=max_cores)
    size = HostSize(tuple(range(8)), strands_per_core, 32768)

    def apply(facts: CheckFacts) -> CheckFacts:
        return target_host(size=size)(target(free_cores=free)(of_domain(constraints=constraints)(facts)))

    return apply


def named_cores(core_map: tuple[tuple[int, int], ...]) -> Facts:
    """Core 0 was named for the domain; core 1 of the target is free."""
    whole = constraints(whole_core=True, core_ids=(0,))
    return together(whole, target(free_cores=1, whole_cores=(1,)), options(core_map=core_map))


def constraints(**changes: Any) -> Facts:
    return lambda facts: of_domain(constraints=replace(facts.domain.domain.constraints, **changes))(facts)


def options(**changes: Any) -> Facts:
    return lambda facts: replace(facts, options=replace(facts.options, **changes))


def their_image(**changes: Any) -> Facts:
    return lambda facts: target(images=(replace(facts.target.images[0], **changes),))(facts)


def our_image(**changes: Any) -> Facts:
    return lambda facts: domain(images=(replace(facts.domain.images[0], **changes),))(facts)


def services(**changes: Any) -> Facts:
    return lambda facts: target(services=replace(facts.target.services, **changes))(facts)


def their_volume(**changes: Any) -> Facts:
    volume = replace(Volume("root", "/b/ldg1.qcow2"), **changes)
    return services(disk_services=(VirtualDiskService("primary-vds0", volumes=(volume,)),))


def together(*changes: Facts) -> Facts:
    def change(facts: CheckFacts) -> CheckFacts:
        for one in changes:
            facts = one(facts)
        return facts

    return change


def grown(added_mib: int, accelerator: str = "tcg") -> Facts:
    """The guest was given so much of its memory while it ran."""

    def change(facts: CheckFacts) -> CheckFacts:
        moved = facts.domain.domain
        if moved.bindings is None or moved.bindings.machine is None:
            return facts
        bindings = replace(
            moved.bindings,
            boot_memory_mib=moved.bindings.memory_mib - added_mib,
            machine=replace(moved.bindings.machine, accelerator=accelerator),
        )
        qemu = replace(facts.target.host.hypervisor, accelerator=accelerator)
        there = replace(facts.target, host=replace(facts.target.host, hypervisor=qemu))
        return replace(facts, domain=replace(facts.domain, domain=replace(moved, bindings=bindings)), target=there)

    return change


def tuned(text: str) -> Facts:
    """Set by hand, as ``--tune`` takes it."""
    return options(tuning=parse_tuning(split_tuning(text)))


def our_qemu(**changes: Any) -> Facts:
    return source(hypervisor=replace(HYPERVISOR, **changes))


def ring(facts: CheckFacts) -> CheckFacts:
    """The same under KVM, with its dirty ring."""
    return our_qemu(accelerator="kvm", dirty_ring=True)(grown(0, "kvm")(facts))


WITHOUT = ("events", "pause-before-switchover", "return-path")
IN_PARTS = options(on_stall=OnStall.POSTCOPY)
"""All that a migration cannot do without."""


def our_volume(**changes: Any) -> Facts:
    return domain(volumes={VOLUME: replace(Volume("root", "/a/ldg1.qcow2"), **changes)})


def copying(**changes: Any) -> Facts:
    """With ``--copy-storage``, of a disk that the target does not have."""
    place = replace(Destination(VOLUME, "/b/ldg1.qcow2", file_system="1", free_bytes=1 << 40), **changes)
    return together(options(copy_storage=True), their_image(error="it is not there"), target(destinations=(place,)))


ERROR, OVERRIDABLE, WARNING = Severity.ERROR, Severity.OVERRIDABLE, Severity.WARNING

CASES: tuple[tuple[str, Facts, Severity, str, str], ...] = (
    ("manager-version", target_host(protocol=PROTOCOL_VERSION + 2), ERROR, "more than one release apart", "upgrade ldmd on t4-1"),
    ("manager-version", source(protocol=PROTOCOL_VERSION + 2), ERROR, "more than one release apart", "upgrade ldmd on t4-2"),
    ("migration-enabled", source(outgoing_enabled=False), ERROR, "outgoing migration is switched off on t4-1", "outgoing = true"),
    ("migration-enabled", target_host(incoming_enabled=False), ERROR, "incoming migration is switched off on t4-2", "incoming = true"),
    ("save-spconfig", source(saves_configuration=True), ERROR, "t4-1 saves its configuration after a migration, and t4-2 does not", "-s"),
    ("save-spconfig", target_host(saves_configuration=True), ERROR, "t4-2 saves its configuration after a migration, and t4-1 does not", "-s"),
    ("control-domain", together(of_domain(name="primary"), options(new_name="x")), ERROR, "LDom primary is the control domain of t4-1", "move a guest domain"),
    ("other-host", target_host(identity="SHA256:t4-1"), ERROR, "t4-2 is t4-1, the host that LDom ldg1 is on", "another host"),
    ("name-free", target(names={"ldg1": "somebody"}), ERROR, "LDom ldg1 already exists on t4-2", "ldm migrate-domain ldg1 t4-2:NEWNAME"),
    ("name-free", together(options(new_name="x"), target(names={"x": "somebody"})), ERROR, "LDom x already exists", "NEWNAME"),
    ("uuid-free", target(names={"other": UUID}), ERROR, f"LDom other on t4-2 has the same UUID {UUID}", "ldm remove-domain other"),
    ("not-busy", target(busy=("bind-domain of ldg1",)), ERROR, "bind-domain of ldg1 is under way on t4-2", "wait"),
    ("macs", target(macs={MAC: "ldg9"}), ERROR, f"MAC address {MAC} of LDom ldg1 is in use by ldg9 on t4-2", "another address"),
    ("macs", target(macs={NET_MAC: "ldg9"}), ERROR, f"MAC address {NET_MAC} of LDom ldg1 is in use", "another address"),
    ("masters", constraints(masters=("ldg0",)), OVERRIDABLE, "LDom ldg0, the master of LDom ldg1, does not exist on t4-2", "master= ldg1"),
    ("masters", domain(dependants=("ldg2",)), OVERRIDABLE, "LDom ldg2 on t4-1 has LDom ldg1 as its master", "master= ldg2"),
    ("cpu-count", whole_cores(free=0), ERROR, "LDom ldg1 needs 1 whole core, and 0 are free on t4-2", "ldm set-core"),
    ("max-cores", whole_cores(free=8, strands_per_core=2, max_cores=3), ERROR, "at most 3 cores, and needs 4 of t4-2", "ldm set-domain max-cores=4 ldg1"),
    ("named-cores", named_cores(core_map=()), ERROR, "core 0 was named for LDom ldg1, and t4-2 has cores of its own", "ldm set-core cid= ldg1"),
    ("named-cores", named_cores(core_map=((1, 0),)), ERROR, "cidmap= is about core 1, and LDom ldg1 has 0", "name those that it has"),
    ("named-cores", named_cores(core_map=((0, 0),)), ERROR, "core 0 of t4-2, which cidmap= gives to LDom ldg1, is not free", "ldm list-devices core"),
    ("named-cores", together(named_cores(core_map=((0, 1),)), target_host(size=HostSize((0, 1), 4, 32768)), target(free_cores=2)), ERROR, "has 1 cores here and needs 2 of t4-2, whose cores have 4 strands", "set-core cid="),
    ("named-cores", options(core_map=((0, 1),)), ERROR, "cidmap= is given, and LDom ldg1 has no cores that were named", "leave cidmap= out"),
    ("cpu-count", target(free_strands=5), ERROR, "8 virtual CPUs, and 5 strands are free on t4-2", "ldm remove-vcpu 3 primary"),
    ("memory-amount", target(free_memory_mib=1023), ERROR, "1024M of memory, and 1023M are free on t4-2", "free some there"),
    ("memory-available", target(available_memory_mib=1000), OVERRIDABLE, "has only 1000M available", "control domain"),
    ("volumes", together(services(disk_services=()), target(images=())), ERROR, f"volume {VOLUME} of disk vdisk0 does not exist on t4-2", f"ldm add-vdsdev PATH {VOLUME}"),
    ("images", their_image(error="it is not there"), ERROR, f"volume {VOLUME} cannot be used on t4-2: it is not there", "make /b/ldg1.qcow2 reachable"),
    ("images", our_image(error="it is not there"), ERROR, f"volume {VOLUME} cannot be used on t4-1", "make /a/ldg1.qcow2 reachable"),
    ("images", their_image(format="raw"), ERROR, "differ in format qcow2 and raw", "the same shared storage"),
    ("images", their_image(virtual_size=1), ERROR, "differ in size 8589934592 and 1", "the same shared storage"),
    ("images", their_image(identity="42:8"), ERROR, "differ in identity 42:7 and 42:8", "the same shared storage"),
    ("images", their_image(beacon=""), ERROR, "what lies beside it", "the same shared storage"),
    ("images", together(our_image(identity="", beacon=""), their_image(identity="", beacon="")), OVERRIDABLE, "no serial number", "-f"),
    ("copy-storage", together(copying(), inactive), ERROR, "LDom ldg1 is not active, and only the disks of a running guest are copied", "start it first"),
    ("copy-storage", together(copying(), bound), ERROR, "LDom ldg1 is not active", "qemu-img convert"),
    ("copy-storage", together(copying(), our_image(error="it is not there")), ERROR, f"volume {VOLUME} cannot be used on t4-1: it is not there", "reachable"),
    ("copy-storage", together(copying(), services(disk_services=())), ERROR, "virtual disk service primary-vds0 of disk vdisk0 does not exist on t4-2", "ldm add-vds primary-vds0 primary"),
    ("copy-storage", together(copying(), our_volume(options=("ro",)), their_volume(options=("ro",))), ERROR, f"volume {VOLUME} is read-only", "remove disk vdisk0"),
    ("copy-storage", together(copying(), domain(shared_volumes=(VOLUME,))), ERROR, "is shared by guests on t4-1", "same shared storage"),
    ("copy-storage", together(copying(), our_volume(mpgroup="g"), their_volume(mpgroup="g")), ERROR, "is of a multipath group", f"mpgroup= {VOLUME}"),
    ("copy-storage", together(copying(), their_volume(format="raw")), ERROR, "has the format qcow2 on t4-1 and raw on t4-2", f"ldm remove-vdsdev {VOLUME}"),
    ("copy-storage", copying(error="/b: No such file or directory"), ERROR, f"the image of volume {VOLUME} cannot be made on t4-2: /b: No such", "make that directory"),
    ("copy-storage", copying(exists=True), ERROR, "/b/ldg1.qcow2 is there already on t4-2, and nothing is overwritten", "move it away"),
    ("copy-storage", copying(exists=True, device_bytes=8 << 30), ERROR, "takes no image in the format qcow2", "another back end"),
    ("copy-storage", together(copying(exists=True, device_bytes=8 << 30), our_image(format="raw"), their_image(error="", identity="device 9")), OVERRIDABLE, "whatever is on the device /b/ldg1.qcow2", "then use -f"),
    ("copy-storage", together(copying(exists=True, device_bytes=8 << 30), our_image(format="raw", identity=""), their_image(error="", identity="device 9")), ERROR, "it cannot be told whether the device /b/ldg1.qcow2", "another back end"),
    ("copy-storage", together(copying(exists=True, device_bytes=8 << 30), our_image(format="raw", identity="", behind="inode 4"), their_image(error="", identity="", behind="inode 5")), OVERRIDABLE, "whatever is on the device /b/ldg1.qcow2", "then use -f"),
    ("copy-storage", together(copying(exists=True, device_bytes=8 << 30), our_image(format="raw", identity="inode 5"), their_image(error="", identity="", behind="inode 5")), ERROR, "it cannot be told whether the device /b/ldg1.qcow2", "another back end"),
    ("copy-storage", together(copying(exists=True, device_bytes=8 << 30), our_image(format="raw"), their_image(error="", format="qcow2")), ERROR, "is another one than /a/ldg1.qcow2 on t4-1", "another back end"),
    ("copy-storage", together(copying(exists=True, device_bytes=8 << 30, locked=True), our_image(format="raw")), ERROR, "is in use by another guest", "another back end"),
    ("copy-storage", together(copying(exists=True, device_bytes=9 << 30), our_image(format="raw")), ERROR, "has 9663676416 bytes, and the disk has 8589934592", "another back end"),
    ("copy-storage", together(copying(), target(destinations=())), ERROR, "the manager of t4-2 is too old", "upgrade ldmd on t4-2"),
    ("copy-storage", together(copying(), our_qemu(version="8.1.0")), ERROR, "QEMU 8.1.0 on t4-1 is too old to copy disks", "QEMU 8.2"),
    ("storage-room", together(copying(free_bytes=1 << 20), our_image(allocated_bytes=2 << 20)), ERROR, f"the disk {VOLUME} take 2 MiB, and 1 MiB are free where /b/ldg1.qcow2 would be on t4-2", "free some there"),
    ("storage-room", copying(free_bytes=1 << 30), WARNING, "can grow to 8192 MiB, and 1024 MiB are free", "keep an eye"),
    ("image-locks", their_image(locked=False), WARNING, "does not see the lock", "file system with locks"),
    ("image-locks", together(bound, their_image(locked=True)), ERROR, "is in use by another guest", "end that guest"),
    ("boot-files", target(boot_files=(BootFileFacts("boot-file", "/boot/vmlinuz", ""),)), ERROR, "cannot be read on t4-2", "scp /boot/vmlinuz t4-2:/boot/vmlinuz"),
    ("boot-files", target(boot_files=(BootFileFacts("boot-file", "/boot/vmlinuz", "x"),)), ERROR, "not the same as on t4-1", "scp"),
    ("switches", services(switches=()), ERROR, "virtual switch primary-vsw0 of network vnet0 does not exist on t4-2", "ldm add-vsw primary-vsw0 primary"),
    ("switch-mtu", domain(mtus={"primary-vsw0": 9000}), ERROR, "network vnet0 has MTU 9000, and virtual switch primary-vsw0 on t4-2 has 1500", "mtu=9000"),
    ("vlan-filtering", together(network(pvid=10), target(network_abilities=("packet-filter",))), ERROR, "network vnet0 has pvid=10, and virtual switch primary-vsw0 on t4-2 cannot tell VLANs apart", "CONFIG_BRIDGE_VLAN_FILTERING"),
    ("vlan-filtering", together(network(vids=(10, 20)), target(network_abilities=())), ERROR, "network vnet0 has vid=10,20", "vlan_filtering on"),
    ("vlan-filtering", together(services(switches=(VirtualSwitch("primary-vsw0", 0, "", vids=(7,)),)), target(network_abilities=())), ERROR, "pvid=1, and virtual switch primary-vsw0", "kernel"),
    ("default-vlans", domain(default_vlans={"primary-vsw0": 5}), OVERRIDABLE, "default VLAN of virtual switch primary-vsw0, which is 5 on t4-1 and 1 on t4-2", "ldm set-vsw default-vlan-id=5 primary-vsw0"),
    ("packet-filter", together(network(protection=(Protection.MAC_NOSPOOF,)), target(network_abilities=("vlan-filtering",))), ERROR, "network vnet0 has protection=mac-nospoof, which t4-2 cannot enforce", "nftables"),
    ("packet-filter", together(network(pvlan=Pvlan(5, PvlanType.ISOLATED)), target(network_abilities=())), ERROR, "pvlan=5,isolated", "nftables"),
    ("console", services(concentrators=()), ERROR, "t4-2 has no virtual console concentrator", "ldm add-vcc"),
    ("console", target(free_console_ports=0), ERROR, "no console port is free on t4-2", "ldm add-vcc"),
    ("console", target(console_groups=("ldg1",)), ERROR, "console group ldg1 already exists on t4-2", "set-vcons group=OTHER"),
    ("guest-runs", domain(softstate="crashed"), ERROR, "Migration is not supported while the domain ldg1 is in the 'crashed' state", "stop-domain -f ldg1"),
    ("accelerator", target_qemu(accelerator="kvm"), ERROR, "runs with tcg, and t4-2 has kvm", 'accelerator = "tcg"'),
    ("machine-type", target_qemu(machine_types=("pc-q35-9.2",)), ERROR, "has no machine type pc-q35-10.0", "10.0.2 has"),
    ("qemu-version", target_qemu(version="9.2.4"), OVERRIDABLE, "QEMU on t4-2 is older (9.2.4) than on t4-1 (10.0.2)", "upgrade QEMU on t4-2"),
    ("migration-capabilities", target_qemu(migration_capabilities=("events", "return-path")), ERROR, "on t4-2 lacks the migration capability pause-before-switchover", "QEMU 10"),
    ("cpu-features", target_qemu(cpu_features=("lm",)), ERROR, "t4-2 cannot give LDom ldg1 the CPU features sse2", "cpu-arch=generic ldg1"),
    ("cpu-features", target_qemu(cpu_models=("qemu64-v1",)), ERROR, "has no CPU model Nehalem-v1", "install a QEMU"),
    ("added-memory", grown(512), OVERRIDABLE, "has 512M that was added while it ran, where QEMU without KVM", "ldm remove-memory 512M ldg1"),
    ("tuning", tuned("compression=zstd,xbzrle=64M"), ERROR, "xbzrle and compression=zstd exclude each other", "set one of them"),
    ("tuning", tuned("zero-pages=multifd"), ERROR, "zero-pages=multifd is for several connections or compression", "zero-pages=legacy"),
    ("tuning", tuned("free-page-hints=on"), ERROR, "stopped them for seconds", "leave it out"),
    ("tuning", tuned("dirty-limit=100M"), ERROR, "dirty-limit needs KVM and its dirty ring, and LDom ldg1 runs without on t4-1", "throttle="),
    ("tuning", together(ring, tuned("dirty-limit=100M,throttle=50:70")), ERROR, "throttle and dirty-limit exclude each other", "set one of them"),
    ("tuning", together(tuned("compression=zstd"), target_qemu(compressions=("none",))), ERROR, "QEMU 10.0.2 on t4-2 has no compression zstd", "leave it out"),
    ("tuning", together(tuned("compression=zstd"), our_qemu(compressions=("none",))), ERROR, "QEMU 10.0.2 on t4-1 has no compression zstd", "leave it out"),
    ("tuning", together(tuned("compression=zlib"), target_qemu(migration_capabilities=WITHOUT)), ERROR, "on t4-2 has no migration capability multifd", "install a QEMU"),
    ("tuning", together(tuned("throttle=50:70"), our_qemu(migration_capabilities=WITHOUT)), ERROR, "on t4-1 has no migration capability auto-converge", "install a QEMU"),
    ("tuning", together(tuned("xbzrle=64M"), target_qemu(migration_capabilities=WITHOUT)), ERROR, "on t4-2 has no migration capability xbzrle", "install a QEMU"),
    ("tuning", together(tuned("zero-pages=none"), target_qemu(migration_parameters=())), ERROR, "on t4-2 has no zero-pages to be set", "install a QEMU"),
    ("tuning", together(tuned("switchover-bandwidth=1G"), target_qemu(migration_parameters=())), ERROR, "on t4-2 has no switchover-bandwidth to be set", "install a QEMU"),
    ("tuning", tuned("xbzrle=2G"), ERROR, "the cache of xbzrle is larger than the 1024M of LDom ldg1", "a smaller one"),
    ("tuning", together(grown(512), options(max_suspend_s=10.0), tuned("throttle=50:70")), ERROR, "throttle is for a guest that runs while it is copied", "leave it out"),
    ("tuning", together(grown(512), options(max_suspend_s=10.0), tuned("xbzrle=64M")), ERROR, "xbzrle is for a guest that runs while it is copied", "leave it out"),
    ("tuning", together(options(on_stall=OnStall.SUSPEND), tuned("throttle=50")), ERROR, "throttle is for --on-stall=throttle, and suspend was asked for", "leave one of them out"),
    ("postcopy", together(IN_PARTS, target_qemu(migration_capabilities=WITHOUT)), ERROR, "QEMU 10.0.2 on t4-2 has no migration capability postcopy-ram", "leave out --on-stall=postcopy"),
    ("postcopy", together(IN_PARTS, our_qemu(migration_capabilities=WITHOUT)), ERROR, "QEMU 10.0.2 on t4-1 has no migration capability postcopy-ram", "leave out"),
    ("postcopy", together(IN_PARTS, target_qemu(postcopy=False, postcopy_reason="Userfaultfd not available")), ERROR, "cannot run on t4-2 before all of its memory has come: Userfaultfd not available", "leave out"),
    ("postcopy", together(IN_PARTS, target_qemu(postcopy=False)), ERROR, "cannot run on t4-2 before all of its memory has come: its manager is too old", "leave out"),
    ("postcopy-connections", together(IN_PARTS, tuned("compression=zlib")), ERROR, "postcopy and compression=zlib exclude each other", "leave one of them out"),
    ("postcopy-connections", together(IN_PARTS, tuned("compression=zstd")), ERROR, "postcopy and compression=zstd exclude each other", "leave one of them out"),
    ("postcopy-storage", options(on_stall=OnStall.POSTCOPY, copy_storage=True), ERROR, "postcopy and --copy-storage exclude each other", "leave one of them out"),
    ("postcopy-stands-still", together(grown(512), options(max_suspend_s=10.0, on_stall=OnStall.POSTCOPY)), ERROR, "postcopy is for a guest that runs while it is copied", "leave out"),
    ("several-connections", tuned("channels=2"), WARNING, "over 2 connections: QEMU can hang for good", "leave channels= out"),
    ("too-many-connections", tuned("channels=17"), ERROR, "channels=17 is more than the 16 strands of t4-1", "channels=16 or fewer"),
    ("too-many-connections", together(target_host(size=HostSize((0,), 2, 32768)), tuned("channels=3")), ERROR, "the 2 strands of t4-2", "channels=2 or fewer"),
    ("enough-vcpus", constraints(vcpus=4), WARNING, "should keep at least 8", "quiet time"),
    ("encryption", options(encrypted=False), WARNING, "unencrypted", "leave out --no-encryption"),
    ("encryption", target_host(cpu_flags=()), WARNING, "processor of t4-2 has no AES", "longer copy"),
    ("volume-options", their_volume(options=("ro",)), ERROR, f"volume {VOLUME} has the options none on t4-1 and ro on t4-2", "ldm set-vdsdev"),
    ("volume-options", their_volume(mpgroup="g"), ERROR, "options none on t4-1 and mpgroup=g on t4-2", "ldm set-vdsdev"),
    ("boost", options(boost=3), ERROR, "3 strands are to be lent to the control domain of t4-1, and 0 are free there", "--boost auto"),
    ("clocks", lambda facts: replace(facts, clock=ClockReading(0.5, 0.01)), WARNING, "the clock of t4-2 is 0.5 s ahead", "time servers"),
    ("guest-clock", guest_time(0.02, synchronised=False), WARNING, "not synchronised, as chrony in it says; it is 0.02 s ahead of that of t4-1", "chronyc sources"),
    ("guest-clock", guest_time(-0.5), WARNING, "the clock of LDom ldg1 is 0.5 s behind that of t4-1", "run chrony"),
    ("guest-clock", guest_time(0.5, synchronised=True), WARNING, "the clock of LDom ldg1 is 0.5 s ahead of that of t4-1", "chrony in it is about to correct it"),
    ("clocks", lambda facts: replace(facts, clock=ClockReading(-2.0, 0.01)), OVERRIDABLE, "the clock of t4-2 is 2 s behind", "time servers"),
    ("volume-options", domain(shared_volumes=(VOLUME,)), ERROR, f"the back end of volume {VOLUME} is shared by guests on t4-1, and offered once on t4-2", "ldm add-vdsdev -f /b/ldg1.qcow2 NAME@primary-vds0"),
    ("data-port", target(free_data_port=False), ERROR, "no port for migration data is free on t4-2", "data_ports"),
    ("path-mtu", target(data_mtu=9000), WARNING, "MTU 1500 on t4-1 and 9000 on t4-2", "same value"),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "change", "severity", "message", "remedy"), CASES)
def test_what_is_wrong_is_found_and_nothing_else(
    rule: str, change: Facts, severity: Severity, message: str, remedy: str
) -> None:
    """One finding, of that rule and weight, that names the thing and says what to do."""
    findings = evaluate(change(good()))
    assert [(one.rule, one.severity) for one in findings] == [(rule, severity)], findings
    assert message in findings[0].message
    assert remedy in findings[0].remedy


def test_disks_that_are_not_shared_are_copied() -> None:
    """Only those, and to where the target has or gets a volume for them; nothing is found about it."""
    assert evaluate(copying()(good())) == ()
    (copy,) = copies(copying()(good()))
    assert (copy.device, copy.disk, copy.volume.backend, copy.volume.format, copy.size_bytes) == (
        *("disk@0", "vdisk0", "/b/ldg1.qcow2", "qcow2"),
        8 << 30,
    )
    assert (copy.makes_volume, copy.makes_image) == (False, True)
    (made,) = copies(together(copying(), services(disk_services=(VirtualDiskService("primary-vds0"),)))(good()))
    assert (made.makes_volume, made.volume.backend) == (True, "/a/ldg1.qcow2")
    shared = options(copy_storage=True)(good())
    assert (evaluate(shared), copies(shared)) == ((), ())
    assert copies(good()) == ()


@pytest.mark.parametrize("kept", [grown(512, "kvm"), together(grown(512), options(max_suspend_s=10.0))])
def test_added_memory_moves_where_the_promise_can_be_kept(kept: Facts) -> None:
    """With KVM always; else if the guest may stand still for as long as its memory takes."""
    assert evaluate(kept(good())) == ()


def test_several_connections_carry_no_differences() -> None:
    """QEMU refuses it; and what is said of several connections is said all the same."""
    found = evaluate(tuned("channels=2,xbzrle=64M")(good()))
    assert [(one.rule, one.severity) for one in found] == [("tuning", ERROR), ("several-connections", WARNING)]
    assert "xbzrle and channels=2 exclude each other" in found[0].message


@pytest.mark.parametrize(
    "kept",
    [
        tuned("channels=1"),
        tuned("compression=zstd,zero-pages=multifd,throttle=off,free-page-hints=off"),
        tuned("xbzrle=64M,throttle=50:70,zero-pages=legacy,switchover-bandwidth=1G"),
        together(ring, tuned("dirty-limit=100M")),
        together(target_qemu(compressions=("none",), migration_parameters=()), tuned("switchover-bandwidth=off")),
    ],
)
def test_what_fits_together_may_be_set_by_hand(kept: Facts) -> None:
    """Where both hosts have it."""
    assert evaluate(kept(good())) == ()


@pytest.mark.parametrize("state", [lambda facts: facts, bound, inactive], ids=["active", "bound", "inactive"])
def test_nothing_is_found_where_nothing_is_wrong(state: Facts) -> None:
    """In any state of the domain."""
    assert evaluate(state(good())) == ()


ALSO = {
    "max-cores": "cpu-count",
    "storage-room": "copy-storage",
    "uuid-free": "name-free",
    "memory-available": "memory-amount",
    "postcopy-connections": "postcopy",
    "postcopy-storage": "postcopy",
    "postcopy-stands-still": "postcopy",
    "too-many-connections": "several-connections",
    "switch-mtu": "switches",
    "vlan-filtering": "network-abilities",
    "packet-filter": "network-abilities",
}
"""Findings that are called otherwise than their rules."""


def test_every_rule_has_a_case() -> None:
    """A new rule needs one above. Some rules tell two things apart by the names of their findings."""
    assert {ALSO.get(rule, rule) for rule, *_ in CASES} == {rule.name for rule in RULES}


@pytest.mark.parametrize(("rule", "change"), [case[:2] for case in CASES])
def test_a_rule_is_silent_about_a_domain_that_it_is_not_for(rule: str, change: Facts) -> None:
    """Nobody asks about the CPU of a domain that is stopped, or the storage of one that is a mere description."""
    by_name = {one.name: one for one in RULES}
    name = ALSO.get(rule, rule)
    for moves, state in (("bound", bound), ("inactive", inactive)):
        if moves not in by_name[name].applies_to:
            found = {ALSO.get(one.rule, one.rule) for one in evaluate(change(state(good())))}
            assert name not in found, f"{rule} is asked of a domain that is {moves}"


def test_all_failures_are_reported_at_once() -> None:
    """Not the first one alone: an administrator mends all before the next attempt."""
    change = together(
        target(free_strands=0, free_memory_mib=0, free_console_ports=0, free_data_port=False),
        services(switches=()),
        target_qemu(cpu_features=()),
    )
    found = {finding.rule for finding in evaluate(change(good()))}
    assert found == {"cpu-count", "memory-amount", "console", "data-port", "switches", "cpu-features"}


def test_force_overrides_what_can_be_overridden() -> None:
    """``-f`` lets the overridable pass, never an error; a warning stops nobody."""
    change = together(target_qemu(version="9.2.4"), target(free_strands=0), constraints(vcpus=4))
    findings = evaluate(change(good()))
    assert {one.rule for one in blocking(findings, force=False)} == {"qemu-version", "cpu-count"}
    assert {one.rule for one in blocking(findings, force=True)} == {"cpu-count"}


def test_a_good_guest_clock_is_not_spoken_of() -> None:
    """One that is synchronised and near, or that is near and kept by nobody knows whom; or too vaguely known."""
    for change in (
        guest_time(0.02, synchronised=True),
        guest_time(0.05),
        guest_time(0.3, uncertainty_s=0.25),
    ):
        assert evaluate(change(good())) == ()


def test_an_unknown_size_of_memory_is_rounded_as_binding_does() -> None:
    """A bound domain has what it was given, whatever it had asked for."""
    facts = together(constraints(memory_mib=1021), target(free_memory_mib=1023))(good())
    assert [one.rule for one in evaluate(facts)] == ["memory-amount"]
