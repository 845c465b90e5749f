"""Commands about virtual disk services, their volumes, and the disks of domains."""

from __future__ import annotations

import re

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.options import QUICK, UNUSED
from ldoms.model.errors import RequestError


def _volume_and_service(text: str) -> tuple[str, str]:
    volume, separator, service = text.rpartition("@")
    if not (volume and separator and service):
        raise RequestError(f"'{text}' does not name a volume: write VOLUME@SERVICE", code="bad-name")
    return volume, service


def _number(words: Words, name: str) -> int | None:
    value = words.properties.get(name, "")
    if value and not value.isdecimal():
        raise UsageError(f"{name}={value} is not a number")
    return int(value) if value else None


def _options(text: str) -> list[str]:
    return [option for option in re.split(r"[{},]", text) if option]


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
    body = {
        "name": volume,
        "backend": backend,
        "options": _options(words.properties.get("options", "")),
        "mpgroup": words.properties.get("mpgroup", ""),
        "force": words.has("-f"),
        "quick": words.has("-q"),
    }
    client.post(f"/disk-services/{part(service)}/volumes", body)
    return 0


def _set_vdsdev(client: Client, words: Words) -> int:
    volume, service = _volume_and_service(words.operands[0])
    given = words.properties
    if not given:
        raise UsageError("set-vdsdev needs options= or mpgroup=; an empty value clears")
    body = {
        "options": _options(given["options"]) if "options" in given else None,
        "mpgroup": given.get("mpgroup"),
        "force": words.has("-f"),
    }
    client.patch(f"/disk-services/{part(service)}/volumes/{part(volume)}", body)
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


def _set_vdisk(client: Client, words: Words) -> int:
    disk, domain = words.operands
    given = words.properties
    if not given:
        raise UsageError("set-vdisk needs volume= or timeout=")
    body: dict[str, object] = {"timeout_s": (_number(words, "timeout") or 0) if "timeout" in given else None}
    if "volume" in given:
        body["volume"], body["service"] = _volume_and_service(given["volume"])
    client.patch(f"/domains/{part(domain)}/disks/{part(disk)}", body)
    return 0


def _remove_vdisk(client: Client, words: Words) -> int:
    disk, domain = words.operands
    client.delete(f"/domains/{part(domain)}/disks/{part(disk)}", force=words.has("-f"))
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
        options=(
            Option("-f", "also if another volume has the same back end, or the paths of a group differ"),
            QUICK,
        ),
        properties=("options", "mpgroup"),
        details="BACKEND is the full path of a raw or qcow2 image, or of a block device. options=ro: guests only"
        " read it, and several may at once. options=excl: no second volume on the same back end, and no second disk,"
        " also with -f. options=slice is kept and shown; the guest sees what the back end has, with or without a"
        " label. mpgroup=NAME makes it one of several paths to the same data: see set-vdsdev. A raw back end that is"
        " offered twice with -f is shared by the guests that are started after that, which must agree on who writes to"
        " it; a qcow2 image is not. For a migration both"
        " hosts must have the same image under the same VOLUME@SERVICE; the path may differ.",
    ),
    Command(
        "set-vdsdev",
        "vdsdev",
        "VOLUME@SERVICE",
        "change the options or the multipath group of a volume",
        _set_vdsdev,
        options=(Option("-f", "also if the paths of a group differ"),),
        properties=("options", "mpgroup"),
        details="Not while a bound domain uses it. An empty value clears. Volumes with the same mpgroup= are paths to"
        " the same data: a disk on one of them uses the first that works, and the next when that fails.",
    ),
    Command("remove-vdsdev", "vdsdev", "VOLUME@SERVICE", "offer it no more", _remove_vdsdev, options=(UNUSED,)),
    Command(
        "add-vdisk",
        "vdisk",
        "DISK VOLUME@SERVICE DOM",
        "give a domain a disk, also while its guest runs",
        _add_vdisk,
        properties=("timeout", "id"),
        details="The guest sees a virtio disk; firmware boots from the lowest id. A volume carries one disk, or any"
        " number with options=ro. When its back end fails the guest stands still until it works again; with"
        " timeout=SECONDS the guest goes on after that time, and sees errors on this disk until it works again."
        " 0 = wait for ever.",
    ),
    Command(
        "set-vdisk",
        "vdisk",
        "DISK DOM",
        "put a disk on another volume, or change its timeout",
        _set_vdisk,
        properties=("timeout", "volume"),
        details="volume=VOLUME@SERVICE changes the medium. A guest that runs must let the disk go (unmount it first),"
        " and gets it again in the same place.",
    ),
    Command(
        "remove-vdisk",
        "vdisk",
        "DISK DOM",
        "take a disk from a domain, also while its guest runs",
        _remove_vdisk,
        options=(Option("-f", "also if the guest does not let go: it sees errors, and the back end is free"),),
    ),
)
