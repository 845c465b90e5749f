"""Domains from images: a disk on the shared storage, an address on the clients' network, and the `ldm` commands."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ldoms.lab import images
from ldoms.lab.lab import Lab, Progress, ldm, save
from ldoms.lab.wiring import CLIENT_NETWORK, PREFIX, SWITCH_ADDRESS
from ldoms.model.errors import AlreadyExists, HostError, RequestError

FIRST_ADDRESS = 10
LAST_ADDRESS = 199


@dataclass(frozen=True, slots=True)
class Needs:
    """What an image needs to run well.

    Attributes:
        address_parameter: kernel argument by which it takes its address; empty = it has no such thing.
    """

    vcpus: int
    memory: str
    address_parameter: str = ""


_NEEDS: Mapping[str, Needs] = {
    "tiny": Needs(1, "128M", "pulse.ip"),
    "postgres": Needs(2, "1G", "ldoms.ip"),
}
_OWN = Needs(2, "1G")


def add_guest(
    lab: Lab,
    domain: str,
    image: str,
    *,
    host: str,
    vcpus: int,
    memory: str,
    parameters: Mapping[str, str],
    progress: Progress,
) -> str:
    """Make a domain on a host of a lab, and bind it; it is ready to start, and to move.

    Args:
        lab: where.
        domain: its name.
        image: ``tiny``, ``postgres``, or the path of a qcow2 or raw image that boots by itself.
        host: where it is made.
        vcpus: 0 = what the image needs.
        memory: empty = what the image needs.
        parameters: kernel arguments for an image of ours.
        progress: hears every command.

    Returns:
        The domain's address on the clients' network; empty if the image is one's own.
    """
    if domain in lab.guests:
        raise AlreadyExists(f"lab {lab.name} has a guest {domain} already")
    own = image not in images.IMAGES
    needs = _OWN if own else _NEEDS[image]
    address = "" if own else _free_address(lab)
    lab = save(replace(lab, guests={**lab.guests, domain: address}))
    commands = [
        ["add-domain", domain],
        ["set-vcpu", str(vcpus or needs.vcpus), domain],
        ["set-memory", memory or needs.memory, domain],
        ["add-vnet", "vnet0", "primary-vsw0", domain],
    ]
    volume_commands: list[list[str]] = []
    if own:
        disk: Path | None = _overlay(lab, domain, Path(image).resolve())
    else:
        built = images.build(image, progress)
        disk = _overlay(lab, domain, built.disk) if built.disk else None
        arguments = _arguments(built, needs, domain, address, parameters)
        boot = [f"boot-file={built.kernel}", f"boot-initrd={built.initrd}", f"boot-args={arguments}"]
        commands.append(["set-variable", *boot, domain])
    if disk is not None:
        volume_commands.append(["add-vdsdev", str(disk), f"{domain}-root@primary-vds0"])
        commands.append(["add-vdisk", "vdisk0", f"{domain}-root@primary-vds0", domain])
    # The volume exists on every host under the same name: that is what makes the domain movable.
    for peer in lab.hosts:
        _run(lab, peer, volume_commands, progress)
    _run(lab, host, [*commands, ["bind-domain", domain]], progress)
    return address


def _run(lab: Lab, host: str, commands: list[list[str]], progress: Progress) -> None:
    for words in commands:
        progress(f"{host}# ldm {shlex.join(words)}")
        ldm(lab, host, words)


def _arguments(image: images.Image, needs: Needs, domain: str, address: str, parameters: Mapping[str, str]) -> str:
    network: dict[str, str] = {}
    if needs.address_parameter:
        network[needs.address_parameter] = f"{address}/{PREFIX}"
    if image.name == "postgres":
        network |= {"ldoms.hostname": domain, "ldoms.ntp": SWITCH_ADDRESS}
    try:
        return image.arguments({**network, **parameters})
    except ValueError as error:
        raise RequestError(str(error), code="bad-parameter") from error


def _overlay(lab: Lab, domain: str, base: Path) -> Path:
    """A disk of the domain's own on the shared storage, that holds what differs from the image."""
    if not base.is_file():
        raise RequestError(
            f"there is no image {base}: name one of {', '.join(images.IMAGES)}, or a qcow2 or raw file",
            code="no-image",
        )
    disk = lab.shared / f"{domain}.qcow2"
    info = _qemu_img("info", "--output=json", "--force-share", str(base))
    kind = "qcow2" if '"format": "qcow2"' in info else "raw"
    _qemu_img("create", "-q", "-f", "qcow2", "-F", kind, "-b", str(base), str(disk))
    return disk


def _qemu_img(*words: str) -> str:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise HostError(f"qemu-img {words[0]} failed: {done.stderr.strip()}", code="bad-image")
    return done.stdout


def _free_address(lab: Lab) -> str:
    taken = set(lab.guests.values())
    for number in range(FIRST_ADDRESS, LAST_ADDRESS + 1):
        address = f"{CLIENT_NETWORK}.{number}"
        if address not in taken:
            return address
    raise RequestError("no address is free for another guest", code="no-address")
