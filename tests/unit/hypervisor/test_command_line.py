"""QEMU's command line: the same for the same guest on both ends of a migration."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.hypervisor.command_line import command_line, disk_front_end, network_front_end
from ldoms.hypervisor.specs import DiskSpec, GuestSpec, NetworkSpec, Placement
from ldoms.model.domain import CpuModel, Machine

GOLDEN = Path(__file__).parent / "golden"

FIRMWARE = GuestSpec(
    uuid="b0b0b0b0-0000-4000-8000-000000000001",
    name="ldg1",
    directory=Path("/run/ldoms/domains/b0b0b0b0"),
    machine=Machine("pc-q35-10.0", "tcg", CpuModel("qemu64-v1", ("lm",)), "10.0.2"),
    vcpus=2,
    memory_mib=1024,
    placement=Placement((frozenset({0}), frozenset({1}))),
    disks=(
        DiskSpec("disk@0", Path("/images/ldg1.qcow2"), False, "qcow2", False, True, 0, 1),
        DiskSpec("disk@1", Path("/dev/sdb"), True, "raw", True, True, 2, 2),
    ),
    networks=(NetworkSpec("network@0", "vnet1.0", "00:14:4f:f8:00:01", 1500, 1),),
)
KERNEL = replace(
    FIRMWARE,
    machine=replace(FIRMWARE.machine, accelerator="kvm"),
    disks=(),
    networks=(),
    kernel=Path("/boot/vmlinuz"),
    initrd=Path("/boot/initrd.img"),
    boot_args="console=ttyS0 quiet",
    hostid="0x84f80001",
    incoming=True,
)


def pretty(words: list[str]) -> str:
    """One option a line, as a shell would take it."""
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return "\n".join(lines) + "\n"


GROWN = replace(
    KERNEL,
    machine=replace(KERNEL.machine, memory_max_mib=16384, panic_device=True),
    memory_mib=1028,
    added_memory_mib=512,
    boot_args="quiet",
)


@pytest.mark.parametrize(
    ("name", "spec"), [("firmware", FIRMWARE), ("kernel-incoming", KERNEL), ("grown-incoming", GROWN)]
)
def test_the_command_line_is_the_golden_one(name: str, spec: GuestSpec) -> None:
    """What is in it is part of what a guest sees: a change here can break migrations between versions of ldoms."""
    assert pretty(command_line(spec)) == (GOLDEN / f"{name}.txt").read_text()


def test_no_guest_runs_by_itself() -> None:
    """Neither a fresh one nor one that receives: only our own word lets it run."""
    for spec in (FIRMWARE, KERNEL):
        assert "-S" in command_line(spec)


def test_both_ends_have_the_same_devices() -> None:
    """The target's line is the source's, and `-incoming`."""
    assert command_line(replace(FIRMWARE, incoming=True)) == [*command_line(FIRMWARE), "-incoming", "defer"]


def test_processors_that_may_come_have_sockets() -> None:
    """How many is part of the machine: a guest sees it, and a record from before it could be chosen has none."""
    words = command_line(replace(FIRMWARE, machine=replace(FIRMWARE.machine, max_vcpus=8)))
    assert words[words.index("-smp") + 1] == "cpus=2,maxcpus=8,sockets=1,cores=8,threads=1"
    assert command_line(replace(FIRMWARE, machine=replace(FIRMWARE.machine, max_vcpus=0))) == command_line(FIRMWARE)


def test_a_machine_without_room_has_no_device_for_memory() -> None:
    """Less than a step of room is none."""
    for most in (0, 512, 1024, 1279):
        spec = replace(FIRMWARE, machine=replace(FIRMWARE.machine, memory_max_mib=most))
        assert command_line(spec) == command_line(FIRMWARE)


def test_a_disk_has_the_queues_of_the_machine() -> None:
    """Not as many as virtual CPUs: the target of a migration may be started with more than the source was."""
    assert "num-queues" not in disk_front_end(FIRMWARE.disks[0])
    assert disk_front_end(replace(FIRMWARE.disks[0], queues=4))["num-queues"] == 4


def test_a_network_has_a_boot_rom_where_it_is_booted_from() -> None:
    """Of a size that does not depend on the version of iPXE; else the firmware does not look at it."""
    (network,) = FIRMWARE.networks
    assert network_front_end(network)["romfile"] == ""
    front = network_front_end(replace(network, boot_index=1501))
    assert (front["bootindex"], front["romsize"], "romfile" in front) == (1501, 524288, False)
    words = command_line(replace(FIRMWARE, networks=(replace(network, boot_index=501),)))
    assert next(word for word in words if word.startswith("virtio-net-pci")).endswith("romsize=524288,bootindex=501")


def test_a_root_port_that_is_free_is_there_all_the_same() -> None:
    """A removed device leaves no gap: the guest looks at function 0 first."""
    alone = replace(FIRMWARE, disks=FIRMWARE.disks[1:], networks=())
    ports = [word for word in command_line(alone) if word.startswith("pcie-root-port")]
    assert [port.split(",")[1] for port in ports] == ["id=port0", "id=port1", "id=port2"]


def test_there_are_as_many_root_ports_as_were_recorded() -> None:
    """Or as the devices need, if that is more: none can be added to a guest that runs."""
    for recorded, there in ((0, 3), (2, 3), (9, 9)):
        spec = replace(FIRMWARE, machine=replace(FIRMWARE.machine, root_ports=recorded))
        ports = [word for word in command_line(spec) if word.startswith("pcie-root-port")]
        assert [port.split(",")[1] for port in ports] == [f"id=port{number}" for number in range(there)]
    assert "addr=0x5.0,multifunction=on" in ports[-1], "the ninth is the first of the next slot"


def test_commas_in_names_do_not_become_options() -> None:
    """QEMU wants them twice."""
    words = command_line(replace(FIRMWARE, name="a,debug-threads=off", directory=Path("/run/a,b")))
    assert words[words.index("-name") + 1] == "guest=a,,debug-threads=off,debug-threads=on"
    assert any("path=/run/a,,b/qmp.sock" in word for word in words)


def test_a_disk_that_guests_share() -> None:
    """QMP wants a boolean where the command line has a word."""
    shared = DiskSpec("disk@0", Path("/images/a.raw"), False, "raw", False, True, 0, 1, shared=True)
    assert disk_front_end(shared)["share-rw"] is True
    words = command_line(replace(FIRMWARE, disks=(shared,)))
    assert any(",share-rw=on" in word for word in words)
    assert "share-rw" not in disk_front_end(FIRMWARE.disks[0])


def test_a_dirty_ring_is_for_kvm() -> None:
    """As large as QEMU's documentation has it; without the wish KVM is as it was."""
    kvm = replace(KERNEL, machine=replace(KERNEL.machine, accelerator="kvm"))
    assert "kvm,dirty-ring-size=4096" in command_line(kvm, dirty_ring=True)
    assert "kvm" in command_line(kvm)
