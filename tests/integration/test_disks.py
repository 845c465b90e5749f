"""Disks of guests that run: added, moved and removed; and what happens when their storage fails for real."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import SOURCE, TARGET, Hosts, kill_command, wait_until

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A raw image, empty."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(MIB)
    return path


def paths(hosts: Hosts, host: str, domain: str) -> list[str]:
    """The lines of the disks in `list -o disk -p`."""
    return [line for line in hosts.ldm(host, "list", "-o", "disk", "-p", domain).splitlines() if "VDISK" in line]


def test_a_disk_comes_and_goes_while_the_guest_runs(hosts: Hosts, image: Path) -> None:
    """It moves along, and can be taken away on the other host. The guest sees it, or it could not let it go."""
    domain = hosts.standing_guest()
    for host in (SOURCE, TARGET):
        hosts.ldm(host, "add-vdsdev", str(image), "hot@primary-vds0")
    try:
        hosts.ldm(SOURCE, "add-vdisk", "hot0", "hot@primary-vds0", domain)
        assert "is attached" in hosts.run(SOURCE, "ldm", "remove-vdsdev", "-f", "hot@primary-vds0").stderr
        assert "vol=hot@primary-vds0" in paths(hosts, SOURCE, domain)[-1]
        done = hosts.migrate(domain)
        assert done.returncode == 0, done.stderr
        hosts.ldm(TARGET, "remove-vdisk", "hot0", domain)
        hosts.ldm(TARGET, "add-vdisk", "hot0", "hot@primary-vds0", domain)
        hosts.ldm(TARGET, "remove-vdisk", "hot0", domain)
        assert hosts.answers(domain)
    finally:
        for host in (SOURCE, TARGET):
            hosts.run(host, "ldm", "remove-vdisk", "-f", "hot0", domain)
            hosts.ldm(host, "remove-vdsdev", "hot@primary-vds0")


def test_a_raw_back_end_is_shared_where_that_was_forced(hosts: Hosts, image: Path) -> None:
    """Two guests have it at once; one that was given it before keeps it to itself, which the other is told."""
    first, second = hosts.standing_guest(), hosts.add_guest()
    hosts.ldm(SOURCE, "add-vdsdev", str(image), "one@primary-vds0")
    try:
        hosts.ldm(SOURCE, "add-vdisk", "both", "one@primary-vds0", first)
        hosts.ldm(SOURCE, "add-vdsdev", "-f", str(image), "two@primary-vds0")
        hosts.ldm(SOURCE, "add-vdisk", "both", "two@primary-vds0", second)
        refused = hosts.run(SOURCE, "ldm", "start-domain", second)
        assert refused.returncode == 1
        assert "another guest has the same back end open. Stop that guest, or" in refused.stderr
        assert "QEMU says" not in refused.stderr
        hosts.ldm(SOURCE, "remove-vdisk", "both", first)
        hosts.ldm(SOURCE, "start-domain", second)
        hosts.ldm(SOURCE, "add-vdisk", "both", "one@primary-vds0", first)
        for name in (first, second):
            assert "MPGROUP" in hosts.ldm(SOURCE, "list", "-o", "disk", name)
        hosts.ldm(SOURCE, "remove-vdisk", "both", first)
        assert hosts.answers(first)
    finally:
        hosts.run(SOURCE, "ldm", "remove-vdisk", "-f", "both", first)
        hosts.remove_guest(second)
        for name in ("one", "two"):
            hosts.run(SOURCE, "ldm", "remove-vdsdev", "-f", f"{name}@primary-vds0")


class Paths:
    """Two files on t4-1 that are paths to one image: each is there for as long as a program of its own runs."""

    def __init__(self, hosts: Hosts, image: Path) -> None:
        self._hosts, self._image = hosts, image
        self._programs: dict[str, subprocess.Popen[str]] = {}

    def file(self, name: str) -> Path:
        """The path of that name."""
        return self._image.with_name(name)

    def open(self, name: str) -> None:
        """Have a path work."""
        self._hosts.run(SOURCE, "umount", "-l", str(self.file(name)))
        self.file(name).touch()
        node = f"driver=file,node-name=image,filename={self._image},locking=off,cache.direct=on"
        export = f"type=fuse,id=export,node-name=image,mountpoint={self.file(name)},writable=on"
        words = ["qemu-storage-daemon", "--blockdev", node, "--export", export]
        self._programs[name] = self._hosts.start(SOURCE, *words)
        size = ["stat", "-c", "%s", str(self.file(name))]
        wait_until(lambda: self._hosts.run(SOURCE, *size).stdout == f"{MIB}\n", 20, f"{name} does not appear")

    def fail(self, name: str) -> None:
        """Every request for it fails from now on: transport endpoint is not connected."""
        kill_command(self._programs.pop(name))
        wait_until(lambda: self._running() == len(self._programs), 20, f"the program behind {name} does not end")

    def _running(self) -> int:
        return sum(program.startswith("qemu-storage") for program in self._hosts.programs(SOURCE))

    def close(self) -> None:
        """Leave nothing."""
        for name in list(self._programs):
            self.fail(name)
        for name in ("one", "two"):
            self._hosts.run(SOURCE, "umount", "-l", str(self.file(name)))


@pytest.fixture
def two_paths(hosts: Hosts, image: Path) -> Iterator[Paths]:
    """Both work."""
    made = Paths(hosts, image)
    try:
        for name in ("one", "two"):
            made.open(name)
        yield made
    finally:
        made.close()


def test_a_disk_survives_the_loss_of_its_paths(hosts: Hosts, two_paths: Paths) -> None:
    """The next path takes over unseen; without any the guest stands still, or is told after the disk's timeout."""
    domain = hosts.add_guest(pulse_disk=1024)
    volumes = [f"{name}@primary-vds0" for name in ("one", "two")]

    def beats() -> int:
        return hosts.ask(domain)[0]

    def goes_on(since: int) -> Callable[[], bool]:
        return lambda: hosts.answers(domain) and beats() > since + 5

    try:
        for name, volume in zip(("one", "two"), volumes, strict=True):
            hosts.ldm(SOURCE, "add-vdsdev", "mpgroup=group1", str(two_paths.file(name)), volume)
        hosts.ldm(SOURCE, "add-vdisk", "vdisk0", volumes[0], domain)
        hosts.boot(domain)
        assert paths(hosts, SOURCE, domain)[0].endswith("mpgroup=group1|id=0|path=one@primary-vds0")
        count, errors = hosts.ask(domain)
        assert errors == 0
        two_paths.fail("one")
        wait_until(goes_on(count), 20, "the other path does not take over")
        assert paths(hosts, SOURCE, domain)[0].endswith("path=two@primary-vds0")
        count, errors = hosts.ask(domain)
        assert errors == 0, "the guest has seen an error although another path was there"
        two_paths.fail("two")
        wait_until(lambda: hosts.state(SOURCE, domain) == "suspended", 20, "the guest does not stand still")
        hosts.kill_manager(SOURCE)
        hosts.start_manager(SOURCE)
        two_paths.open("one")
        wait_until(goes_on(count), 20, "the guest does not go on when its disk is back")
        count, errors = hosts.ask(domain)
        assert errors == 0, "the guest has seen an error although it had to wait for ever"
        hosts.ldm(SOURCE, "set-vdisk", "timeout=1", "vdisk0", domain)
        two_paths.fail("one")
        wait_until(goes_on(count), 20, "the guest is not told of errors")
        assert hosts.ask(domain)[1] > 0
        two_paths.open("two")
        wait_until(lambda: "path=two@" in paths(hosts, SOURCE, domain)[0], 20, "the disk does not come back")
        count, errors = hosts.ask(domain)
        wait_until(goes_on(count), 20, "the guest does not run")
        assert hosts.ask(domain)[1] <= errors + 1, "the disk works again, and the guest sees errors all the same"
    finally:
        hosts.remove_guest(domain)
        for volume in volumes:
            hosts.run(SOURCE, "ldm", "remove-vdsdev", volume)
