"""Sections about a domain: pure functions from what the manager says to `Section` values.

Headings, widths and keys are those of LDoms, because scripts depend on them; new keys are only ever appended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ldoms.cli import brief
from ldoms.cli.brief import CONTROL_CONSOLE
from ldoms.cli.text import Section, columns, percent, record
from ldoms.model.codec import to_wire
from ldoms.model.domain import Domain, DomainView, VirtualNetwork
from ldoms.model.errors import NotFound
from ldoms.model.named_cores import listed
from ldoms.model.services import Services
from ldoms.model.sizes import MIB, format_size

VCPU_WIDTHS = (6, 6, 6)
MEMORY_WIDTHS = (16, 16)
NETWORK_WIDTHS = (16, 27, 4, 10, 17, 6, 4, 20, 5)
PEER_WIDTHS = (27, 17, 6, 4, 20, 5)
DISK_WIDTHS = (16, 27, 4, 4, 7, 14, 14)
CONSOLE_WIDTHS = (16, 27, 6)
KEPT_PROPERTIES = ("allowed-dhcp-cids", "priority", "cos", "custom", "custom/max-mac-addrs", "custom/max-vlans")

_FLAG_WORDS = (
    {"s": "starting"},
    {"n": "normal", "t": "transition", "d": "degraded"},
    {"d": "delayed-reconf", "r": "memory-dr"},
    {"c": "control"},
    {"v": "vio-service"},
    {"s": "migration-source", "t": "migration-target", "e": "error"},
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around a domain: the services of its host, all domains of it, and what CPUs it can give."""

    services: Services
    domains: Sequence[Domain]
    cpu_features: Sequence[str] = ()


def domain_row(view: DomainView) -> str:
    """One line of ``ldm list``."""
    return brief.domain_row(to_wire(view))


def domain_record(view: DomainView, *, long: bool = False) -> str:
    """One line of ``ldm list -p``; with `long` the flags are words."""
    flags, stopping = view.status.flags, view.status.state.value == "stopping"
    return brief.domain_record(to_wire(view), _flag_words(flags, stopping=stopping) if long else flags)


def softstate(view: DomainView) -> Iterable[Section]:
    """What is known of the software in the guest."""
    if view.status.softstate:
        yield Section("SOFTSTATE", [view.status.softstate], [record("SOFTSTATE", state=view.status.softstate)])


def uuid(view: DomainView) -> Iterable[Section]:
    """The identity that moves along."""
    yield Section("UUID", [view.domain.uuid], [record("UUID", uuid=view.domain.uuid)])


def mac(view: DomainView) -> Iterable[Section]:
    """The domain's own MAC address."""
    yield Section("MAC", [view.domain.mac], [record("MAC", mac_addr=view.domain.mac)])


def hostid(view: DomainView) -> Iterable[Section]:
    """The host id."""
    yield Section("HOSTID", [view.domain.hostid], [record("HOSTID", hostid=view.domain.hostid)])


def control(view: DomainView, around: Surroundings | None = None) -> Iterable[Section]:
    """Properties; with what is around the domain, the largest pages of memory, too."""
    constraints = view.domain.constraints
    pairs = {
        "failure-policy": constraints.failure_policy.value,
        "extended-mapin-space": "on",
        "cpu-arch": constraints.cpu_arch.value,
        "rc-add-policy": "",
        "shutdown-group": str(constraints.shutdown_group),
        "perf-counters": "",
        "boot-policy": "warning",
        **dict(constraints.platform),
        **(_page_sizes(view.domain, around) if around else {}),
    }
    lines = [f"{name}={value}" for name, value in pairs.items()]
    yield Section("CONTROL", lines, ["CONTROL" + "".join(f"|{line}" for line in lines)])


def _page_sizes(domain: Domain, around: Surroundings) -> dict[str, str]:
    """The largest pages that the CPU of a guest knows, once it has one, and that CPUs of this host can know."""
    hardware = _largest_page(around.cpu_features)
    bindings = domain.bindings
    if bindings is None:
        return {"hardware-max-pagesize": hardware}
    effective = _largest_page(bindings.machine.cpu.features) if bindings.machine else hardware
    return {"effective-max-pagesize": effective, "hardware-max-pagesize": hardware}


def _largest_page(features: Sequence[str]) -> str:
    return "1GB" if "pdpe1gb" in features else "2MB"


