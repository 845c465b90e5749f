"""The contracts of all interfaces, kept by the real things: QEMU, the kernel's network, image files, PAM."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pyroute2 import netns

from contracts import engine, neighbours, network, passwords, storage
from ldoms.hypervisor.command_line import LOG_FILE, PID_FILE
from ldoms.hypervisor.confinement import Confinement
from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.probe import Probe, probe
from ldoms.hypervisor.process import Process
from ldoms.hypervisor.qemu import QemuEngine
from ldoms.hypervisor.qemu_migration import HANDSHAKE_S
from ldoms.hypervisor.specs import DeviceSpec, DiskSpec, GuestSpec, NetworkSpec, Placement
from ldoms.hypervisor.states import MigrationEnd, MigrationStatus, RunState
from ldoms.lab import images
from ldoms.lab.spaces import Space, make_space
from ldoms.migration.copying import make_run, stop_copy
from ldoms.model.domain import CpuModel, Machine
from ldoms.model.errors import HostError, RequestError
from ldoms.model.services import VirtualSwitch
from ldoms.net.linux import LinuxNetwork
from ldoms.net.multicast import MulticastNeighbours
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
        first, second, *_ = (*sorted(os.sched_getaffinity(0)), -1)
        self.cpus = (first, second)
        self._probed, self._directory = probed, directory
        self._image = images.build("tiny")
        self._numbers = itertools.count(1)
        self._engines: list[QemuEngine] = []
        self._specs: list[GuestSpec] = []
        self._tap = f"ldc{os.getpid()}"
        self.engine, self.other = self._new_engine(), self._new_engine()

    def _new_engine(self) -> QemuEngine:
        made = QemuEngine(self._probed.facts, self._probed.cpus, Confinement())
        self._engines.append(made)
        return made

    def spec(self) -> GuestSpec:
        uuid = str(uuid4())
        facts = self._probed.facts
        model, *features = self._probed.cpus["native"]
        cpu = CpuModel(model, tuple(features))
        spec = GuestSpec(
            uuid=uuid,
            name=f"ldg{next(self._numbers)}",
            directory=self._directory / "a" / uuid[:8],
            machine=Machine(
                *(facts.default_machine_type, "tcg", cpu, facts.version, engine.MAX_VCPUS), panic_device=True
            ),
            vcpus=1,
            memory_mib=128,
            placement=Placement((frozenset(os.sched_getaffinity(0)),)),
            kernel=self._image.kernel,
            initrd=self._image.initrd,
            boot_args=f"{self._image.boot_args} pulse.fill=16",
        )
        self._specs.append(spec)
        return spec

    def core(self) -> Path:
        return self._directory / "core"

    def away(self, spec: GuestSpec) -> GuestSpec:
        made = replace(spec, directory=self._directory / "b" / spec.uuid[:8], incoming=True)
        self._specs.append(made)
        return made

    def devices(self) -> tuple[DiskSpec, DeviceSpec]:
        image = self._directory / "disk.raw"
        with image.open("ab") as file:
            file.truncate(1 << 20)
        self._change_tap("add")
        disk = DiskSpec("disk@0", image, False, "raw", False, False, 0, 1)
        return disk, NetworkSpec("network@0", self._tap, "00:14:4f:f8:00:01", 1500, 1)

    def address(self) -> tuple[str, int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return "127.0.0.1", int(free.getsockname()[1])

    async def restarted(self) -> QemuEngine:
        await self.engine.close()
        return self._new_engine()

    async def booted(self, guest: Guest) -> None:
        await guest.resume()
        reader, writer = await asyncio.open_unix_connection(guest.console)
        try:
            await reader.readuntil(b"pulse count")
        except asyncio.IncompleteReadError as error:
            said = (guest.directory / LOG_FILE).read_text(errors="replace")
            raise AssertionError(f"the guest ended while it booted: {error.partial!r}; QEMU: {said!r}") from error
        finally:
            writer.close()

    async def memory(self, guest: Guest) -> bytes:
        """What a guest that stands still has in the memory that it was started with."""
        file = self._directory / "memory"
        size = next(spec.memory_mib for spec in self._specs if spec.directory == guest.directory) << 20
        await guest._monitor.execute("pmemsave", {"val": 0, "size": size, "filename": str(file)}, limit_s=30)  # type: ignore[attr-defined]
        return file.read_bytes()

    def kill(self, guest: Guest) -> None:
        os.kill(self._pid(guest), signal.SIGKILL)

    def hang(self, guest: Guest) -> None:
        os.kill(self._pid(guest), signal.SIGSTOP)

    def go_on(self, guest: Guest) -> None:
        os.kill(self._pid(guest), signal.SIGCONT)

    def whereabouts(self, guest: Guest) -> tuple[list[set[int]], set[int]]:
        vcpus: dict[str, set[int]] = {}
        others: set[int] = set()
        for thread in Path(f"/proc/{self._pid(guest)}/task").iterdir():
            name, cpus = (thread / "comm").read_text(), os.sched_getaffinity(int(thread.name))
            if name.startswith("CPU "):
                vcpus[name] = cpus
            else:
                others |= cpus
        return [vcpus[name] for name in sorted(vcpus)], others

    def _pid(self, guest: Guest) -> int:
        return int((guest.console.parent / PID_FILE).read_text())

    def copies(self, names: Sequence[str]) -> tuple[tuple[DiskSpec, ...], tuple[DiskSpec, ...]]:
        sides = []
        for side in ("a", "b"):
            (self._directory / side).mkdir(exist_ok=True)
            for name in names:
                with (self._directory / side / f"{name}.raw").open("wb") as file:
                    if side == "a":
                        file.write(b"\xaa" * (4 << 20))
                    file.truncate(8 << 20)
            sides.append(
                tuple(
                    DiskSpec(name, self._directory / side / f"{name}.raw", False, "raw", False, False, port, port + 1)
                    for port, name in enumerate(names)
                )
            )
        return sides[0], sides[1]

    async def write(self, guest: Guest, device: str, mark: int) -> None:
        # As the device itself would: through everything that stands before its back end.
        place = f"/machine/peripheral/{device.replace('@', '')}-device/virtio-backend"
        command = f'qemu-io -d {place} "write -P {mark} 0 64k"'
        said = await guest._monitor.execute(  # type: ignore[attr-defined]
            "human-monitor-command", {"command-line": command}, limit_s=30
        )
        assert "rror" not in said, said

    async def read(self, guest: Guest, disk: DiskSpec) -> int:
        assert disk.path is not None
        return disk.path.read_bytes()[0]

    def stand_in(self) -> NetworkSpec:
        self._change_tap("add")
        return NetworkSpec("network@0", f"{self._tap}b", "00:14:4f:f8:00:09", 9000, 1)

    def _change_tap(self, verb: str) -> None:
        """Add both, unless they are there; or remove them, if they are."""
        for name in (self._tap, f"{self._tap}b"):
            subprocess.run(["ip", "tuntap", verb, "dev", name, "mode", "tap"], check=False, capture_output=True)

    async def end(self) -> None:
        """End every guest, whatever became of the check."""
        for made in self._engines:
            await made.close()
        for spec in self._specs:
            if process := Process.find(spec.directory / PID_FILE, mark=spec.uuid):
                process.kill()
                await process.gone.wait()
        self._change_tap("del")


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
    if check is engine.check_threads_are_where_they_belong and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        await check(bench)


async def test_a_guest_that_qemu_refuses_leaves_nothing(probed: Probe) -> None:
    """The error has QEMU's own words, and there is no process."""
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        spec = bench.spec()
        impossible = replace(spec, machine=replace(spec.machine, type="pc-q35-0.1"))
        with pytest.raises(HostError, match=r"LDom ldg1 cannot be started: QEMU says: .*machine type") as caught:
            await bench.engine.start(impossible)
        assert caught.value.code == "qemu-refused"
        assert await bench.engine.attach(spec.uuid, spec.name, spec.directory) is None
        assert await (await bench.engine.start(spec)).state() is RunState.PAUSED


