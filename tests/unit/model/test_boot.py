"""What ``boot-device`` means."""

from __future__ import annotations

import pytest

from ldoms.model.boot import boot_index, boot_positions, with_boot_roms
from ldoms.model.domain import Bindings, Domain, Port, VirtualDisk, VirtualNetwork

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
        ("data", ["disk@1"]),
        ("data root", ["disk@1", "disk@0"]),
        ("disk", ["disk@0"]),
        ("disk1 disk", ["disk@1", "disk@0"]),
        ("disk@10 network@0", ["disk@10", "network@0"]),
        ("disk net", ["disk@0", "network@0"]),
        ("net0 vnet0 cd", ["network@0", "disk@10"]),
        (f"{PREFIX}/disk@0:a disk net", ["disk@0", "network@0"]),
        (f"{PREFIX}/disk@a {PREFIX}/network@0:dhcp", ["disk@10", "network@0"]),
        ("root:b data:a data", ["disk@0", "disk@1"]),
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
    assert boot_positions(domain(f"{word} data")) == ({"disk@1": 1}, (word,))


def order(text: str | None) -> list[str]:
    made = domain(text)
    return [disk.name for disk in sorted(made.disks, key=lambda disk: boot_index(made, f"disk@{disk.id}"))]


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


def test_no_two_devices_share_a_place_although_the_variable_changes_meanwhile() -> None:
    """QEMU refuses a disk that is added while the guest runs, otherwise."""
    texts = [None, "cd", "data", "root", "net", "data cd net root", "root net cd data"]
    devices = ("disk@0", "disk@1", "disk@10", "network@0")
    taken = [{boot_index(domain(text), device) for text in texts} for device in devices]
    assert sum(map(len, taken)) == len(set.union(*taken))


def test_a_network_is_tried_where_it_stands_and_has_its_rom_for_that() -> None:
    """Before the disks that come after it; one that is not named has none, and a later change counts at a start."""
    made = domain("data net disk")
    indices = [boot_index(made, device) for device in ("disk@1", "network@0", "disk@0", "disk@10")]
    assert indices == sorted(indices)
    bindings = Bindings((), (), ports=(Port("disk@0", 0), Port("network@0", 1)))
    started = with_boot_roms(made, bindings)
    assert [port.boots for port in started.ports] == [False, True]
    assert with_boot_roms(domain("disk"), started) == bindings
