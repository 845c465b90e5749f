"""The life of domains on one host, by the commands that an administrator types."""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldoms.lab import images
from ldoms.lab import lab as labs
from support import SOURCE, TARGET, Hosts, wait_until
from terminals import Terminal, telnet

BOOT_SECTOR = (
    # 7c00: ax, ds = 0; cld          7c05: wait for a tick of the clock, then si = text
    bytes.fromhex("31c08ed8fc fbf4 be217c")
    # 7c0a: al = next character, again from 7c05 after the last one
    + bytes.fromhex("ac84c0 74f6")
    # wait until the serial port takes one, and send it
    + bytes.fromhex("88c4 bafd03 ec a820 74fb 88e0 baf803 ee ebe9")
    + b"Hello from the boot sector\r\n\0"
)
"""Says hello at the serial port 18 times a second."""


def boot_disk(path: Path, image_format: str) -> Path:
    """A disk with that boot sector, and nothing else."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes((1 << 20) - 512))
    if image_format != "raw":
        subprocess.run(["qemu-img", "convert", "-O", image_format, raw, path], check=True)
        raw.unlink()
        return path
    return raw


def row(hosts: Hosts, name: str) -> list[str]:
    """The words of a domain's line in `ldm list`."""
    return hosts.ldm(SOURCE, "list", name).splitlines()[1].split()


def refused(hosts: Hosts, *words: str) -> str:
    """The one sentence with which a command fails."""
    done = hosts.run(SOURCE, "ldm", *words)
    assert done.returncode == 1, f"{words} was not refused: {done.stdout}"
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    return sentence


@pytest.fixture
def domain(hosts: Hosts) -> Iterator[str]:
    """A domain of a name of its own, which is removed in the end, whatever it does then."""
    name = f"dom{next(hosts._names)}"
    hosts.ldm(SOURCE, "add-domain", name)
    try:
        yield name
    finally:
        hosts.remove_guest(name)


def test_a_domain_by_hand(hosts: Hosts, domain: str) -> None:
    """From add-domain to the guest's console and back, as in the LDoms manuals."""
    image = images.build("tiny")
    assert row(hosts, domain) == [domain, "inactive", "------"]
    hosts.ldm(SOURCE, "set-vcpu", "1", domain)
    hosts.ldm(SOURCE, "set-memory", "128M", domain)
    hosts.ldm(SOURCE, "add-vnet", "vnet0", "primary-vsw0", domain)
    variables = (f"boot-file={image.kernel}", f"boot-initrd={image.initrd}", f"boot-args={image.boot_args}")
    hosts.ldm(SOURCE, "set-variable", *variables, domain)
    assert f"boot-file={image.kernel}" in hosts.ldm(SOURCE, "list-variable", domain)
    assert row(hosts, domain) == [domain, "inactive", "------", "1", "128M"]
    free = hosts.ldm(SOURCE, "list-devices", "-p", "cpu").count("|pid=")
    hosts.ldm(SOURCE, "bind-domain", domain)
    _, state, flags, port, *_ = row(hosts, domain)
    assert (state, flags) == ("bound", "------")
    assert 5000 <= int(port) <= 5100
    assert hosts.ldm(SOURCE, "list-devices", "-p", "cpu").count("|pid=") == free - 1
    with telnet(hosts, port) as console:
        console.expect(f'Connecting to console "{domain}" in group "{domain}" ....')
        console.expect("Press ~? for control options ..")
        assert hosts.ldm(SOURCE, "start-domain", domain) == f"LDom {domain} started\n"
        assert row(hosts, domain)[1:3] == ["active", "-t----"]
        console.expect("pulse")
        console.type("echo knock knock\r\n")
        console.expect("knock knock")
    assert hosts.ldm(SOURCE, "stop-domain", domain) == f"LDom {domain} stopped\n"
    assert row(hosts, domain)[1] == "bound"
    hosts.ldm(SOURCE, "unbind-domain", domain)
    assert row(hosts, domain)[1] == "inactive"
    assert hosts.ldm(SOURCE, "list-devices", "-p", "cpu").count("|pid=") == free


@contextlib.contextmanager
def booted_from(hosts: Hosts, domain: str, back_end: str, says: str = "Hello") -> Iterator[Terminal]:
    """Let a domain boot from a disk until it says hello; a person at its console."""
    volume = f"{domain}-root@primary-vds0"
    hosts.ldm(SOURCE, "add-vdsdev", back_end, volume)
    try:
        hosts.ldm(SOURCE, "add-vdisk", "vdisk0", volume, domain)
        hosts.ldm(SOURCE, "set-vcpu", "1", domain)
        hosts.ldm(SOURCE, "set-memory", "64M", domain)
        hosts.ldm(SOURCE, "bind-domain", domain)
        hosts.ldm(SOURCE, "start-domain", domain)
        with telnet(hosts, row(hosts, domain)[3]) as console:
            console.expect(f"{says} from the boot sector")
            yield console
    finally:
        hosts.run(SOURCE, "ldm", "stop-domain", "-f", domain)
        hosts.run(SOURCE, "ldm", "unbind-domain", domain)
        hosts.run(SOURCE, "ldm", "remove-vdisk", "vdisk0", domain)
        hosts.ldm(SOURCE, "remove-vdsdev", volume)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_the_firmware_boots_from_a_disk(hosts: Hosts, domain: str, tmp_path: Path, image_format: str) -> None:
    """Without a boot-file: the first disk's own boot sector runs."""
    with booted_from(hosts, domain, str(boot_disk(tmp_path / "disk.qcow2", image_format))):
        assert row(hosts, domain)[1:3] == ["active", "-t----"]