async def test_a_path_too_long_for_sockets_is_refused(probed: Probe) -> None:
    """Before QEMU is started, which would say so in words that help nobody."""
    async with qemu_bench(probed) as bench:
        spec = bench.spec()
        deep = replace(spec, directory=spec.directory / ("x" * 100))
        with pytest.raises(HostError, match="too long for Unix sockets: use a shorter --root") as caught:
            await bench.engine.start(deep)
        assert caught.value.code == "path-too-long"


async def test_what_arrives_is_what_was_there(probed: Probe) -> None:
    """To the last page, after many passes over the memory of a busy guest whose machine has room for more.

    With the room before the first memory, QEMU 10.0 under TCG forgot pages.
    """
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        spec = engine.with_room(bench.spec())
        busy = f"{spec.boot_args} pulse.size=32 pulse.rate=96"
        spec = replace(spec, vcpus=2, placement=Placement((spec.placement.vcpus[0],) * 2), boot_args=busy)
        source = await bench.engine.start(spec)
        await bench.booted(source)
        plan = replace(engine.PLAN, max_bandwidth_bytes_s=48 << 20, downtime_limit_s=0.001)
        ends = await engine.make_ends(bench, plan=plan, source=source, away=bench.away(spec))
        await ends.source.send(ends.host, ends.port)
        while (await source.progress()).passes < 6:
            await asyncio.sleep(0.02)
        await source.set_downtime_limit(10)
        assert await engine.until(source, {"pre-switchover"}.__contains__)
        await source.continue_switchover()
        assert await engine.until(ends.target, engine.ENDED.__contains__) == engine.MigrationStatus.COMPLETED
        sent, arrived = await bench.memory(source), await bench.memory(ends.target)
        pages = range(0, len(sent), 4096)
        assert [hex(at) for at in pages if sent[at : at + 4096] != arrived[at : at + 4096]] == []