def dependency(view: DomainView) -> Iterable[Section]:
    """Masters."""
    masters = ",".join(view.domain.constraints.masters)
    yield Section("DEPENDENCY", [f"master={masters}"], [record("DEPENDENCY", master=masters)])


def core(view: DomainView) -> Iterable[Section]:
    """Host CPUs that the domain has strands of, and those strands."""
    if view.domain.bindings is None:
        return
    bindings = view.domain.bindings
    strands: dict[int, list[int]] = {}
    for vcpu in bindings.vcpus:
        strands.setdefault(vcpu.core, []).append(vcpu.strand)
    named = view.domain.constraints.core_ids
    if bindings.idle and strands:  # then all its cores are whole
        numbers = sorted({*strands, *named})
        per_core = (len(bindings.vcpus) + len(bindings.idle)) // len(numbers)
        strands = {number: list(range(number * per_core, (number + 1) * per_core)) for number in numbers}
    lines = [columns((6,), ["CID", "CPUSET"])]
    records = ["CORE"]
    for number, members in sorted(strands.items()):
        members.sort()
        lines.append(columns((6,), [number, f"({', '.join(map(str, members))})"]))
        records.append(record("", cid=number, cpuset=",".join(map(str, members))))
    yield Section("CORE", lines, records)


def vcpu(view: DomainView) -> Iterable[Section]:
    """Virtual CPUs, where they run, and what they use."""
    domain = view.domain
    if domain.bindings is None:
        if domain.constraints.vcpus:
            count = domain.constraints.vcpus
            yield Section("VCPU", [f"COUNT:   {count}"], [record("VCPU", count=count)])
        return
    shares = view.status.vcpu_utilisation
    norms = view.status.norm_vcpu_utilisation or shares
    lines = [columns(VCPU_WIDTHS, ["VID", "PID", "CID", "UTIL NORM STRAND"])]
    records = ["VCPU"]
    for number, binding in enumerate(domain.bindings.vcpus):
        used = shares[number] if number < len(shares) else 0.0
        norm = norms[number] if number < len(norms) else 0.0
        rest = f"{percent(used):>4} {percent(norm):>4} {'100%':>6}"
        lines.append(columns(VCPU_WIDTHS, [binding.vid, binding.strand, binding.core, rest]))
        records.append(
            record("", vid=binding.vid, pid=binding.strand, util=percent(used), strand=100, cid=binding.core)
            + f"|norm_util={percent(norm)}"
        )
    yield Section("VCPU", lines, records)


def crypto(view: DomainView) -> Iterable[Section]:
    """Cryptographic units that were asked for: nothing is ever given."""
    if count := view.domain.constraints.crypto_units:
        yield Section("MAU", [f"COUNT:   {count}"], [record("MAU", count=count)])


def memory(view: DomainView) -> Iterable[Section]:
    """Blocks of memory."""
    domain = view.domain
    if domain.bindings is None:
        if domain.constraints.memory_mib:
            size = domain.constraints.memory_mib * MIB
            yield Section("MEMORY", [f"SIZE:    {format_size(size)}"], [record("MEMORY", size=size)])
        return
    lines, records = [], ["MEMORY"]
    if domain.bindings.memory_mib != domain.constraints.memory_mib:
        lines.append(f"Constraints: {domain.constraints.memory_mib} M")
    lines.append(columns(MEMORY_WIDTHS, ["RA", "PA", "SIZE"]))
    for block in domain.bindings.memory:
        real, physical = hex(block.real_address_mib * MIB), hex(block.physical_address_mib * MIB)
        lines.append(columns(MEMORY_WIDTHS, [real, physical, format_size(block.size_mib * MIB)]))
        records.append(record("", ra=real, pa=physical, size=block.size_mib * MIB))
    yield Section("MEMORY", lines, records)


def constraint(view: DomainView) -> Iterable[Section]:
    """What is asked of cores."""
    constraints = view.domain.constraints
    pairs = {
        "cpu": "whole-core" if constraints.whole_core else "",
        "max-cores": str(constraints.max_cores or "unlimited"),
        "threading": constraints.threading.value,
    }
    if constraints.core_ids:
        pairs |= {"physical-bindings": "core", "cid": listed(constraints.core_ids)}
    lines = [f"{name}={value}" for name, value in pairs.items()]
    yield Section("CONSTRAINT", lines, ["CONSTRAINT" + "".join(f"|{line}" for line in lines)])


