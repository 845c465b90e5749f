"""Rules about disks, networks, consoles and boot files."""

from __future__ import annotations

from ldoms.checks.rule import Findings
from ldoms.checks.storage import is_copied
from ldoms.model.domain import VirtualDisk
from ldoms.model.errors import NotFound
from ldoms.model.findings import Finding, Severity
from ldoms.model.images import ImageFacts
from ldoms.model.migration import CheckFacts
from ldoms.model.services import Volume


def volumes(facts: CheckFacts) -> Findings:
    """Every disk needs a volume of the same name, on a service of the same name."""
    for disk in facts.domain.domain.disks:
        name = f"{disk.volume}@{disk.service}"
        if _volume(facts, disk) is None and not is_copied(facts, name):
            yield Finding(
                "volumes",
                Severity.ERROR,
                f"volume {name} of disk {disk.name} does not exist on {facts.target.host.name}",
                f"add it there: ldm add-vdsdev PATH {name}",
            )


def volume_options(facts: CheckFacts) -> Findings:
    """Options of a volume must be the same, or the guest's disk changes under it."""
    for disk in facts.domain.domain.disks:
        name = f"{disk.volume}@{disk.service}"
        ours, theirs = facts.domain.volumes.get(name), _volume(facts, disk)
        if ours is None or theirs is None:
            continue
        if (
            name in facts.domain.shared_volumes
            and not is_copied(facts, name)
            and name not in facts.target.shared_volumes
        ):
            yield Finding(
                "volume-options",
                Severity.ERROR,
                f"the back end of volume {name} is shared by guests on {facts.source.name}, and offered once on"
                f" {facts.target.host.name}: the guest could not open it there",
                f"offer it there a second time, too: ldm add-vdsdev -f {theirs.backend} NAME@{disk.service}",
            )
        if _options(ours) == _options(theirs):
            continue
        yield Finding(
            "volume-options",
            Severity.ERROR,
            f"volume {name} has the options {_options(ours)} on {facts.source.name} and {_options(theirs)} on"
            f" {facts.target.host.name}",
            f"make them the same there: ldm set-vdsdev options=... mpgroup=... {name}",
        )


def images(facts: CheckFacts) -> Findings:
    """Behind the same names must be the same storage: the same image, not one that is only called the same."""
    theirs = {image.volume: image for image in facts.target.images}
    for ours in facts.domain.images:
        image = theirs.get(ours.volume)
        if image is None or is_copied(facts, ours.volume):
            continue  # `volumes` has said so, or `copy_storage` does
        yield from _image(facts, ours, image)


def _image(facts: CheckFacts, ours: ImageFacts, theirs: ImageFacts) -> Findings:
    source, target = facts.source.name, facts.target.host.name
    if ours.error or theirs.error:
        host, image = (source, ours) if ours.error else (target, theirs)
        yield Finding(
            "images",
            Severity.ERROR,
            f"the back end of volume {image.volume} cannot be used on {host}: {image.error}",
            f"make {image.path} reachable there",
        )
        return
    differing = [
        f"{what} {mine} and {other}"
        for what, mine, other in (
            ("format", ours.format, theirs.format),
            ("size", ours.virtual_size, theirs.virtual_size),
            ("identity", ours.identity, theirs.identity),
        )
        if mine != other
    ]
    if ours.beacon and ours.beacon != theirs.beacon:
        differing.append("what lies beside it")
    if differing:
        yield Finding(
            "images",
            Severity.ERROR,
            f"volume {ours.volume} is not the same image on both hosts: {ours.path} on {source} and {theirs.path} on"
            f" {target} differ in {', '.join(differing)}",
            f"give the volume on {target} the path of the same shared storage",
        )
    elif not ours.identity and not ours.beacon:
        yield Finding(
            "images",
            Severity.OVERRIDABLE,
            f"it cannot be told whether volume {ours.volume} is the same device on both hosts: it has no serial number",
            f"make sure that {theirs.path} on {target} is the same device, then use -f",
        )


def image_locks(facts: CheckFacts) -> Findings:
    """The lock on an image is the second guard against two running copies; a stranger's lock is an obstacle."""
    theirs = {image.volume: image for image in facts.target.images}
    for ours in facts.domain.images:
        image = theirs.get(ours.volume)
        if image is None or image.error or ours.error or not ours.writable or is_copied(facts, ours.volume):
            continue
        if facts.domain.active and ours.locked and not image.locked:
            yield Finding(
                "image-locks",
                Severity.WARNING,
                f"{facts.target.host.name} does not see the lock that the guest holds on {ours.path}: the file system"
                " has no locks between hosts, and only the managers guard against two running copies",
                "use a file system with locks (NFS 4, a cluster file system)",
            )
        if not facts.domain.active and image.locked:
            yield Finding(
                "image-locks",
                Severity.ERROR,
                f"the image {image.path} of volume {image.volume} is in use by another guest",
                "end that guest first",
            )


