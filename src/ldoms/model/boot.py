"""What a domain boots from: the variable ``boot-device``, read as OpenBoot reads it."""

from __future__ import annotations

import re

from ldoms.model.domain import Domain, VirtualDisk

BOOT_DEVICE = "boot-device"
UNNAMED = 500
"""Position of the disks that ``boot-device`` does not name: behind all that it can name."""

_PATH = re.compile(r"/virtual-devices@100/channel-devices@200/(?P<kind>disk|network)@(?P<id>[0-9a-fA-F]+)")
_ALIAS = re.compile(r"(?P<kind>disk|net|network)@?(?P<id>[0-9]*)")


def boot_positions(domain: Domain) -> tuple[dict[str, int], tuple[str, ...]]:
    """The disks that ``boot-device`` names, by their names, with their positions; and what it names that is not there.

    A word is the name of a disk or a network, ``disk`` or ``disk1`` (the disk with the lowest id, or with that id;
    ``disk@1`` as well), ``net`` likewise, or a path of OpenBoot's; what follows a colon (a slice, a protocol) means
    nothing here. Networks are known and passed over: no guest boots from one.
    """
    named: dict[str, int] = {}
    unknown: list[str] = []
    for position, word in enumerate(domain.variable(BOOT_DEVICE).split()):
        found = _find(domain, word.partition(":")[0])
        if found is None:
            unknown.append(word)
        elif found and found not in named:
            named[found] = min(position, UNNAMED - 1)
    return named, tuple(unknown)


def boot_index(domain: Domain, disk: VirtualDisk) -> int:
    """The firmware tries the lowest first; no two disks of a domain ever have the same, whatever the variable says."""
    named, _ = boot_positions(domain)
    position = named.get(disk.name, UNNAMED) if named else 0
    return 1 + 1000 * position + disk.id  # QEMU takes 0 for itself when it boots a kernel directly


def _find(domain: Domain, word: str) -> str | None:
    """The name of a disk, empty for a network, None if there is no such device."""
    if any(network.name == word for network in domain.networks):
        return ""
    for disk in domain.disks:
        if disk.name == word:
            return disk.name
    path, alias = _PATH.fullmatch(word), _ALIAS.fullmatch(word)
    if path is not None:
        return _by_id(domain, path["kind"], int(path["id"], 16))
    if alias is not None:
        return _by_id(domain, alias["kind"], int(alias["id"]) if alias["id"] else None)
    return None


def _by_id(domain: Domain, kind: str, number: int | None) -> str | None:
    if kind != "disk":
        ids = [network.id for network in domain.networks]
        return "" if (number in ids if number is not None else ids) else None
    disks = sorted(domain.disks, key=lambda disk: disk.id)
    return next((disk.name for disk in disks if number in (None, disk.id)), None)
