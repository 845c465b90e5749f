"""Disks that the hosts do not share, copied by real QEMUs while their guest writes; and left alone when that fails."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ldoms.checks.storage import is_same_image
from ldoms.model.images import ImageFacts
from ldoms.model.services import Volume
from ldoms.storage.files import FileStorage
from support import SOURCE, TARGET, Hosts, interrupt, need_root_and_qemu, wait_until

MIB = 1 << 20
SIZE, DATA = 64 * MIB, 6 * MIB
VDS = "primary-vds0"
RECORDS, RECORD_BYTES = 1024, 512
"""Those of guest/pulse.c."""
OLD = b"\xa5" * 4096
"""What is on a device that is to be overwritten."""


@dataclass
class Moved:
    """A guest that writes to its first disk before every heartbeat, and whose second one has a content of its own."""

    hosts: Hosts
    name: str
    here: Path
    there: Path

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Begin to move it."""
        return self.hosts.start(SOURCE, *self.hosts.migrate_words(self.name, SOURCE, "--copy-storage", *options))

    def start_slowly(self) -> subprocess.Popen[str]:
        """Begin to move it, and wait until its disks are being copied, which will take a while."""
        program = self.start("--max-bandwidth", "1M")
        wait_until(lambda: copied_bytes(self.hosts, self.name) > 0, 60, "the disks are not copied")
        return program

    def records(self, directory: Path) -> list[int]:
        """The numbers of what the guest has written to its first disk, as the host of that directory has it, sorted."""
        return records_in((directory / "one.raw").read_bytes())

    def check_records(self, directory: Path) -> None:
        """Of what the guest has written and not overwritten itself, nothing is missing."""

        def is_whole() -> bool:
            found = self.records(directory)
            return found == list(range(max(1, found[-1] - RECORDS + 1), found[-1] + 1))

        # Looked at while it writes, the file can have the next record and not yet the last one: not for long.
        wait_until(is_whole, 3, f"records are missing in {directory}")

    def check_stayed(self) -> None:
        """The guest runs where it ran and writes there, and nothing is left on the target."""
        self.hosts.settle(self.name)
        assert self.hosts.place(self.name) == [SOURCE]
        assert self.hosts.answers(self.name)
        before = self.records(self.here)[-1]
        wait_until(lambda: self.records(self.here)[-1] > before, 20, "the guest does not write any more")
        self.check_records(self.here)
        assert list(self.there.iterdir()) == []
        assert self.made_volume() not in self.hosts.ldm(TARGET, "list-services")
        self.hosts.check_clean(TARGET)

    def made_volume(self) -> str:
        """The one that the target does not have."""
        return f"{self.name}-1"