def test_boot_device_decides_which_disk_boots(hosts: Hosts, domain: str, tmp_path: Path) -> None:
    """Both could; without it the one with the lower id does."""
    other = boot_disk(tmp_path / "other", "raw")
    other.write_bytes(other.read_bytes().replace(b"Hello from", b"Howdy from"))
    volume = f"{domain}-other@primary-vds0"
    hosts.ldm(SOURCE, "add-vdsdev", str(other), volume)
    try:
        hosts.ldm(SOURCE, "add-vdisk", "id=5", "vdisk5", volume, domain)
        said = hosts.run(
            SOURCE, "ldm", "set-variable", "boot-device=cdrom disk@5 disk5:a net vdisk0", domain, check=True
        )
        assert said.stderr.count("warning: LDom") == 3, said.stderr
        with booted_from(hosts, domain, str(boot_disk(tmp_path / "disk", "raw")), "Howdy"):
            pass
    finally:
        hosts.run(SOURCE, "ldm", "remove-vdisk", "vdisk5", domain)
        hosts.run(SOURCE, "ldm", "remove-variable", "boot-device", domain)
        hosts.ldm(SOURCE, "remove-vdsdev", volume)


def test_a_block_device_is_a_disk(hosts: Hosts, domain: str, tmp_path: Path) -> None:
    """As a volume of a SAN would be; here a loop device."""
    path = boot_disk(tmp_path / "disk", "raw")
    made = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no loop device can be had here: {made.stderr.strip()}")
    try:
        with booted_from(hosts, domain, made.stdout.strip()):
            assert row(hosts, domain)[1:3] == ["active", "-t----"]
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_more_than_there_is_is_refused_with_the_figures(hosts: Hosts, domain: str) -> None:
    """CPUs and memory, of a guest and of primary; what would help is said with it."""
    hosts.ldm(SOURCE, "set-vcpu", "1", domain)
    assert re.fullmatch(
        rf"LDom {domain} cannot get 99 virtual CPUs: it needs 98 free strands, and \d+ of this host's \d+ are free",
        refused(hosts, "set-vcpu", "99", domain),
    )
    assert "of this host's" in refused(hosts, "set-memory", "4000G", domain)
    assert "LDom primary cannot get" in refused(hosts, "add-vcpu", "99", "primary")


def test_a_disk_that_cannot_be_used_is_named_and_nothing_is_left(hosts: Hosts, domain: str) -> None:
    """Gone since it was bound; or in use by another guest, which QEMU's lock tells."""
    path = boot_disk(hosts.lab.shared / f"{domain}.qcow2", "qcow2")
    twin = f"{domain}b"
    try:
        hosts.ldm(SOURCE, "add-vdsdev", str(path), f"{domain}-a@primary-vds0")
        assert "is offered as volume" in refused(hosts, "add-vdsdev", str(path), f"{domain}-b@primary-vds0")
        hosts.ldm(SOURCE, "add-vdsdev", "-f", str(path), f"{domain}-b@primary-vds0")
        hosts.ldm(SOURCE, "add-domain", twin)
        for name, volume in ((domain, f"{domain}-a@primary-vds0"), (twin, f"{domain}-b@primary-vds0")):
            hosts.ldm(SOURCE, "add-vdisk", "vdisk0", volume, name)
            hosts.ldm(SOURCE, "add-vnet", "vnet0", "primary-vsw0", name)
            hosts.ldm(SOURCE, "set-vcpu", "1", name)
            hosts.ldm(SOURCE, "set-memory", "64M", name)
            hosts.ldm(SOURCE, "bind-domain", name)
        hosts.ldm(SOURCE, "start-domain", domain)
        sentence = refused(hosts, "start-domain", twin)
        assert f"LDom {twin} cannot have disk@0: another guest has the same back end open" in sentence
        hosts.ldm(SOURCE, "stop-domain", "-f", domain)
        path.rename(path.with_suffix(".away"))
        assert f"the back end {path} of volume {domain}-a cannot be used: No such file" in refused(
            hosts, "start-domain", domain
        )
        assert row(hosts, domain)[1] == row(hosts, twin)[1] == "bound"
        assert "vnet" not in hosts.lab.space(SOURCE).run(["ip", "-o", "link"]), "a tap was left behind"
        assert not [one for one in hosts.programs(SOURCE) if one.startswith("qemu")]
    finally:
        for name in (twin, domain):
            hosts.remove_guest(name)
        for volume in ("a", "b"):
            hosts.run(SOURCE, "ldm", "remove-vdsdev", f"{domain}-{volume}@primary-vds0")
        for left in hosts.lab.shared.glob(f"{domain}.*"):
            left.unlink()
        hosts.ldm(SOURCE, "add-domain", domain)