async def test_a_target_that_says_nothing_is_cut_off(probed: Probe) -> None:
    """Before TLS is agreed on QEMU waits for it with all that it has, the guest's virtual CPUs included."""
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        guest = await bench.engine.start(bench.spec())
        await bench.booted(guest)
        await guest.set_migration(MigrationEnd.SEND, engine.PLAN, engine.KEY)
        mute = socket.create_server(("127.0.0.1", 0))
        with mute, pytest.raises(HostError, match="says nothing on it") as caught:
            await guest.send(*mute.getsockname())
        assert caught.value.code == "target-mute"
        await stop_copy(guest)
        await make_run(guest)
        used = guest.cpu_seconds()
        await asyncio.sleep(1)
        assert guest.cpu_seconds() > used


async def test_a_sender_whose_connection_says_nothing_does_not_hold_the_guest(probed: Probe) -> None:
    """QEMU waits for it without its virtual CPUs; the copy can be stopped, and the next one succeeds."""
    plan = replace(engine.PLAN, channels=1)
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        spec = bench.spec()
        source = await bench.engine.start(spec)
        await bench.booted(source)
        ends = await engine.make_ends(bench, plan=plan, source=source, away=bench.away(spec))
        async with Relay().towards(ends.host, ends.port) as address:
            await source.send(*address)
            assert (await source.progress()).status == MigrationStatus.SETUP
            used = sum(source.cpu_seconds())
            await asyncio.sleep(1)
            assert sum(source.cpu_seconds()) > used
            began = asyncio.get_running_loop().time()
            await stop_copy(source)
            assert asyncio.get_running_loop().time() - began < 5
        await make_run(source)
        assert (await source.progress()).status in engine.ENDED
        await ends.target.quit()
        again = await engine.make_ends(bench, plan=plan, source=source, away=bench.away(spec))
        assert await again.copy() == MigrationStatus.PRE_SWITCHOVER
        await source.continue_switchover()
        assert await engine.until(again.target, engine.ENDED.__contains__) == MigrationStatus.COMPLETED


class Relay:
    """A way to somewhere for one connection; others are taken, and nothing is said on them."""

    def __init__(self) -> None:
        self.keeps = False
        """What is sent there is taken, and goes no further."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._taken = 0

    @asynccontextmanager
    async def towards(self, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
        """Its own address, while it is there."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._taken += 1
            if self._taken == 1:
                there, back = await asyncio.open_connection(host, port)
                ways = self._carry(reader, back, may_keep=True), self._carry(there, writer)
                self._tasks.update(asyncio.create_task(way) for way in ways)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_keep: bool = False
    ) -> None:
        while data := await reader.read(1 << 16):
            if not (may_keep and self.keeps):
                writer.write(data)
                await writer.drain()


async def test_a_postcopy_that_is_broken_when_all_is_sent_is_lost(probed: Probe) -> None:
    """QEMU 10 goes on when a connection breaks on which it still has to send; not when it waits for a last word."""
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        relay, spec = Relay(), bench.spec()
        source = await bench.engine.start(spec)
        await bench.booted(source)
        ends = await engine.make_ends(bench, plan=engine.IN_PARTS, source=source, away=bench.away(spec))
        async with relay.towards(ends.host, ends.port) as (host, port):
            await engine.go_over_in_parts(replace(ends, host=host, port=port))
            relay.keeps = True
            await source.set_bandwidth(0)
            while (await source.progress()).remaining_bytes:
                await asyncio.sleep(0.1)
            assert (await source.progress()).status == MigrationStatus.POSTCOPY_ACTIVE
            await source.pause_postcopy()
            assert await engine.until(source, engine.ENDED.__contains__) == MigrationStatus.FAILED


