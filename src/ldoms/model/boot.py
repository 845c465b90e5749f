"""What a domain boots from: the variable ``boot-device``, read as OpenBoot reads it."""

from __future__ import annotations

import re
from dataclasses import replace

from ldoms.model.domain import Bindings, Domain

BOOT_DEVICE = "boot-device"
UNNAMED = 500
"""Position of the disks that ``boot-device`` does not name: behind all that it can name."""
_NETWORKS = 500
"""So far is a network behind the disk of the same id, in one position."""

_PATH = re.compile(r"/virtual-devices@100/channel-devices@200/(?P<kind>disk|network)@(?P<id>[0-9a-fA-F]+)")
_ALIAS = re.compile(r"(?P<kind>disk|net|network)@?(?P<id>[0-9]*)")


def boot_positions(domain: Domain) -> tuple[dict[str, int], tuple[str, ...]]:
    """What ``boot-device`` names, as ``disk@ID`` and ``network@ID``, with the positions; and what is not there.

    A word is the name of a disk or a network, ``disk`` or ``disk1`` (the disk with the lowest id, or with that id;
    ``disk@1`` as well), ``net`` likewise, or a path of OpenBoot's; what follows a colon (a slice, a protocol) means
    nothing here.
    """
    named: dict[str, int] = {}
    unknown: list[str] = []
    for position, word in enumerate(domain.variable(BOOT_DEVICE).split()):
        found = _find(domain, word.partition(":")[0])
        if not found:
            unknown.append(word)
        elif found not in named:
            named[found] = min(position, UNNAMED - 1)
    return named, tuple(unknown)


def boot_index(domain: Domain, device: str) -> int:
    """The firmware tries the lowest first; no two devices ever have the same, whatever the variable says."""
    named, _ = boot_positions(domain)
    kind, _, number = device.partition("@")
    position = named.get(device, UNNAMED) if named else 0
    # QEMU takes 0 for itself when it boots a kernel directly.
    return 1 + 1000 * position + int(number) + (_NETWORKS if kind == "network" else 0)


def with_boot_roms(domain: Domain, bindings: Bindings) -> Bindings:
    """The bindings of a guest that is about to start: networks that ``boot-device`` names have what it boots with.

    That stays so until its next start, and on every host that it moves to: the code is part of the guest's memory.
    """
    named, _ = boot_positions(domain)
    ports = (
        replace(port, boots=port.device.startswith("network@") and port.device in named) for port in bindings.ports
    )
    return replace(bindings, ports=tuple(ports))


def _find(domain: Domain, word: str) -> str:
    """The device that a word means; empty if there is none."""
    for disk in domain.disks:
        if disk.name == word:
            return f"disk@{disk.id}"
    for network in domain.networks:
        if network.name == word:
            return f"network@{network.id}"
    path, alias = _PATH.fullmatch(word), _ALIAS.fullmatch(word)
    if path is not None:
        return _by_id(domain, path["kind"], int(path["id"], 16))
    if alias is not None:
        return _by_id(domain, alias["kind"], int(alias["id"]) if alias["id"] else None)
    return ""


def _by_id(domain: Domain, kind: str, number: int | None) -> str:
    """The device of a kind with that id, or without one that with the lowest."""
    kind = "disk" if kind == "disk" else "network"
    known = [disk.id for disk in domain.disks] if kind == "disk" else [network.id for network in domain.networks]
    found = next((one for one in sorted(known) if number in (None, one)), None)
    return "" if found is None else f"{kind}@{found}"