@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_of_the_manager_leaves_guests_alone(hosts: Hosts, kill: bool) -> None:
    """They run on, and are found again with their consoles; one that has ended meanwhile is missed."""
    name = hosts.standing_guest()
    before = hosts.ask(name)
    labs.stop_manager(hosts.lab, SOURCE, kill=kill)
    between = hosts.ask(name)
    assert between[0] >= before[0], "the guest was started anew"
    assert "ldmd does not answer" in hosts.run(SOURCE, "ldm", "list").stderr
    hosts.start_manager(SOURCE)
    assert row(hosts, name)[1:3] == ["active", "-n----"], "a guest that is found has booted, as far as is known"
    with telnet(hosts, row(hosts, name)[3]) as console:
        console.type("echo still there\r\n")
        console.expect("still there")
    view = hosts.view(SOURCE, name)
    assert view is not None
    labs.stop_manager(hosts.lab, SOURCE, kill=kill)
    hosts.qemus(view["domain"]["uuid"])[SOURCE].kill()
    hosts.start_manager(SOURCE)
    assert row(hosts, name)[1] == "bound"
    assert "vnet" not in hosts.lab.space(SOURCE).run(["ip", "-o", "link"]), "its tap was left behind"


def test_a_guest_that_powers_itself_off_leaves_its_domain_bound(hosts: Hosts) -> None:
    """As a machine does that is switched off."""
    name = hosts.standing_guest()
    with telnet(hosts, row(hosts, name)[3]) as console:
        console.expect("control options")
        console.type("poweroff\r\n")
        wait_until(lambda: row(hosts, name)[1] == "bound", 30, "the domain is not bound")


def test_a_guest_that_panics_starts_anew_as_it_wishes(hosts: Hosts) -> None:
    """Its kernel is told to (panic=1); its domain is active all the time, and its QEMU is the same."""
    name = hosts.standing_guest()
    view = hosts.view(SOURCE, name)
    assert view is not None
    (before,) = hosts.qemus(view["domain"]["uuid"]).values()
    with telnet(hosts, row(hosts, name)[3]) as console:
        console.expect("control options")
        console.type("crash\r\n")
        console.expect("Kernel panic")
        console.expect("pulse count=1 ")
    wait_until(lambda: row(hosts, name)[1:3] == ["active", "-n----"], 10, "it is still booting")
    assert list(hosts.qemus(view["domain"]["uuid"]).values()) == [before]


def test_bind_refuses_what_has_been_given_away(hosts: Hosts, domain: str) -> None:
    """It was free when the domain was described; primary has taken it back since."""
    hosts.ldm(SOURCE, "set-vcpu", "1", domain)
    hosts.ldm(SOURCE, "set-memory", "64M", domain)
    free = hosts.ldm(SOURCE, "list-devices", "-p", "cpu").count("|pid=")
    hosts.ldm(SOURCE, "add-vcpu", str(free), "primary")
    try:
        assert re.fullmatch(
            rf"LDom {domain} cannot get 1 virtual CPU: it needs 1 free strand, and 0 of this host's \d+ are free.*",
            refused(hosts, "bind-domain", domain),
        )
        assert row(hosts, domain)[1] == "inactive"
    finally:
        hosts.ldm(SOURCE, "remove-vcpu", str(free), "primary")
    hosts.ldm(SOURCE, "bind-domain", domain)


def test_a_client_that_does_not_read_holds_nothing_up(hosts: Hosts, domain: str, tmp_path: Path) -> None:
    """Its terminal hangs: the domain can be stopped and unbound all the same."""
    with booted_from(hosts, domain, str(boot_disk(tmp_path / "disk", "raw"))):
        time.sleep(1)
        began = time.monotonic()
        hosts.ldm(SOURCE, "stop-domain", "-f", domain)
        hosts.ldm(SOURCE, "unbind-domain", domain)
        assert time.monotonic() - began < 10


_ASK = """
import asyncio, sys
from ldoms.net.multicast import MulticastNeighbours
async def main():
    neighbours = MulticastNeighbours("nobody")
    await neighbours.open("0.0.0.0", lambda mac: False)
    print(await neighbours.holder_of(sys.argv[1]))
asyncio.run(main())
"""


def test_other_managers_hear_which_mac_addresses_are_taken(hosts: Hosts, domain: str) -> None:
    """Asked from another host of the subnet: a domain's and its network's; and one that nobody has."""
    hosts.ldm(SOURCE, "add-vnet", "vnet0", "primary-vsw0", domain)
    taken = re.findall(r"mac-addr=(00:14:4f:f[89ab]:\S\S:\S\S)", hosts.ldm(SOURCE, "list-bindings", "-p", domain))
    assert len(set(taken)) >= 2
    asks = functools.partial(hosts.lab.space(TARGET).run, limit_s=20)
    for mac in taken:
        assert asks([sys.executable, "-c", _ASK, mac]) == f"{SOURCE}\n"
    assert asks([sys.executable, "-c", _ASK, "00:14:4f:ff:ff:ff"]) == "\n"
