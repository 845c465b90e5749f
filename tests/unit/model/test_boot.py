"""What ``boot-device`` means."""

from __future__ import annotations

import pytest

from ldoms.model.boot import boot_index, boot_positions
from ldoms.model.domain import Domain, VirtualDisk, VirtualNetwork

PREFIX = "/virtual-devices@100/channel-devices@200"


def domain(boot_device: str | None = None) -> Domain:
    """Disks root (id 0), data (id 1) and cd (id 10), and a network."""
    return Domain(
        *("uuid", "ldg1", "mac", "hostid", 1),
        variables=(("boot-device", boot_device),) if boot_device is not None else (),
        disks=(
            VirtualDisk("data", "v", "s", 1),
            VirtualDisk("root", "v", "s", 0),
            VirtualDisk("cd", "v", "s", 10),
        ),
        networks=(VirtualNetwork("vnet0", "vsw", 0, "mac"),),
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", []),
        ("data", ["data"]),
        ("data root", ["data", "root"]),
        ("disk", ["root"]),
        ("disk1 disk", ["data", "root"]),
        ("disk@10 network@0", ["cd"]),
        ("disk net", ["root"]),
        ("net0 vnet0 cd", ["cd"]),
        (f"{PREFIX}/disk@0:a disk net", ["root"]),
        (f"{PREFIX}/disk@a {PREFIX}/network@0:dhcp", ["cd"]),
        ("root:b data:a data", ["root", "data"]),
    ],
)
def test_devices_by_all_their_names(text: str, named: list[str]) -> None:
    """Their own, OpenBoot's aliases, and its paths, whose numbers are hexadecimal; each once, in their order."""
    found, unknown = boot_positions(domain(text))
    assert (list(found), unknown) == (named, ())
    assert sorted(found, key=found.__getitem__) == named


@pytest.mark.parametrize("word", ["disk7", "net1", "cdrom", f"{PREFIX}/disk@5", "/pci@400/disk@0", "Disk"])
def test_what_is_not_there_is_told(word: str) -> None:
    """And does not keep the others from being found."""
    assert boot_positions(domain(f"{word} data")) == ({"data": 1}, (word,))


def order(text: str | None) -> list[str]:
    made = domain(text)
    return [disk.name for disk in sorted(made.disks, key=lambda disk: boot_index(made, disk))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ["root", "data", "cd"]),
        ("net", ["root", "data", "cd"]),
        ("nowhere", ["root", "data", "cd"]),
        ("cd", ["cd", "root", "data"]),
        ("data cd", ["data", "cd", "root"]),
        (" ".join(["x"] * 2000) + " cd", ["cd", "root", "data"]),
    ],
)
def test_named_disks_come_first_and_the_others_by_their_ids(text: str | None, expected: list[str]) -> None:
    """A variable that names nothing that is there changes nothing."""
    assert order(text) == expected


def test_no_two_disks_share_a_place_although_the_variable_changes_meanwhile() -> None:
    """QEMU refuses a disk that is added while the guest runs, otherwise."""
    texts = [None, "cd", "data", "root", "data cd root", "root cd data"]
    taken = {name: {boot_index(domain(text), domain().disk(name)) for text in texts} for name in ("root", "data", "cd")}
    assert not taken["root"] & taken["data"]
    assert not taken["cd"] & (taken["root"] | taken["data"])