async def test_a_copy_that_never_connected_is_not_in_the_way_of_the_next(probed: Probe) -> None:
    """QEMU 10 goes on connecting after a cancel, and refuses another migration ("duplicate yank instance")."""
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        guest = await bench.engine.start(bench.spec())
        await bench.booted(guest)
        await guest.set_migration(MigrationEnd.SEND, engine.PLAN, engine.KEY)
        with deaf_port() as address:
            await guest.send(*address)
            assert (await guest.progress()).status == MigrationStatus.SETUP
            await stop_copy(guest)
            async with asyncio.timeout(2 + HANDSHAKE_S):
                while True:
                    try:
                        await guest.send(*address)
                        break
                    except HostError:
                        await asyncio.sleep(0.05)
            await stop_copy(guest)
        await make_run(guest)


@contextmanager
def deaf_port() -> Iterator[tuple[str, int]]:
    """A port at which the kernel answers nobody, as its queue is full."""
    with ExitStack() as undo:
        server = undo.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = undo.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()


async def test_a_target_that_says_nothing_gets_no_disks(probed: Probe) -> None:
    """QEMU opens a connection with all that it has, too."""
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        ours, _ = bench.copies(engine.DISKS)
        guest = await bench.engine.start(replace(engine.with_ports(bench.spec()), disks=ours))
        await bench.booted(guest)
        await guest.set_migration(MigrationEnd.SEND, engine.PLAN, engine.KEY)
        mute = socket.create_server(("127.0.0.1", 0))
        with mute, pytest.raises(HostError, match="says nothing on it") as caught:
            await guest.mirror_disks(engine.DISKS, *mute.getsockname(), 0)
        assert caught.value.code == "target-mute"
        await guest.drop_mirrors()
        used = guest.cpu_seconds()
        await asyncio.sleep(1)
        assert guest.cpu_seconds() > used


async def test_what_is_empty_stays_empty(probed: Probe) -> None:
    """The target's images take no more room than the source's, and the rest is the same to the last byte."""
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        copies = await engine.make_copies(bench)
        await copies.begin()
        await copies.until(lambda state: state.is_ready)
        await copies.ends.source.drop_mirrors()
        for ours, theirs in zip(copies.ours, copies.theirs, strict=True):
            assert ours.path is not None
            assert theirs.path is not None
            assert ours.path.read_bytes() == theirs.path.read_bytes()
            assert theirs.path.stat().st_blocks <= ours.path.stat().st_blocks < (5 << 20) // 512


async def test_a_guest_without_an_agent_does_not_answer(probed: Probe) -> None:
    """After the agent's own time, not for ever."""
    async with qemu_bench(probed) as bench, asyncio.timeout(CHECK_S):
        guest = await bench.engine.start(bench.spec())
        assert not await guest.agent.ping()


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
        self.ip("link add up0 type veth peer name up1")
        self.ip("link set up0 up")
        self.ip("link set up1 up")

    def ip(self, words: str) -> str:
        """What `ip` says inside."""
        return self._space.run(["ip", *words.split()])

    def links(self, words: str = "") -> dict[str, dict[str, Any]]:
        """Interfaces by name."""
        return {link["ifname"]: link for link in json.loads(self.ip(f"-j link show {words}"))}

    def taps_of(self, switch: VirtualSwitch) -> set[str]:
        return set(self.links(f"master {switch_device(switch)}"))

    def has_switch(self, switch: VirtualSwitch) -> bool:
        link = self.links().get(switch_device(switch))
        return link is not None and "UP" in link["flags"]

    def way(self, mtu: int) -> str:
        self.ip(f"link add way0 mtu {mtu} type bridge")
        self.ip("link set way0 up")
        self.ip("address add 198.51.100.1/24 dev way0")
        return "198.51.100.2"

    def limits(self, tap: str) -> tuple[int, int]:
        shaper = tap.replace("vnet", "vifb")
        has_way_round = "vifb" in self.tc(f"filter show dev {tap} parent ffff:")
        return self._rate(tap), self._rate(shaper) if has_way_round else 0

    def _rate(self, name: str) -> int:
        (qdisc, *_) = json.loads(self.tc(f"-j qdisc show dev {name} root")) or [{}]
        return int(qdisc["options"]["rate"]) * 8 if qdisc.get("kind") == "tbf" else 0

    def tc(self, words: str) -> str:
        """What `tc` says inside."""
        return self._space.run(["tc", *words.split()])

    def guarded(self) -> set[str]:
        rules = json.loads(self._space.run(["nft", "-j", "list", "ruleset"]))["nftables"]
        chains = {entry["chain"]["name"] for entry in rules if "chain" in entry}
        taps = {name.removeprefix(end) for name in chains for end in ("from-", "to-") if name.startswith(end)}
        assert chains == {f"{end}-{tap}" for tap in taps for end in ("from", "to")} | (
            {"sent", "delivered"} if taps else set()
        )
        return taps

    def plug(self, *, plugged: bool) -> None:
        self.ip(f"link set up1 {'up' if plugged else 'down'}")

    def no_way(self) -> str:
        return "203.0.113.1"