def variables(view: DomainView) -> Iterable[Section]:
    """Boot variables."""
    if view.domain.variables:
        lines = [f"{name}={value}" for name, value in view.domain.variables]
        yield Section("VARIABLES", lines, ["VARIABLES", *(f"|{line}" for line in lines)])


def network(view: DomainView, around: Surroundings, *, peers: bool = False) -> Iterable[Section]:
    """Network interfaces; with `peers` whatever else is on the same switch."""
    if not view.domain.networks:
        return
    heading = ["NAME", "SERVICE", "ID", "DEVICE", "MAC", "MODE", "PVID", "VID", "MTU", "LINKPROP"]
    lines, records = [columns(NETWORK_WIDTHS, heading)], []
    for entry in view.domain.networks:
        service, device = _service(entry.switch, around), f"network@{entry.id}"
        mtu = entry.mtu or _switch_mtu(entry.switch, around)
        vids, mode = _vids(entry.vids), dict(entry.kept).get("mode", "")
        lines.append(
            columns(
                NETWORK_WIDTHS,
                [entry.name, service, entry.id, device, entry.mac, mode, entry.pvid, vids, mtu, entry.linkprop],
            )
        )
        lines += [f"    {name}={value}" for name, value in network_extras(entry).items() if value]
        records.append(
            record(
                "VNET",
                name=entry.name,
                dev=device,
                service=service,
                mac_addr=entry.mac,
                mode=mode,
                pvid=entry.pvid,
                vid=vids,
                mtu=mtu,
                linkprop=entry.linkprop,
                id=entry.id,
                **network_extras(entry),
            )
        )
        if peers:
            shown, parsed = _peers(view.domain, entry, around)
            lines += shown
            records += parsed
    yield Section("NETWORK", lines, records)


def network_extras(entry: VirtualNetwork) -> dict[str, str]:
    """Properties of a network interface that have no column; what is not set is empty."""
    kept = dict(entry.kept)
    return {
        "alt-mac-addrs": ",".join(entry.alt_macs),
        "pvlan": str(entry.pvlan or ""),
        "protection": ",".join(entry.protection),
        "allowed-ips": ",".join(entry.allowed_ips),
        "maxbw": format_bandwidth(entry.maxbw_bits_s),
        **{name: kept.get(name, "") for name in KEPT_PROPERTIES},
    }


def format_bandwidth(bits_s: int) -> str:
    """A limit as it is typed, in the largest unit that divides it; empty = none."""
    if not bits_s:
        return ""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if bits_s % size == 0:
            return f"{bits_s // size}{unit}"
    return str(bits_s)  # of a domain that another manager has made


def disk(view: DomainView, around: Surroundings) -> Iterable[Section]:
    """Disks."""
    if not view.domain.disks:
        return
    lines = [columns(DISK_WIDTHS, ["NAME", "VOLUME", "TOUT", "ID", "DEVICE", "SERVER", "MPGROUP", "PATH"])]
    records = []
    for entry in view.domain.disks:
        volume, device = f"{entry.volume}@{entry.service}", f"disk@{entry.id}"
        server, mpgroup = _server(entry.volume, entry.service, around)
        timeout = entry.timeout_s or ""
        path = dict(view.status.disk_paths).get(entry.name, "")
        lines.append(columns(DISK_WIDTHS, [entry.name, volume, timeout, entry.id, device, server, mpgroup, path]))
        records.append(
            record(
                "VDISK",
                name=entry.name,
                vol=volume,
                timeout=timeout,
                dev=device,
                server=server,
                mpgroup=mpgroup,
                id=entry.id,
                path=path,
            )
        )
    yield Section("DISK", lines, records)


def console(view: DomainView) -> Iterable[Section]:
    """The console."""
    domain = view.domain
    heading = columns(CONSOLE_WIDTHS, ["NAME", "SERVICE", "PORT", "LOGGING"])
    if domain.is_control:
        yield Section("VCONS", [heading, CONTROL_CONSOLE], [record("VCONS", type=CONTROL_CONSOLE)])
        return
    service = domain.bindings.console_service if domain.bindings else domain.console.service
    port = domain.bindings.console_port if domain.bindings else domain.console.port
    group = domain.console_group
    shown = f"{service}@primary" if service else ""
    log = "on" if domain.console.log else "off"
    line = columns(CONSOLE_WIDTHS, [group, shown, port or "", log])
    yield Section("VCONS", [heading, line], [record("VCONS", group=group, service=shown, port=port or "", log=log)])


