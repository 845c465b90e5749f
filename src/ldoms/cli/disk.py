"""Commands about virtual disk services, their volumes, and the disks of domains."""

from __future__ import annotations

import re

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.options import FORCE, QUICK, UNUSED
from ldoms.model.errors import RequestError


def _volume_and_service(text: str) -> tuple[str, str]:
    volume, separator, service = text.rpartition("@")
    if not (volume and separator and service):
        raise RequestError(f"'{text}' does not name a volume: write VOLUME@SERVICE", code="bad-name")
    return volume, service


def _number(words: Words, name: str) -> int | None:
    value = words.properties.get(name, "")
    if value and not value.isdigit():
        raise UsageError(f"{name}={value} is not a number")
    return int(value) if value else None


def _add_vds(client: Client, words: Words) -> int:
    name, domain = words.operands
    client.post("/disk-services", {"name": name, "domain": domain})
    return 0


def _remove_vds(client: Client, words: Words) -> int:
    client.delete(f"/disk-services/{part(words.operands[0])}", force=words.has("-f"))
    return 0


def _add_vdsdev(client: Client, words: Words) -> int:
    backend, name = words.operands
    volume, service = _volume_and_service(name)
    options = [option for option in re.split(r"[{},]", words.properties.get("options", "")) if option]
    body = {
        "name": volume,
        "backend": backend,
        "options": options,
        "mpgroup": words.properties.get("mpgroup", ""),
        "force": words.has("-f"),
        "quick": words.has("-q"),
    }
    client.post(f"/disk-services/{part(service)}/volumes", body)
    return 0


def _remove_vdsdev(client: Client, words: Words) -> int:
    volume, service = _volume_and_service(words.operands[0])
    client.delete(f"/disk-services/{part(service)}/volumes/{part(volume)}", force=words.has("-f"))
    return 0


def _add_vdisk(client: Client, words: Words) -> int:
    disk, backing, domain = words.operands
    volume, service = _volume_and_service(backing)
    body = {
        "name": disk,
        "volume": volume,
        "service": service,
        "timeout_s": _number(words, "timeout") or 0,
        "id": _number(words, "id"),
    }
    client.post(f"/domains/{part(domain)}/disks", body)
    return 0


def _remove_vdisk(client: Client, words: Words) -> int:
    disk, domain = words.operands
    client.delete(f"/domains/{part(domain)}/disks/{part(disk)}")
    return 0


COMMANDS = (
    Command(
        "add-vds",
        "vds",
        "SERVICE DOM",
        "make a virtual disk service",
        _add_vds,
        details="DOM is the service domain: here always primary. By custom the service is called primary-vds0.",
    ),
    Command(
        "remove-vds",
        "vds",
        "SERVICE",
        "remove a virtual disk service",
        _remove_vds,
        options=(Option("-f", "also if it has volumes, or an inactive domain asks for one"),),
    ),
    Command(
        "add-vdsdev",
        "vdsdev",
        "BACKEND VOLUME@SERVICE",
        "offer an image or a block device to domains",
        _add_vdsdev,
        options=(Option("-f", "also if another volume has the same back end"), QUICK),
        properties=("options", "mpgroup"),
        details="BACKEND is the full path of a raw or qcow2 image, or of a block device. options=ro lets"
        " guests only read it; slice, excl and mpgroup= are kept and shown. For a migration both hosts must have the"
        " same image under the same VOLUME@SERVICE; the path may differ.",
    ),
    Command("remove-vdsdev", "vdsdev", "VOLUME@SERVICE", "offer it no more", _remove_vdsdev, options=(UNUSED,)),
    Command(
        "add-vdisk",
        "vdisk",
        "DISK VOLUME@SERVICE DOM",
        "give a domain a disk",
        _add_vdisk,
        properties=("timeout", "id"),
        details="The domain must not be bound, and a volume carries one disk. The guest sees a virtio disk; firmware"
        " boots from the lowest id. timeout= is kept and shown.",
    ),
    Command("remove-vdisk", "vdisk", "DISK DOM", "take a disk from a domain", _remove_vdisk, options=(FORCE,)),
)
