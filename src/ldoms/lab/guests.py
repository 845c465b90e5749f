"""Domains from images: a disk on the shared storage, an address on the clients' network, and the `ldm` commands."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ldoms.lab import debian, images, seed
from ldoms.lab.lab import Lab, Progress, ldm, save
from ldoms.lab.wiring import CLIENT_NETWORK, PREFIX
from ldoms.model.errors import AlreadyExists, HostError, LdomsError, RequestError

FIRST_ADDRESS = 10
LAST_ADDRESS = 199
SERVICE = "primary-vds0"


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
    user_data: str = seed.NOTHING_MORE,
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
        user_data: for cloud-init in an image of one's own.
        progress: hears every command.

    Returns:
        The domain's address on the clients' network; an image of one's own takes it if it runs cloud-init.

    Raises:
        AlreadyExists, RequestError: the name is taken, or an argument does not fit the image.
        HostError: a tool or an `ldm` command failed.
    """
    if domain in lab.guests:
        raise AlreadyExists(f"lab {lab.name} has a guest {domain} already")
    own = image not in images.IMAGES
    if own and parameters:
        raise RequestError(f"{image} boots by itself: kernel arguments are for {', '.join(images.IMAGES)}")
    if not own and user_data != seed.NOTHING_MORE:
        raise RequestError(f"image {image} does not run cloud-init: user data is for an image of your own")
    if own:
        debian.require([seed.TOOL])
    needs = _OWN if own else _NEEDS[image]
    address = _free_address(lab)
    if own:
        base: Path | None = _own_image(image)
        set_up: list[list[str]] = []
    else:
        built = images.build(image, progress)
        base = built.disk
        arguments = _arguments(lab, built, domain, address, parameters)
        boot = [f"boot-file={built.kernel}", f"boot-initrd={built.initrd}", f"boot-args={arguments}"]
        set_up = [["set-variable", *boot, domain]]
    set_up = [
        ["set-vcpu", str(vcpus or needs.vcpus), domain],
        ["set-memory", memory or needs.memory, domain],
        ["add-vnet", "vnet0", "primary-vsw0", domain],
        *set_up,
    ]
    with ExitStack() as undo:
        _run(lab, host, [["add-domain", domain]], progress)
        undo.callback(_take_back, lab, host, "remove-domain", domain)
        undo.callback(save, lab)
        lab = save(replace(lab, guests={**lab.guests, domain: address}))
        _run(lab, host, set_up, progress)
        if base:
            disk = lab.shared / f"{domain}-root.qcow2"
            undo.callback(disk.unlink, missing_ok=True)
            _write_overlay(disk, base)
            _add_disk(lab, host, domain, "vdisk0", disk, undo, progress)
        if own:
            settings = lab.shared / f"{domain}-seed.iso"
            undo.callback(settings.unlink, missing_ok=True)
            _write_seed(settings, lab, host, domain, address, user_data)
            _add_disk(lab, host, domain, "vdisk1", settings, undo, progress, options=("options=ro",))
        _run(lab, host, [["bind-domain", domain]], progress)
        undo.pop_all()
    return address


def _add_disk(
    lab: Lab,
    host: str,
    domain: str,
    disk: str,
    path: Path,
    undo: ExitStack,
    progress: Progress,
    options: tuple[str, ...] = (),
) -> None:
    """Give a domain a disk, whose volume every host has under the same name: that makes the domain movable."""
    volume = f"{path.stem}@{SERVICE}"
    for peer in lab.hosts:
        _run(lab, peer, [["add-vdsdev", *options, str(path), volume]], progress)
        undo.callback(_take_back, lab, peer, "remove-vdsdev", "-f", volume)
    _run(lab, host, [["add-vdisk", disk, volume, domain]], progress)


def _take_back(lab: Lab, host: str, *words: str) -> None:
    with suppress(LdomsError):
        ldm(lab, host, words)


def _write_seed(path: Path, lab: Lab, host: str, domain: str, address: str, user_data: str) -> None:
    views = lab.client(host).get("/domains")
    made = next(view["domain"] for view in views if view["domain"]["name"] == domain)
    seed.write_seed(
        path,
        instance=made["uuid"],
        hostname=domain,
        mac=made["networks"][0]["mac"],
        address=f"{address}/{PREFIX}",
        user_data=user_data,
    )


def _run(lab: Lab, host: str, commands: list[list[str]], progress: Progress) -> None:
    for words in commands:
        progress(f"{host}# ldm {shlex.join(words)}")
        ldm(lab, host, words)


def _arguments(lab: Lab, image: images.Image, domain: str, address: str, parameters: Mapping[str, str]) -> str:
    network: dict[str, str] = {}
    if parameter := _NEEDS[image.name].address_parameter:
        network[parameter] = f"{address}/{PREFIX}"
    if image.name == "postgres":
        network |= {"ldoms.hostname": domain, "ldoms.ntp": ",".join(lab.time_servers)}
    try:
        return image.arguments({**network, **parameters})
    except ValueError as error:
        raise RequestError(str(error), code="bad-parameter") from error


def _own_image(name: str) -> Path:
    path = Path(name).resolve()
    if not path.is_file():
        raise RequestError(
            f"there is no image {path}: name one of {', '.join(images.IMAGES)}, or a qcow2 or raw file",
            code="no-image",
        )
    return path


def _write_overlay(disk: Path, base: Path) -> None:
    """A disk of a domain's own, that holds what differs from the image."""
    info = _qemu_img("info", "--output=json", "--force-share", str(base))
    kind = "qcow2" if '"format": "qcow2"' in info else "raw"
    _qemu_img("create", "-q", "-f", "qcow2", "-F", kind, "-b", str(base), str(disk))


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