def channels(view: DomainView) -> Iterable[Section]:
    """Channels that are made automatically: here, that of the guest agent."""
    if view.domain.is_control:
        return
    lines = [columns((16, 27), ["NAME", "SERVICE", "DESC"]), columns((16, 27), ["agent", "", "guest-agent"])]
    yield Section("VLDCC", lines, [record("VLDCC", name="agent", service="", desc="guest-agent")])


def status(view: DomainView) -> Iterable[Section]:
    """A migration, a change of memory, or a boost, that is under way."""
    if lent := view.status.lent_strands:
        lines = [columns((12,), ["OPERATION", "STRANDS"]), columns((12,), ["boost", f"{lent} lent"])]
        yield Section("STATUS", lines, ["STATUS", record("", op="boost", progress="", error="no", strands=lent)])
    if view.status.memory_progress is not None:
        percent_done = view.status.memory_progress
        lines = [columns((12,), ["OPERATION", "PROGRESS"]), columns((12,), ["memdr", f"{percent_done}%"])]
        yield Section("STATUS", lines, ["STATUS", record("", op="memdr", progress=percent_done, error="no")])
    migration = view.status.migration
    if migration is None:
        return
    other = "TARGET" if migration.role == "source" else "SOURCE"
    widths = (12, 11)
    progress = "error" if migration.error else f"{migration.progress}%"
    lines = [
        columns(widths, ["OPERATION", "PROGRESS", other]),
        columns(widths, [migration.operation, progress, migration.peer]),
    ]
    if migration.position:
        lines.append(f"    number {migration.position} in the queue: {migration.reason}")
    error = "yes" if migration.error else "no"
    pairs = {other.lower(): migration.peer, "phase": migration.phase}
    if migration.position:
        pairs |= {"position": str(migration.position), "reason": migration.reason}
    line = record("", op=migration.operation, progress=migration.progress, error=error, **pairs)
    yield Section("STATUS", lines, ["STATUS", line])


def _flag_words(flags: str, *, stopping: bool) -> str:
    words = [known.get(letter, "") for letter, known in zip(flags, _FLAG_WORDS, strict=True)]
    if words[0] and stopping:
        words[0] = "stopping"
    return ",".join(word for word in words if word)


def _service(switch: str, around: Surroundings) -> str:
    try:
        return f"{switch}@{around.services.switch(switch).domain}"
    except NotFound:
        return switch


def _switch_mtu(switch: str, around: Surroundings) -> int | str:
    try:
        return around.services.switch(switch).mtu
    except NotFound:
        return ""


def _server(volume: str, service: str, around: Surroundings) -> tuple[str, str]:
    try:
        owner = around.services.disk_service(service)
        return owner.domain, owner.volume(volume).mpgroup
    except NotFound:
        return "", ""


def _peers(domain: Domain, entry: VirtualNetwork, around: Surroundings) -> tuple[list[str], list[str]]:
    try:
        switch = around.services.switch(entry.switch)
    except NotFound:
        return [], []
    peers = [(f"{switch.name}@{switch.domain}", switch.mac, switch.pvid, _vids(switch.vids), switch.mtu)]
    peers += [
        (f"{known.name}@{other.name}", known.mac, known.pvid, _vids(known.vids), known.mtu or switch.mtu)
        for other in around.domains
        if other.is_bound
        for known in other.networks
        if known.switch == entry.switch and known.mac != entry.mac
    ]
    indent = " " * 4
    lines = [indent + columns(PEER_WIDTHS, ["PEER", "MAC", "MODE", "PVID", "VID", "MTU", "LINKPROP"])]
    records = []
    for name, address, pvid, vids, mtu in peers:
        lines.append(indent + columns(PEER_WIDTHS, [name, address, "", pvid, vids, mtu]))
        records.append(record("", peer=name, mac_addr=address, mode="", pvid=pvid, vid=vids, mtu=mtu))
    return lines, records


def _vids(vids: Sequence[int]) -> str:
    return ",".join(map(str, vids))
