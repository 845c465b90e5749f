"""The guest images are built, boot, and do what they promise; real QEMU, without acceleration."""

from __future__ import annotations

import json
import mmap
import os
import queue
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from ldoms.lab import images
from ldoms.lab.images import Image

QEMU = "qemu-system-x86_64"
BOOT_LIMIT_S = 90.0
LIMIT_S = 30.0
PAGE = 4096

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can build a guest image with a disk"),
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed"),
]


class Guest:
    """A guest of one image, its console read line by line."""

    def __init__(self, image: Image, directory: Path, arguments: dict[str, object], words: list[str]) -> None:
        self.qmp_socket = directory / "qmp.sock"
        self.seen: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        machine = [
            QEMU,
            "-nodefaults",
            "-display",
            "none",
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "qemu64",
        ]
        boot = ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.arguments(arguments)]
        talk = ["-serial", "stdio", "-qmp", f"unix:{self.qmp_socket},server=on,wait=off"]
        self.process = subprocess.Popen(
            [*machine, *boot, *talk, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(ValueError):  # closed while it was being read
            for line in self.process.stdout or ():
                self._lines.put(line.decode(errors="replace").rstrip())

    def await_line(self, pattern: str, limit_s: float = LIMIT_S) -> re.Match[str]:
        """The next line of the console that has `pattern`."""
        end = time.monotonic() + limit_s
        while (left := end - time.monotonic()) > 0:
            with suppress(queue.Empty):
                self.seen.append(self._lines.get(timeout=left))
                if match := re.search(pattern, self.seen[-1]):
                    return match
        shown = "\n".join(self.seen[-40:])
        pytest.fail(f"no line with '{pattern}' in {limit_s} s; QEMU: {self.process.poll()}; console:\n{shown}")

    def heartbeat(self, limit_s: float = LIMIT_S) -> dict[str, int]:
        """The next heartbeat of the tiny guest."""
        match = self.await_line(r"^pulse count=(\d+) ms=(\d+) errors=(\d+) dirtied=(\d+)$", limit_s)
        return dict(zip(("count", "ms", "errors", "dirtied"), map(int, match.groups()), strict=True))

    def type(self, line: str) -> None:
        """Send a line to the console."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def press_power_button(self) -> None:
        """As QMP has it."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(LIMIT_S)
            monitor.connect(str(self.qmp_socket))
            stream = monitor.makefile("rw")
            for command in ("qmp_capabilities", "system_powerdown"):
                stream.write(json.dumps({"execute": command}))
                stream.flush()
                while "return" not in json.loads(stream.readline()):
                    pass

    def await_end(self) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(LIMIT_S)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


Start = Callable[..., Guest]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts guests, and ends them."""
    guests: list[Guest] = []

    def start(image: Image, arguments: dict[str, object], *words: str) -> Guest:
        guests.append(Guest(image, tmp_path, arguments, list(words)))
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The tiny image, built now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LDOMS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return images.build("tiny")


@pytest.fixture(scope="module")
def postgres() -> Image:
    """The PostgreSQL image, built if this machine does not have it yet."""
    return images.build("postgres")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# ---- tiny ------------------------------------------------------------------------------------------------------


def test_tiny_is_the_same_bytes_every_time(tiny: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts that build it from the same packages can migrate guests of it: they boot the same files."""
    monkeypatch.setenv("LDOMS_CACHE", str(tmp_path))
    again = images.build("tiny")
    assert again.directory != tiny.directory
    assert again.initrd.read_bytes() == tiny.initrd.read_bytes()
    assert again.kernel.read_bytes() == tiny.kernel.read_bytes()
    assert again.packages == tiny.packages


def test_tiny_counts_and_dirties_at_its_rate(tiny: Image, start: Start) -> None:
    """Every heartbeat is there once, nothing is wrong, and the pages rewritten are those asked for."""
    parameters = {"pulse.fill": 16, "pulse.size": 8, "pulse.rate": 16, "pulse.period": 50}
    guest = start(tiny, parameters, "-m", "128")
    beats = [guest.heartbeat(BOOT_LIMIT_S), *(guest.heartbeat() for _ in range(60))]
    assert [beat["count"] for beat in beats] == list(range(1, 62))
    assert {beat["errors"] for beat in beats} == {0}
    first, last = beats[0], beats[-1]
    rate = (last["dirtied"] - first["dirtied"]) * PAGE * 1000 / (last["ms"] - first["ms"]) / 2**20
    assert 8 < rate < 20, beats
    guest.press_power_button()
    guest.await_line("pulse powering off")
    assert guest.await_end() == 0


def test_tiny_finds_pages_that_are_not_its_own(tiny: Image, start: Start, tmp_path: Path) -> None:
    """One changed bit, an older page and a page in place of another are one error each."""
    memory = tmp_path / "memory"
    backend = f"memory-backend-file,id=ram,size=128M,share=on,mem-path={memory}"
    parameters = {"pulse.fill": 16, "pulse.size": 8, "pulse.rate": 2}
    guest = start(tiny, parameters, "-m", "128", "-object", backend, "-machine", "memory-backend=ram")
    guest.heartbeat(BOOT_LIMIT_S)

    with memory.open("r+b") as file, mmap.mmap(file.fileno(), 0) as ram:

        def find(index: int, generation: int) -> int:
            """Where a page is: it begins so, and goes on."""
            start = struct.pack("<QQ", index, generation)
            places = range(0, len(ram), PAGE)
            return next(at for at in places if ram[at : at + 16] == start and any(ram[at + 16 : at + PAGE]))

        # The last page that is rewritten, put back as it was before the first round of four seconds has ended.
        place = find(2047, 0)
        stale = ram[place : place + PAGE]
        while (beat := guest.heartbeat())["dirtied"] < 2048:
            pass
        assert beat["errors"] == 0
        ram[place : place + PAGE] = stale
        guest.await_line("wrong page: index=2047 generation=1 found index=2047 generation=0")

        filled_once = 2**64 - 1
        ram[find(100, filled_once) + 2000] ^= 1
        doubled, other = find(200, filled_once), find(300, filled_once)
        ram[doubled : doubled + PAGE] = ram[other : other + PAGE]
        for _ in range(2):
            guest.type("check")
            assert guest.await_line(r"checked pages=(\d+) errors=(\d+)").groups() == ("4096", "3")


def test_tiny_answers_over_tcp(tiny: Image, start: Start) -> None:
    """Every line comes back with the count of heartbeats and its memory, on one connection that stays open."""
    port = free_port()
    nic = f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:7"
    guest = start(
        tiny, {"pulse.ip": "10.0.2.15/24", "pulse.gateway": "10.0.2.2"}, "-m", "128", "-nic", nic, "-no-reboot"
    )
    guest.heartbeat(BOOT_LIMIT_S)
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        stream = connection.makefile("rw")
        counts = []
        for line in ("hello", "", "two words"):
            stream.write(f"{line}\n")
            stream.flush()
            match = re.fullmatch(
                rf"{line} count=(\d+) errors=0 memory=(\d+) dirtied=\d+ durable=0 boot=-\n", stream.readline()
            )
            assert match
            counts.append(int(match[1]))
            guest.heartbeat()
        assert counts == sorted(counts)
        assert counts[0] > 0
        assert 64 < int(match[2]) <= 128, "its memory in MiB"


def test_tiny_obeys_its_console(tiny: Image, start: Start) -> None:
    """A restart counts from one again, a crash stays crashed."""
    guest = start(tiny, {}, "-m", "128")
    guest.heartbeat(BOOT_LIMIT_S)
    guest.type("echo hello there")
    guest.await_line("^hello there$")
    guest.type("reboot")
    guest.await_line(r"^pulse count=1 ", BOOT_LIMIT_S)
    guest.type("crash")
    guest.await_line("Kernel panic")
    assert guest.process.poll() is None


def test_tiny_writes_every_heartbeat_to_its_disk(tiny: Image, start: Start, tmp_path: Path) -> None:
    """What was printed is on the disk, each record in its sector and all of one boot."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(2**20))
    drive = ["-drive", f"file={disk},format=raw,if=none,id=d", "-device", "virtio-blk-pci,drive=d"]
    guest = start(tiny, {"pulse.disk": 1024, "pulse.period": 20}, "-m", "128", *drive)
    guest.heartbeat(BOOT_LIMIT_S)
    for _ in range(30):
        last = guest.heartbeat()
    assert last["errors"] == 0
    guest.type("poweroff")
    assert guest.await_end() == 0
    content = disk.read_bytes()
    records = [struct.unpack("<8sQ36s", content[at : at + 52]) for at in range(512, 512 * (last["count"] + 1), 512)]
    assert [count for _, count, _ in records] == list(range(1, last["count"] + 1))
    assert {magic for magic, _, _ in records} == {b"LDPULSE\0"}
    assert len({boot_id for _, _, boot_id in records}) == 1


def test_tiny_says_when_memory_does_not_suffice(tiny: Image, start: Start) -> None:
    """Rather than being killed for it: the console names the parameters, and the guest ends."""
    guest = start(tiny, {"pulse.fill": 1000}, "-m", "128")
    guest.await_line("pulse cannot go on: pulse.fill and pulse.size are more than the free memory", BOOT_LIMIT_S)
    assert guest.await_end() == 0


# ---- postgres --------------------------------------------------------------------------------------------------


class Database:
    """A PostgreSQL guest on a disk of its own, reached through a port of this host."""

    def __init__(self, image: Image, start: Start, directory: Path) -> None:
        self.disk = directory / "disk.qcow2"
        self.port = free_port()
        self.agent_socket = directory / "agent.sock"
        self._image, self._start = image, start
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image.disk), str(self.disk)]
        subprocess.run(overlay, check=True, timeout=LIMIT_S)

    def boot(self) -> Guest:
        """Start it and wait until it answers."""
        words = ["-m", "768", "-smp", "2"]
        words += ["-drive", f"file={self.disk},if=virtio,cache=unsafe"]
        words += ["-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self.port}-:5432"]
        words += ["-chardev", f"socket,id=agent,path={self.agent_socket},server=on,wait=off"]
        words += ["-device", "virtio-serial-pci"]
        words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        address = {"ldoms.ip": "10.0.2.15/24", "ldoms.gateway": "10.0.2.2", "ldoms.hostname": "ldg1"}
        guest = self._start(self._image, dict(address), *words)
        end = time.monotonic() + BOOT_LIMIT_S
        while self._query("SELECT 1").returncode != 0:
            assert time.monotonic() < end, "\n".join(guest.seen)
            assert guest.process.poll() is None
            time.sleep(0.2)
        return guest

    def query(self, statement: str) -> str:
        """What the statement gives, columns separated by bars."""
        result = self._query(statement)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def _query(self, statement: str) -> subprocess.CompletedProcess[str]:
        words = [
            "psql",
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "postgres",
            "-At",
            "-c",
            statement,
            "bench",
        ]
        environment = os.environ | {"PGCONNECT_TIMEOUT": "3"}
        return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, env=environment)

    def ask_agent(self, *commands: Mapping[str, object]) -> list[object]:
        """What the guest agent answers to each command but the last, which may end the guest."""
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(LIMIT_S)
            agent.connect(str(self.agent_socket))
            stream = agent.makefile("rw")
            answers = []
            for command in commands:
                stream.write(json.dumps(command) + "\n")
                stream.flush()
                if command is not commands[-1]:
                    answers.append(json.loads(stream.readline())["return"])
            return answers


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_postgres_serves_and_stops_cleanly(postgres: Image, start: Start, tmp_path: Path) -> None:
    """It answers with the settings promised; the agent and the power button both stop the server first."""
    database = Database(postgres, start, tmp_path)
    guest = database.boot()
    names = ("data_checksums", "jit", "max_connections", "max_wal_size", "shared_buffers", "track_io_timing")
    settings = "||'|'||".join(f"current_setting('{name}')" for name in names)
    assert database.query(f"SELECT {settings}") == "on|off|200|2GB|256MB|on"
    extensions = database.query("SELECT string_agg(extname, ' ' ORDER BY extname) FROM pg_extension")
    assert extensions == "pg_stat_statements pg_wait_sampling pg_walinspect plpgsql"
    assert int(database.query("SELECT count(*) FROM pg_stat_statements")) > 0
    database.query("SELECT pg_sleep(0.3)")
    assert int(database.query("SELECT count(*) FROM pg_wait_sampling_profile WHERE event = 'PgSleep'")) == 1
    assert database.query("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'bench'") == "postgres"
    database.query("CREATE TABLE kept AS SELECT 42 AS answer")

    sync = {"execute": "guest-sync", "arguments": {"id": 4711}}
    assert database.ask_agent(sync, {"execute": "guest-ping"}, {"execute": "guest-shutdown"}) == [4711, {}]
    assert guest.await_end() == 0

    guest = database.boot()
    assert database.query("SELECT answer FROM kept") == "42"
    log = database.query("SELECT pg_read_file('/var/log/postgresql/postgresql.log')")
    assert "database system is shut down" in log
    assert "not properly shut down" not in log
    guest.press_power_button()
    assert guest.await_end() == 0


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_postgres_has_a_shell_on_its_console(postgres: Image, start: Start, tmp_path: Path) -> None:
    """Whoever presses Enter is root of a guest that has the name it was given, and may restart it."""
    guest = Database(postgres, start, tmp_path).boot()
    guest.type("")
    guest.type("hostname")
    guest.await_line("^ldg1$")
    guest.type("shutdown -r now")
    guest.await_line("reboot: Restarting system")
