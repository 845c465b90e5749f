"""An image of the user's own: partitions, a boot loader, and settings from a seed, as a cloud image has them.

The image is made here, with GRUB in front of the kernel of the tiny guest: what is tested is how a domain boots and
moves without anything of the host's, not a distribution.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldoms.lab import images
from ldoms.lab.guests import FIRST_ADDRESS
from ldoms.lab.wiring import CLIENT_NETWORK, PREFIX
from support import SOURCE, TARGET, Hosts, wait_until

MIB = 1 << 20
SECTOR = 512
DISK_MIB, ROOT_MIB, ROOT_AT_MIB = 128, 124, 2
LOADER_SECTOR = 2048
GRUB = Path("/usr/lib/grub/i386-pc")
MODULES = ("biosdisk", "part_gpt", "ext2", "normal", "search", "search_label", "linux")
TABLE = """label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
start=4096, type=linux
"""
ADDRESS = f"{CLIENT_NETWORK}.{FIRST_ADDRESS}"
"""The first guest of a lab gets it."""


def write_image(path: Path, work: Path) -> None:
    """Write a qcow2 image that boots from its own disk: GPT, GRUB for the BIOS, ext4."""
    tiny = images.build("tiny")
    root, raw = work / "root", work / "disk.raw"
    (root / "boot/grub").mkdir(parents=True)
    (root / "vmlinuz").write_bytes(tiny.kernel.read_bytes())
    (root / "initrd.img").write_bytes(tiny.initrd.read_bytes())
    arguments = tiny.arguments({"pulse.ip": f"{ADDRESS}/{PREFIX}", "pulse.fill": 16, "pulse.size": 4})
    (root / "boot/grub/grub.cfg").write_text(
        f"search --no-floppy --label root --set=root\nlinux /vmlinuz {arguments}\ninitrd /initrd.img\nboot\n"
    )
    with raw.open("wb") as disk:
        disk.truncate(DISK_MIB * MIB)
    run("sfdisk", "-q", str(raw), text=TABLE)
    place = f"offset={ROOT_AT_MIB * MIB}"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-E", place, "-d", str(root), str(raw), f"{ROOT_MIB}M")
    core = work / "core.img"
    run("grub-mkimage", "-O", "i386-pc", "-o", str(core), "-p", "(hd0,gpt2)/boot/grub", *MODULES)
    install_loader(raw, core.read_bytes())
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path))


def install_loader(disk: Path, core: bytes) -> None:
    """Write GRUB's two stages and where the second lies; ``grub-install`` wants a real disk for that."""
    with disk.open("r+b") as file:
        record = bytearray(file.read(SECTOR))
        record[:0x1B8] = (GRUB / "boot.img").read_bytes()[:0x1B8]
        record[0x5C:0x64] = struct.pack("<Q", LOADER_SECTOR)
        file.seek(0)
        file.write(record)
        sectors = -(-len(core) // SECTOR)
        # The list of blocks at the end of its first sector: start, length, and the segment that they go to.
        rest = struct.pack("<QHH", LOADER_SECTOR + 1, sectors - 1, 0x820)
        file.seek(LOADER_SECTOR * SECTOR)
        file.write(core[: SECTOR - len(rest)] + rest + core[SECTOR:])


def run(*words: str, text: str = "") -> str:
    """Run a tool that must work; what it prints."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def web(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A domain with that image, bound."""
    work = tmp_path_factory.mktemp("own")
    image = work / "web.qcow2"
    write_image(image, work)
    name = hosts.add_guest(str(image))
    try:
        yield name
    finally:
        hosts.remove_guest(name)


def test_the_seed_says_who_the_guest_is(hosts: Hosts, web: str) -> None:
    """Name, address on the interface that it has, and an id that is the domain's: what cloud-init asks for."""
    seed = str(hosts.lab.shared / f"{web}-seed.iso")
    assert 'LABEL="cidata"' in run("blkid", "-p", seed)
    files = {name: run("isoinfo", "-R", "-x", f"/{name}", "-i", seed) for name in ("meta-data", "network-config")}
    view = hosts.view(SOURCE, web) or hosts.view(TARGET, web)
    assert view is not None
    domain = view["domain"]
    assert json.loads(files["meta-data"]) == {"instance-id": domain["uuid"], "local-hostname": web}
    (interface,) = json.loads(files["network-config"])["ethernets"].values()
    assert interface["match"] == {"macaddress": domain["networks"][0]["mac"]}
    assert interface["addresses"] == [f"{ADDRESS}/{PREFIX}"]
    assert run("isoinfo", "-R", "-x", "/user-data", "-i", seed).startswith("#cloud-config\n")


def test_it_boots_by_itself_and_moves(hosts: Hosts, web: str) -> None:
    """No kernel of the host's is named anywhere; both disks are there on the other host, and it goes on counting."""
    view = hosts.view(SOURCE, web)
    assert view is not None
    assert not any(variable["name"].startswith("boot-") for variable in view["domain"]["variables"])
    hosts.boot(web)
    wait_until(lambda: hosts.ask(web)[0] > 0, 30, "it does not count")
    before, _ = hosts.ask(web)
    done = hosts.migrate(web)
    assert done.returncode == 0, done.stderr
    assert hosts.place(web) == [TARGET]
    after, errors = hosts.ask(web)
    assert after > before
    assert errors == 0
    disks = hosts.ldm(TARGET, "list-domain", "-o", "disk", web)
    assert f"{web}-root@primary-vds0" in disks
    assert f"{web}-seed@primary-vds0" in disks
