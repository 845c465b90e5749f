"""Which disks are copied with ``--copy-storage``, and whether they can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ldoms.checks.rule import Findings
from ldoms.model.domain import VirtualDisk
from ldoms.model.errors import NotFound
from ldoms.model.findings import Finding, Severity
from ldoms.model.images import Destination, ImageFacts
from ldoms.model.migration import CheckFacts, DiskCopy
from ldoms.model.services import Volume
from ldoms.model.sizes import MIB

OLDEST_QEMU = (8, 2)
"""The first that can have the guest's writes wait for both sides in the middle of a copy."""


def copies(facts: CheckFacts) -> tuple[DiskCopy, ...]:
    """What is to be copied, if the checks let it: each disk whose image is not the same one on both hosts."""
    return tuple(_copy(facts, disk, name) for name, disk in _copied_disks(facts).items())


def is_copied(facts: CheckFacts, volume: str) -> bool:
    """Whether the disk on ``volume@service`` is copied."""
    return volume in _copied_disks(facts)


def is_same_image(ours: ImageFacts, theirs: ImageFacts) -> bool:
    """Whether both hosts see one and the same image, beyond doubt."""
    if ours.error or theirs.error or not (ours.identity or ours.beacon):
        return False
    one, other = (
        (image.format, image.virtual_size, image.identity, ours.beacon and image.beacon) for image in (ours, theirs)
    )
    return one == other


def copy_storage(facts: CheckFacts) -> Findings:
    """Each disk needs a place on the target where nothing is yet, or a device of its size; and a guest that writes."""
    if not facts.options.copy_storage:
        return
    name, target = facts.domain.domain.name, facts.target.host
    if not facts.domain.active:
        yield Finding(
            "copy-storage",
            Severity.ERROR,
            f"LDom {name} is not active, and only the disks of a running guest are copied",
            "start it first, or copy its images by hand ('qemu-img convert') and leave out --copy-storage",
        )
        return
    disks = _copied_disks(facts)
    known = {one.volume: one for one in facts.target.destinations}
    for volume, disk in disks.items():
        yield from _disk(facts, disk, volume, known.get(volume))
    if disks:
        yield from _old_qemu(facts)
        yield from _room(facts, {volume: known[volume] for volume in disks if volume in known})
    if disks and not known:
        yield Finding(
            "copy-storage",
            Severity.ERROR,
            f"the manager of {target.name} is too old to take copies of disks",
            f"upgrade ldmd on {target.name}",
        )


# Inside


def _copied_disks(facts: CheckFacts) -> Mapping[str, VirtualDisk]:
    """By ``volume@service``."""
    if not facts.options.copy_storage:
        return {}
    ours = {image.volume: image for image in facts.domain.images}
    theirs = {image.volume: image for image in facts.target.images}
    disks = {f"{disk.volume}@{disk.service}": disk for disk in facts.domain.domain.disks}
    return {
        name: disk
        for name, disk in disks.items()
        if name not in ours or name not in theirs or not is_same_image(ours[name], theirs[name])
    }


def _disk(facts: CheckFacts, disk: VirtualDisk, name: str, place: Destination | None) -> Findings:
    source, target = facts.source.name, facts.target.host.name
    ours = next((image for image in facts.domain.images if image.volume == name), None)
    volume = facts.domain.volumes.get(name)

    def refusal(message: str, remedy: str) -> Finding:
        return Finding("copy-storage", Severity.ERROR, message, remedy)

    if ours is None or volume is None or ours.error:
        reason = ours.error if ours is not None else "it has none"
        yield refusal(f"the back end of volume {name} cannot be used on {source}: {reason}", "make it reachable there")
        return
    if not _has_service(facts, disk.service):
        yield refusal(
            f"virtual disk service {disk.service} of disk {disk.name} does not exist on {target}",
            f"add it there: ldm add-vds {disk.service} primary",
        )
        return
    if volume.is_read_only:
        yield refusal(
            f"volume {name} is read-only and not the same image on both hosts: only disks that the guest may write to"
            " are copied",
            f"give the volume on {target} the path of the same shared storage, or remove disk {disk.name}",
        )
    if name in facts.domain.shared_volumes:
        yield refusal(
            f"the back end of volume {name} is shared by guests on {source}: a copy would be for one of them alone",
            f"give the volume on {target} the path of the same shared storage",
        )
    theirs = _volume_there(facts, disk)
    if volume.mpgroup or (theirs is not None and theirs.mpgroup):
        yield refusal(
            f"volume {name} is of a multipath group, whose volumes are paths to the same data: it is not copied",
            f"end the group on both hosts: ldm set-vdsdev mpgroup= {name}",
        )
    if theirs is not None and theirs.format not in ("", ours.format):
        yield refusal(
            f"volume {name} has the format {ours.format} on {source} and {theirs.format} on {target}",
            f"remove it there, so that it is made anew: ldm remove-vdsdev {name}",
        )
    if place is not None:
        yield from _place(facts, ours, place)


