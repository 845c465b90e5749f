"""The contracts of all interfaces, kept by the real things: QEMU, the kernel's network, image files, PAM."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pyroute2 import netns

from contracts import engine, network, storage
from ldoms.hypervisor.confinement import Confinement
from ldoms.hypervisor.engine import GuestSpec, Placement
from ldoms.hypervisor.probe import Probe, probe
from ldoms.hypervisor.qemu import QemuEngine
from ldoms.lab import images
from ldoms.lab.spaces import Space, make_space
from ldoms.model.domain import CpuModel, Machine
from ldoms.model.services import VirtualSwitch
from ldoms.net.linux import LinuxNetwork
from ldoms.net.network import switch_device
from ldoms.storage.files import FileStorage
from support import need_root_and_qemu

Check = Callable[[Any], Awaitable[None]]
CHECK_S = 90.0


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """What the QEMU of this machine can do under TCG."""
    need_root_and_qemu()
    return asyncio.run(probe("tcg", (), tmp_path_factory.mktemp("probe") / "kvm.json"))


class QemuBench:
    """Two hosts that are directories; the tiny guest without a network."""

    def __init__(self, probed: Probe, directory: Path) -> None:
        self._probed, self._directory = probed, directory
        self._image = images.build("tiny")
        self._numbers = itertools.count(1)
        self._engines: list[QemuEngine] = []
        self._specs: list[GuestSpec] = []
        self.engine, self.other = self._new_engine(), self._new_engine()

    def _new_engine(self) -> QemuEngine:
        made = QemuEngine(self._probed.facts, self._probed.cpus, Confinement())
        self._engines.append(made)
        return made

    def spec(self) -> GuestSpec:
        uuid = str(uuid4())
        facts = self._probed.facts
        model, *features = self._probed.cpus["native"]
        spec = GuestSpec(
            uuid=uuid,
            name=f"ldg{next(self._numbers)}",
            directory=self._directory / "a" / uuid[:8],
            machine=Machine(facts.default_machine_type, "tcg", CpuModel(model, tuple(features)), facts.version),
            vcpus=1,
            memory_mib=96,
            placement=Placement((frozenset(os.sched_getaffinity(0)),)),
            kernel=self._image.kernel,
            initrd=self._image.initrd,
            boot_args=f"{self._image.boot_args} pulse.fill=16",
        )
        self._specs.append(spec)
        return spec

    def away(self, spec: GuestSpec) -> GuestSpec:
        made = replace(spec, directory=self._directory / "b" / spec.uuid[:8], incoming=True)
        self._specs.append(made)
        return made

    def address(self) -> tuple[str, int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return "127.0.0.1", int(free.getsockname()[1])

    async def restarted(self) -> QemuEngine:
        await self.engine.close()
        return self._new_engine()

    async def end(self) -> None:
        """End every guest, whatever became of the check."""
        for made in self._engines:
            await made.close()
        ender = self._new_engine()
        for spec in self._specs:
            guest = await ender.attach(spec.uuid, spec.name, spec.directory)
            if guest is not None:
                await guest.quit()
        await ender.close()


@asynccontextmanager
async def qemu_bench(probed: Probe) -> AsyncIterator[QemuBench]:
    directory = Path(tempfile.mkdtemp(prefix="ldc-", dir="/tmp"))
    made = QemuBench(probed, directory)
    try:
        yield made
    finally:
        await made.end()
        shutil.rmtree(directory)


@pytest.mark.parametrize("check", engine.CHECKS, ids=lambda check: check.__name__)
async def test_engine(check: Check, probed: Probe) -> None:
    """See the docstring of each check."""
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        await check(bench)


@pytest.fixture
def space() -> Iterator[Space]:
    """Namespaces of a test's own."""
    need_root_and_qemu()
    made = make_space()
    try:
        yield made
    finally:
        made.end()


class LinuxBench:
    """The network of a namespace."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.network = LinuxNetwork()
        space.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1"])

    def taps_of(self, switch: VirtualSwitch) -> set[str]:
        links = json.loads(self._space.run(["ip", "-j", "link", "show", "master", switch_device(switch)]))
        return {link["ifname"] for link in links}

    def has_switch(self, switch: VirtualSwitch) -> bool:
        links = json.loads(self._space.run(["ip", "-j", "link"]))
        return switch_device(switch) in {link["ifname"] for link in links}


@pytest.mark.parametrize("check", network.CHECKS, ids=lambda check: check.__name__)
async def test_network(check: Check, space: Space) -> None:
    """See the docstring of each check. The implementation talks to the kernel from threads: those are inside."""
    inside = ThreadPoolExecutor(1, initializer=lambda: netns.setns(f"/proc/{space.pid}/ns/net"))
    asyncio.get_running_loop().set_default_executor(inside)
    async with asyncio.timeout(CHECK_S):
        await check(LinuxBench(space))


class FileBench:
    """Two hosts that are one, with real images in a directory."""

    def __init__(self, directory: Path) -> None:
        self.ours, self.theirs = FileStorage(), FileStorage()
        self.qcow2, self.raw = str(directory / "a.qcow2"), str(directory / "b.raw")
        self.missing = str(directory / "missing")
        for name, image_format in ((self.qcow2, "qcow2"), (self.raw, "raw")):
            subprocess.run(["qemu-img", "create", "-q", "-f", image_format, name, "1G"], check=True)


@pytest.mark.parametrize("check", storage.CHECKS, ids=lambda check: check.__name__)
async def test_storage(check: Check, tmp_path: Path) -> None:
    """See the docstring of each check."""
    need_root_and_qemu()
    async with asyncio.timeout(CHECK_S):
        await check(FileBench(tmp_path))


_ASK_PAM = """
import asyncio, sys
from ldoms.auth.passwords import PamPasswords
print(asyncio.run(PamPasswords("other").check(sys.argv[1], sys.argv[2])))
"""


def test_passwords(space: Space, tmp_path: Path) -> None:
    """PAM knows the right password of a user, a wrong one, and nobody of another name."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input="secret\n", capture_output=True, text=True, check=True
    ).stdout.strip()
    for name, line in (
        ("passwd", "tracy:x:64999:64999::/nonexistent:/bin/sh"),
        ("shadow", f"tracy:{hashed}:19000:0:99999:7:::"),
    ):
        (tmp_path / name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
        space.run(["mount", "--bind", str(tmp_path / name), f"/etc/{name}"])
    for user, password, expected in (
        ("tracy", "secret", "True"),
        ("tracy", "guess", "False"),
        ("tracy", "", "False"),
        ("nobody-of-that-name", "secret", "False"),
    ):
        assert space.run([sys.executable, "-c", _ASK_PAM, user, password]).strip() == expected, (user, password)