def boot_files(facts: CheckFacts) -> Findings:
    """A domain that boots from files of the host needs the same files on the target."""
    theirs = {file.variable: file for file in facts.target.boot_files}
    for ours in facts.domain.boot_files:
        file = theirs.get(ours.variable)
        if file is None or file.digest == ours.digest:
            continue
        problem = "cannot be read" if not file.digest else f"is not the same as on {facts.source.name}"
        yield Finding(
            "boot-files",
            Severity.ERROR,
            f"{ours.path}, the {ours.variable} of LDom {facts.domain.domain.name}, {problem} on"
            f" {facts.target.host.name}",
            f"copy it there: scp {ours.path} {facts.options.host}:{ours.path}",
        )


def switches(facts: CheckFacts) -> Findings:
    """Every network interface needs a virtual switch of the same name, with the same MTU."""
    theirs = {switch.name: switch for switch in facts.target.services.switches}
    for network in facts.domain.domain.networks:
        switch = theirs.get(network.switch)
        if switch is None:
            yield Finding(
                "switches",
                Severity.ERROR,
                f"virtual switch {network.switch} of network {network.name} does not exist on {facts.target.host.name}",
                f"add it there: ldm add-vsw {network.switch} primary",
            )
        elif (mtu := network.mtu or facts.domain.mtus.get(network.switch, switch.mtu)) > switch.mtu:
            yield Finding(
                "switch-mtu",
                Severity.ERROR,
                f"network {network.name} has MTU {mtu}, and virtual switch {switch.name} on"
                f" {facts.target.host.name} has {switch.mtu}",
                f"set it there when the switch is made: ldm add-vsw mtu={mtu} {switch.name} primary",
            )


def macs(facts: CheckFacts) -> Findings:
    """No MAC address of the domain may be in use on the target."""
    domain = facts.domain.domain
    for mac in dict.fromkeys(domain.macs):
        holder = facts.target.macs.get(mac)
        if holder is not None:
            yield Finding(
                "macs",
                Severity.ERROR,
                f"MAC address {mac} of LDom {domain.name} is in use by {holder} on {facts.target.host.name}",
                "give one of them another address",
            )


def console(facts: CheckFacts) -> Findings:
    """A console concentrator with a free port must exist, and the group name must be free."""
    target, name = facts.target, facts.options.new_name or facts.domain.domain.name
    if not target.services.concentrators:
        yield Finding(
            "console",
            Severity.ERROR,
            f"{target.host.name} has no virtual console concentrator",
            "add one there: ldm add-vcc port-range=5000-5100 primary-vcc0 primary",
        )
    elif target.free_console_ports == 0:
        yield Finding(
            "console",
            Severity.ERROR,
            f"no console port is free on {target.host.name}",
            "add another concentrator there: ldm add-vcc port-range=5101-5200 primary-vcc1 primary",
        )
    if name in target.console_groups:
        yield Finding(
            "console",
            Severity.ERROR,
            f"console group {name} already exists on {target.host.name}",
            f"give the other domain there another group: ldm set-vcons group=OTHER {name}",
        )


def masters(facts: CheckFacts) -> Findings:
    """Dependencies between domains hold within one host."""
    domain = facts.domain.domain
    for master in domain.constraints.masters:
        if master not in facts.target.names:
            yield Finding(
                "masters",
                Severity.OVERRIDABLE,
                f"LDom {master}, the master of LDom {domain.name}, does not exist on {facts.target.host.name}",
                f"move it first, or end the dependency: ldm set-domain master= {domain.name}",
            )
    for slave in facts.domain.dependants:
        yield Finding(
            "masters",
            Severity.OVERRIDABLE,
            f"LDom {slave} on {facts.source.name} has LDom {domain.name} as its master",
            f"end the dependency: ldm set-domain master= {slave}",
        )


def _volume(facts: CheckFacts, disk: VirtualDisk) -> Volume | None:
    try:
        return facts.target.services.disk_service(disk.service).volume(disk.volume)
    except NotFound:
        return None


def _options(volume: Volume) -> str:
    options = sorted(volume.options) + ([f"mpgroup={volume.mpgroup}"] if volume.mpgroup else [])
    return ",".join(options) or "none"