@pytest.fixture
async def linux(space: Space) -> AsyncIterator[LinuxBench]:
    """The implementation talks to the kernel from threads of the loop's executor: those are inside."""
    inside = ThreadPoolExecutor(1, initializer=lambda: netns.setns(f"/proc/{space.pid}/ns/net"))
    asyncio.get_running_loop().set_default_executor(inside)
    async with asyncio.timeout(CHECK_S):
        yield LinuxBench(space)


@pytest.mark.parametrize("check", network.CHECKS, ids=lambda check: check.__name__)
async def test_network(check: Check, linux: LinuxBench) -> None:
    """See the docstring of each check."""
    await check(linux)


async def test_an_uplink_is_taken_and_let_go(linux: LinuxBench) -> None:
    """With the switch's MTU; taps stay when it is changed for another, and it is whole when the switch has gone."""
    linux.ip("link add other0 type veth peer name other1")
    switch = replace(network.SWITCH, net_dev="up0", mtu=9000)
    await linux.network.put_switch(switch)
    await linux.network.put_tap(replace(network.TAP, mtu=9000), switch)
    links = linux.links()
    assert (links["up0"]["master"], links["up0"]["mtu"], links["vsw0"]["mtu"]) == ("vsw0", 9000, 9000)
    await linux.network.put_switch(replace(switch, net_dev="other0"))
    assert set(linux.links("master vsw0")) == {"other0", network.TAP.name}
    await linux.network.remove_tap(network.TAP.name)
    await linux.network.remove_switch(switch)
    links = linux.links()
    assert "vsw0" not in links
    assert "master" not in links["up0"]
    assert "master" not in links["other0"]


async def test_a_bridge_of_the_host_is_joined(linux: LinuxBench) -> None:
    """The way for an uplink with an address: the switch has no bridge of its own, and the host's is left as it is."""
    linux.ip("link add br0 type bridge")
    linux.ip("address add 198.51.100.1/24 dev br0")
    switch = replace(network.SWITCH, net_dev="br0")
    await linux.network.check_uplink("br0")
    await linux.network.put_switch(switch)
    await linux.network.put_tap(network.TAP, switch)
    assert set(linux.links("master br0")) == {network.TAP.name}
    assert "vsw0" not in linux.links()
    await linux.network.remove_tap(network.TAP.name)
    await linux.network.remove_switch(switch)
    assert "198.51.100.1" in linux.ip("address show br0")


@pytest.mark.parametrize(
    ("setup", "code"),
    [
        (("address add 198.51.100.1/24 dev up0",), "uplink-in-use"),
        (("link add br0 type bridge", "link set up0 master br0"), "uplink-taken"),
    ],
)
async def test_an_uplink_that_the_host_needs_is_refused(linux: LinuxBench, setup: tuple[str, ...], code: str) -> None:
    """Taking it would cut the host off."""
    for words in setup:
        linux.ip(words)
    with pytest.raises(RequestError) as caught:
        await linux.network.check_uplink("up0")
    assert caught.value.code == code