def _place(facts: CheckFacts, ours: ImageFacts, place: Destination) -> Findings:
    target, name = facts.target.host.name, place.volume
    if place.error:
        yield Finding(
            "copy-storage",
            Severity.ERROR,
            f"the image of volume {name} cannot be made on {target}: {place.error}",
            f"make that directory there, or offer another path: ldm add-vdsdev -q PATH {name}",
        )
    elif place.exists and not place.device_bytes:
        yield Finding(
            "copy-storage",
            Severity.ERROR,
            f"{place.path} is there already on {target}, and nothing is overwritten",
            f"move it away, or offer another path there: ldm remove-vdsdev {name}; ldm add-vdsdev -q PATH {name}",
        )
    elif place.exists and (place.locked or ours.format != "raw" or place.device_bytes != ours.virtual_size):
        reason = (
            "is in use by another guest"
            if place.locked
            else f"takes no image in the format {ours.format}"
            if ours.format != "raw"
            else f"has {place.device_bytes} bytes, and the disk has {ours.virtual_size}"
        )
        yield Finding(
            "copy-storage",
            Severity.ERROR,
            f"the device {place.path} of volume {name} on {target} {reason}",
            f"offer another back end there: ldm remove-vdsdev {name}; ldm add-vdsdev -q PATH {name}",
        )
    elif place.exists and not _is_another(ours, next((one for one in facts.target.images if one.volume == name), None)):
        yield Finding(
            "copy-storage",
            Severity.ERROR,
            f"it cannot be told whether the device {place.path} of volume {name} on {target} is another one than"
            f" {ours.path} on {facts.source.name}: the copy would begin by emptying it",
            f"offer another back end there: ldm remove-vdsdev {name}; ldm add-vdsdev -q PATH {name}",
        )
    elif place.exists:
        yield Finding(
            "copy-storage",
            Severity.OVERRIDABLE,
            f"whatever is on the device {place.path} of volume {name} on {target} would be overwritten",
            "make sure that it is not needed, then use -f",
        )


def _is_another(ours: ImageFacts, theirs: ImageFacts | None) -> bool:
    """Whether what both hosts see is certainly not the same."""
    if theirs is None:
        return False
    one, other = (image.behind or image.identity for image in (ours, theirs))
    return bool(one and other) and one != other


def _old_qemu(facts: CheckFacts) -> Findings:
    version = facts.source.hypervisor.version
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST_QEMU:
        yield Finding(
            "copy-storage",
            Severity.ERROR,
            f"QEMU {version} on {facts.source.name} is too old to copy disks",
            "install QEMU 8.2 or later there",
        )


def _room(facts: CheckFacts, places: Mapping[str, Destination]) -> Findings:
    images = {image.volume: image for image in facts.domain.images}
    by_system: dict[str, list[str]] = {}
    for name, place in places.items():
        if not place.exists and not place.error and name in images:
            by_system.setdefault(place.file_system, []).append(name)
    for names in by_system.values():
        free = places[names[0]].free_bytes
        now = sum(images[name].allocated_bytes for name in names)
        in_all = sum(images[name].virtual_size for name in names)
        what = f"the disks {', '.join(names)}" if len(names) > 1 else f"the disk {names[0]}"
        there = f"where {places[names[0]].path} would be on {facts.target.host.name}"
        if now > free:
            yield Finding(
                "storage-room",
                Severity.ERROR,
                f"{what} take {_mib(now)} MiB, and {_mib(free)} MiB are free {there}",
                f"free some there, or offer another path: ldm add-vdsdev -q PATH {names[0]}",
            )
        elif in_all > free:
            yield Finding(
                "storage-room",
                Severity.WARNING,
                f"{what} can grow to {_mib(in_all)} MiB, and {_mib(free)} MiB are free {there}",
                "keep an eye on the room there: the guest stands still when it is used up",
            )


def _mib(size: int) -> int:
    return -(-size // MIB)


def _copy(facts: CheckFacts, disk: VirtualDisk, name: str) -> DiskCopy:
    ours = next(image for image in facts.domain.images if image.volume == name)
    theirs = _volume_there(facts, disk)
    place = next(one for one in facts.target.destinations if one.volume == name)
    volume = theirs if theirs is not None else replace(facts.domain.volumes[name], mpgroup="")
    return DiskCopy(
        device=f"disk@{disk.id}",
        disk=disk.name,
        service=disk.service,
        volume=replace(volume, format=ours.format),
        size_bytes=ours.virtual_size,
        makes_volume=theirs is None,
        makes_image=not place.exists,
        finds_format=theirs is not None and not theirs.format,
        content_bytes=min(ours.allocated_bytes, ours.virtual_size),
    )


def _has_service(facts: CheckFacts, service: str) -> bool:
    return any(known.name == service for known in facts.target.services.disk_services)


def _volume_there(facts: CheckFacts, disk: VirtualDisk) -> Volume | None:
    try:
        return facts.target.services.disk_service(disk.service).volume(disk.volume)
    except NotFound:
        return None