@pytest.fixture(scope="module")
def moved(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    """It is on t4-1; t4-2 has a volume for the first disk with nothing behind it, and none for the second one.

    Where t4-1 has its images, t4-2 sees a directory of its own.
    """
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    hosts.run(TARGET, "mount", "--bind", str(there), str(here), check=True)
    with (here / "one.raw").open("wb") as file:
        file.write(b"\x5a" * DATA)
        file.truncate(SIZE)
    with (here / "data").open("wb") as file:
        file.seek(8 * MIB)
        file.write(os.urandom(DATA))
        file.truncate(SIZE)
    words = ["qemu-img", "convert", "-O", "qcow2", str(here / "data"), str(here / "two.qcow2")]
    subprocess.run(words, check=True)
    (here / "data").unlink()
    name = hosts.add_guest(pulse_disk=RECORDS, pulse_period=10)
    try:
        for number, file_name in enumerate(("one.raw", "two.qcow2")):
            volume = f"{name}-{number}@{VDS}"
            hosts.ldm(SOURCE, "add-vdsdev", str(here / file_name), volume)
            if number == 0:
                hosts.ldm(TARGET, "add-vdsdev", "-q", str(there / file_name), volume)
            hosts.ldm(SOURCE, "add-vdisk", f"vdisk{number}", volume.split("@")[0] + "@" + VDS, name)
        hosts.boot(name)
        yield Moved(hosts, name, here, there)
    finally:
        hosts.remove_guest(name)
        for host in (SOURCE, TARGET):
            for number in range(2):
                hosts.run(host, "ldm", "remove-vdsdev", "-f", f"{name}-{number}@{VDS}")
        hosts.run(TARGET, "umount", str(here))


def test_without_the_option_it_is_refused(moved: Moved) -> None:
    """And the other way round: what is there already is not overwritten, whatever it is."""
    done = moved.hosts.migrate(moved.name)
    assert done.returncode == 1
    assert "cannot be used on t4-2" in done.stderr
    (moved.there / "one.raw").write_text("precious")
    done = moved.hosts.migrate(moved.name, SOURCE, "--copy-storage", "-f")
    assert done.returncode == 1
    assert "one.raw is there already on t4-2, and nothing is overwritten" in done.stderr
    assert (moved.there / "one.raw").read_text() == "precious"
    (moved.there / "one.raw").unlink()
    assert moved.hosts.migrate(moved.name, SOURCE, "--copy-storage", "-n").returncode == 0
    moved.check_stayed()


def test_a_copy_is_cancelled(moved: Moved) -> None:
    """By Ctrl-C, while the disks are copied."""
    program = moved.start_slowly()
    assert len(list(moved.there.iterdir())) == 4  # each image has a second name for as long as it is not kept
    interrupt(program)
    assert program.wait(60) == 1
    moved.check_stayed()


def test_the_targets_qemu_dies(moved: Moved) -> None:
    """While the disks are copied."""
    program = moved.start_slowly()
    view = moved.hosts.view(SOURCE, moved.name)
    assert view is not None
    qemu: psutil.Process = moved.hosts.qemus(str(view["domain"]["uuid"]))[TARGET]
    qemu.kill()
    assert program.wait(60) == 1
    moved.check_stayed()


def test_the_manager_of_the_source_dies(moved: Moved) -> None:
    """And finds on its return what it has left in the guest's QEMU."""
    program = moved.start_slowly()
    moved.hosts.kill_manager(SOURCE)
    moved.hosts.start_manager(SOURCE)
    assert program.wait(120) == 1
    moved.check_stayed()


def test_the_disks_move_with_the_guest(moved: Moved) -> None:
    """What it has never written takes no room there; what it writes afterwards is not on the source's images."""
    hosts = moved.hosts
    program = moved.start()
    assert program.wait(120) == 0, program.communicate()
    assert hosts.place(moved.name) == [TARGET]
    assert hosts.answers(moved.name)
    left = moved.records(moved.here)
    wait_until(lambda: moved.records(moved.there)[-1] > left[-1], 20, "the guest does not write on the target")
    assert moved.records(moved.here) == left
    report = hosts.reports()[-1]
    assert [(disk["disk"], disk["path"]) for disk in report["storage"]] == [
        ("vdisk0", str(moved.there / "one.raw")),
        ("vdisk1", str(moved.here / "two.qcow2")),
    ]
    assert all(disk["copied_bytes"] >= DATA and disk["seconds"] > 0 for disk in report["storage"]), report
    assert moved.made_volume() in hosts.ldm(TARGET, "list-services")
    hosts.ldm(TARGET, "stop-domain", "-f", moved.name)
    assert sorted(path.name for path in moved.there.iterdir()) == ["one.raw", "two.qcow2"]
    moved.check_records(moved.here)
    moved.check_records(moved.there)
    ours, theirs = ((directory / "one.raw").read_bytes() for directory in (moved.here, moved.there))
    assert ours[RECORDS * RECORD_BYTES :] == theirs[RECORDS * RECORD_BYTES :]
    same = ["qemu-img", "compare", "-f", "qcow2", str(moved.here / "two.qcow2"), str(moved.there / "two.qcow2")]
    assert subprocess.run(same, check=False, capture_output=True).returncode == 0
    for name in ("one.raw", "two.qcow2"):
        assert (moved.there / name).stat().st_blocks * 512 < DATA + 2 * MIB


@dataclass
class OnDevices:
    """A guest whose disk is a block device, and the devices of both hosts."""

    hosts: Hosts
    name: str
    here: Path
    there: Path

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Begin to move it."""
        return self.hosts.start(SOURCE, *self.hosts.migrate_words(self.name, SOURCE, "--copy-storage", *options))


@contextmanager
def looped(*files: Path) -> Iterator[list[Path]]:
    """Block devices that show these files; a machine that has no loop devices skips."""
    made: list[Path] = []
    try:
        for file in files:
            done = subprocess.run(["losetup", "--find", "--show", file], check=False, capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"loop devices cannot be made here: {done.stderr.strip()}")
            made.append(Path(done.stdout.strip()))
        yield made
    finally:
        for device in made:
            subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two block devices of the same size, the second with something on it that nobody needs any more."""
    need_root_and_qemu()
    files = [tmp_path / "here.img", tmp_path / "there.img"]
    for file, byte in zip(files, (b"\x5a", b"\xa5"), strict=True):
        with file.open("wb") as content:
            content.write(byte * DATA)
            content.truncate(SIZE)
    with looped(*files) as (here, there):
        yield here, there


@pytest.fixture
def on_devices(hosts: Hosts, loops: tuple[Path, Path]) -> Iterator[OnDevices]:
    """A guest on t4-1 that writes to a block device before every heartbeat; t4-2 has offered another one for it."""
    name = hosts.add_guest(pulse_disk=RECORDS, pulse_period=10)
    volume = f"{name}-0@{VDS}"
    try:
        for host, device in zip((SOURCE, TARGET), loops, strict=True):
            hosts.ldm(host, "add-vdsdev", str(device), volume)
        hosts.ldm(SOURCE, "add-vdisk", "vdisk0", volume.split("@")[0] + "@" + VDS, name)
        hosts.boot(name)
        yield OnDevices(hosts, name, *loops)
    finally:
        hosts.settle(name)
        hosts.remove_guest(name)
        for host in (SOURCE, TARGET):
            hosts.run(host, "ldm", "remove-vdsdev", "-f", volume)


def test_a_loop_device_is_known_by_its_file(loops: tuple[Path, Path], tmp_path: Path) -> None:
    """Two of the same file are never taken for two disks, of which one could be overwritten with the other."""

    def facts(path: Path) -> ImageFacts:
        return asyncio.run(FileStorage().inspect("one@vds", Volume("one", str(path), format="raw"), ".beacon"))

    file = tmp_path / "here.img"
    with looped(file) as (again,):
        here, there, same = (facts(path) for path in (*loops, again))
        assert here.behind == same.behind == facts(file).identity
        assert there.behind not in ("", here.behind)
        assert not is_same_image(here, same), "on another host it may be another file"
        assert {one.identity for one in (here, there, same)} == {""}


def test_a_block_device_moves_to_a_block_device(on_devices: OnDevices) -> None:
    """Only with -f, as its content is lost; called off once, it stays offered; then all that was written is there."""
    hosts, name = on_devices.hosts, on_devices.name
    refused = on_devices.start()
    _, complaint = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert f"whatever is on the device {on_devices.there} of volume {name}-0@{VDS} on t4-2" in complaint
    assert content_of(on_devices.there)[: len(OLD)] == OLD

    program = on_devices.start("-f", "--max-bandwidth", "1M")
    wait_until(lambda: copied_bytes(hosts, name) > 0, 60, "the disk is not copied")
    interrupt(program)
    assert program.wait(60) == 1
    hosts.settle(name)
    assert hosts.place(name) == [SOURCE]
    before = records_in(content_of(on_devices.here))[-1]
    wait_until(lambda: records_in(content_of(on_devices.here))[-1] > before, 20, "the guest does not write any more")
    assert str(on_devices.there) in hosts.ldm(TARGET, "list-services")
    view = hosts.view(SOURCE, name)
    assert view is not None
    assert set(hosts.qemus(view["domain"]["uuid"])) == {SOURCE}, "its QEMU is left on t4-2"

    program = on_devices.start("-f")
    _, complaint = program.communicate(timeout=120)
    assert program.returncode == 0, complaint
    assert hosts.place(name) == [TARGET]
    assert hosts.answers(name)
    left = content_of(on_devices.here)
    last = records_in(left)[-1]
    wait_until(
        lambda: records_in(content_of(on_devices.there))[-1] > last, 20, "the guest does not write on the target"
    )
    assert content_of(on_devices.here) == left, "something is written to the device on the source"
    (disk,) = hosts.reports()[-1]["storage"]
    assert (disk["disk"], disk["path"]) == ("vdisk0", str(on_devices.there))
    assert disk["copied_bytes"] >= DATA
    hosts.ldm(TARGET, "stop-domain", "-f", name)
    arrived = content_of(on_devices.there)
    for content in (left, arrived):
        found = records_in(content)
        assert found == list(range(max(1, found[-1] - RECORDS + 1), found[-1] + 1)), "records are missing"
    assert arrived[RECORDS * RECORD_BYTES :] == left[RECORDS * RECORD_BYTES :]


def content_of(device: Path) -> bytes:
    """What is on a block device, around the page cache of this machine, which QEMU does not use."""
    return subprocess.run(
        ["dd", f"if={device}", "bs=1M", "iflag=direct", "status=none"], check=True, capture_output=True
    ).stdout


def copied_bytes(hosts: Hosts, name: str) -> int:
    """Of the disks of a domain that are being copied."""
    operations = hosts.lab.client(SOURCE).get("/operations")
    figures = [one["figures"] for one in operations if one["domain"] == name and one["status"] == "running"]
    return sum(disk["copied_bytes"] for one in figures if one.get("status") == "disks" for disk in one["disks"])


def records_in(disk: bytes) -> list[int]:
    """The numbers of what a guest has written to its disk, sorted."""
    head = disk[: RECORDS * RECORD_BYTES]
    found = [head[at : at + RECORD_BYTES] for at in range(0, len(head), RECORD_BYTES)]
    return sorted(int.from_bytes(one[8:16], "little") for one in found if one.startswith(b"LDPULSE"))