async def test_interfaces_of_others_are_left_alone(linux: LinuxBench) -> None:
    """Whatever their names: neither changed nor removed."""
    linux.ip("link add vsw0 type bridge")
    linux.ip(f"link add {network.TAP.name} type veth peer name x1")
    with pytest.raises(HostError, match="needs the interface name vsw0, which something else has") as caught:
        await linux.network.put_switch(network.SWITCH)
    assert caught.value.code == "interface-taken"
    await linux.network.remove_switch(network.SWITCH)
    await linux.network.remove_tap(network.TAP.name)
    assert {"vsw0", network.TAP.name} <= set(linux.links())


class SubnetBench:
    """Two managers in one namespace."""

    def __init__(self) -> None:
        self.neighbours, self.holder = MulticastNeighbours("t4-1"), MulticastNeighbours(neighbours.HOLDER)


@pytest.mark.parametrize("check", neighbours.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("address", ["0.0.0.0", "198.51.100.1"])
async def test_neighbours(check: Check, address: str, linux: LinuxBench) -> None:
    """See the docstring of each check."""
    for words in ("address add 198.51.100.1/24 dev up0", "link set up0 up", "link set up1 up"):
        linux.ip(words)
    bench = SubnetBench()
    try:
        await bench.neighbours.open(address, lambda mac: False)
        await bench.holder.open(address, neighbours.TAKEN.__eq__)
        await check(bench)
    finally:
        bench.neighbours.close()
        bench.holder.close()


@pytest.mark.parametrize("address", ["::", "203.0.113.9", "no address"])
async def test_where_nobody_can_be_heard_is_an_error(address: str, linux: LinuxBench) -> None:
    """Not an IPv4 address, or not one of this host; and the socket is closed."""
    with pytest.raises(OSError, match=r"illegal IP|No such device"):
        await MulticastNeighbours("t4-1").open(address, lambda mac: False)


class FileBench:
    """Two hosts that are one, with real images in a directory."""

    def __init__(self, directory: Path) -> None:
        self.ours, self.theirs = FileStorage(), FileStorage()
        self.qcow2, self.raw = str(directory / "a.qcow2"), str(directory / "b.raw")
        self.missing = str(directory / "missing")
        for name, image_format in ((self.qcow2, "qcow2"), (self.raw, "raw")):
            subprocess.run(["qemu-img", "create", "-q", "-f", image_format, name, "1G"], check=True)

    def write(self, name: str, content: str) -> str:
        path = Path(self.missing).with_name(name)
        path.write_text(content)
        return str(path)

    @contextmanager
    def used(self, path: str) -> Iterator[None]:
        words = ["qemu-io", "-f", "qcow2", path]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
            assert user.stdin
            assert user.stdout
            try:
                user.stdin.write(b"length\n")
                user.stdin.flush()
                assert b"1 GiB" in user.stdout.readline()
                yield
            finally:
                user.stdin.close()


@pytest.mark.parametrize("check", storage.CHECKS, ids=lambda check: check.__name__)
async def test_storage(check: Check, tmp_path: Path) -> None:
    """See the docstring of each check."""
    need_root_and_qemu()
    async with asyncio.timeout(CHECK_S):
        await check(FileBench(tmp_path))


_ASK_PAM = """
import asyncio, json, sys
from ldoms.auth.passwords import PamPasswords
print(asyncio.run(PamPasswords("ldmd").check(*json.load(sys.stdin))))
"""


class PamBench:
    """PAM inside namespaces with an /etc of their own, asked by a process in there."""

    def __init__(self, space: Space, etc: Path) -> None:
        self._space = space
        self.checker = self
        shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
        (etc / "pam.d/ldmd").write_text("auth required pam_unix.so nodelay\naccount required pam_unix.so\n")
        space.run(["mount", "--bind", str(etc), "/etc"])
        for user in (passwords.USER, passwords.LOCKED_USER):
            space.run(["useradd", "--no-create-home", "--no-log-init", user])
            space.run(["chpasswd"], text=f"{user}:{passwords.PASSWORD}\n")
        space.run(["usermod", "--lock", passwords.LOCKED_USER])

    async def check(self, user: str, password: str) -> bool:
        """Ask the real `PamPasswords`."""
        return self._space.run([sys.executable, "-c", _ASK_PAM], text=json.dumps([user, password])) == "True\n"


@pytest.mark.parametrize("check", passwords.CHECKS, ids=lambda check: check.__name__)
async def test_passwords(check: Check, space: Space, tmp_path: Path) -> None:
    """See the docstring of each check."""
    async with asyncio.timeout(CHECK_S):
        await check(PamBench(space, tmp_path / "etc"))
