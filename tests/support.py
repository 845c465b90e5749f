"""A lab for tests: real `ldmd`, real QEMU, two hosts; with what a test wants to ask of them, and to break."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from ldoms.console.log import NAME as CONSOLE_LOG
from ldoms.lab import images
from ldoms.lab import lab as labs
from ldoms.lab.guests import add_guest
from ldoms.lab.lab import CLIENT, HostPlan, Lab
from ldoms.lab.links import Shape

SOURCE, TARGET = "t4-1", "t4-2"
ADMINISTRATOR = labs.USER
COMMAND_S = 300.0
PROMISE = "--max-suspend=3s"
"""Unless a test asks for another: a machine that is shared may stand still for longer than the usual 300 ms itself."""
PATIENCE = 4.0
"""Tests wait so many times as long as a machine of their own would take: they may have to share it, and its disks."""

_ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), timeout=5) as connection:
    connection.sendall(b"hello\\n")
    print(connection.makefile().readline(), end="")
"""


def need_root_and_qemu() -> None:
    """Skip where real hosts cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces, taps and users")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs qemu-system-x86_64: run 'make setup'")


@dataclass
class Hosts:
    """A lab of two hosts, and the gates of their managers."""

    lab: Lab
    gates: Path
    _names: Iterator[int] = field(default_factory=lambda: iter(range(1, 10_000)))
    _standing: str = ""

    # Commands

    def command(self, host: str, *words: str) -> list[str]:
        """The words that run a command on a host."""
        return self.lab.space(host).command(words)

    def run(self, host: str, *words: str, text: str = "", check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, without a terminal."""
        done = subprocess.run(
            self.command(host, *words),
            env=self.lab.environment(host),
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{words} on {host}: {done.stdout}{done.stderr}"
        return done

    def ldm(self, host: str, *words: str) -> str:
        """Run an `ldm` command that must work, and return what it prints."""
        return self.run(host, "ldm", *words, check=True).stdout

    def start(self, host: str, *words: str) -> subprocess.Popen[str]:
        """Start a command on a host, and go on."""
        return subprocess.Popen(
            self.command(host, *words),
            env=self.lab.environment(host),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def migrate(self, domain: str, source: str = SOURCE, *options: str) -> subprocess.CompletedProcess[str]:
        """Migrate a domain to the other host."""
        return self.run(source, *self.migrate_words(domain, source, *options))

    def migrate_words(self, domain: str, source: str = SOURCE, *options: str) -> list[str]:
        """The command that migrates a domain to the other host."""
        target = f"{ADMINISTRATOR}@{other(source)}"
        if not any(option.startswith("--max-suspend") for option in options):
            options = (PROMISE, *options)
        return ["ldm", "migrate-domain", *options, "-p", str(self.lab.password_file), domain, target]

    # What is where

    def view(self, host: str, domain: str) -> dict[str, Any] | None:
        """A domain as a host lists it, or None."""
        views = self.lab.client(host).get("/domains")
        return next((view for view in views if view["domain"]["name"] == domain), None)

    def state(self, host: str, domain: str) -> str:
        """The state of a domain on a host; empty if it is not there."""
        view = self.view(host, domain)
        return str(view["status"]["state"]) if view else ""

    def flags(self, host: str, domain: str) -> str:
        """The flags of a domain on a host; empty if it is not there."""
        view = self.view(host, domain)
        return str(view["status"]["flags"]) if view else ""

    def progress(self, host: str, domain: str) -> int:
        """How far a host says that a domain's migration is, in percent."""
        view = self.view(host, domain)
        migration = view and view["status"]["migration"]
        return int(migration["progress"]) if migration else 0

    def place(self, domain: str) -> list[str]:
        """The hosts that list the domain."""
        return [host for host in self.lab.hosts if self.view(host, domain) is not None]

    def reports(self, host: str = SOURCE) -> list[dict[str, Any]]:
        """The migrations of a host, oldest first."""
        return list(self.lab.client(host).get("/migrations"))

    def ask(self, domain: str) -> tuple[int, int]:
        """Heartbeats and errors of a tiny guest, asked over the network."""
        return self._ask(domain)[:2]

    def ask_memory(self, domain: str) -> int:
        """MiB of memory that the kernel of a tiny guest has, asked over the network."""
        return self._ask(domain)[2]

    def _ask(self, domain: str) -> tuple[int, int, int]:
        words = [sys.executable, "-c", _ASK, self.lab.guests[domain]]
        answer = self.lab.space(CLIENT).run(words, limit_s=20)
        found = re.search(r"count=(\d+) errors=(\d+) memory=(\d+)", answer)
        assert found, f"the guest said {answer!r}"
        return int(found[1]), int(found[2]), int(found[3])

    def qemus(self, uuid: str) -> dict[str, psutil.Process]:
        """The QEMU processes of a domain, by host."""
        found = {}
        for host in self.lab.hosts:
            for process in self.lab.space(host).processes():
                with contextlib.suppress(psutil.Error):
                    if process.name().startswith("qemu-system") and uuid in process.cmdline():
                        found[host] = process
        return found

    # Domains

    def add_guest(self, image: str = "tiny", host: str = SOURCE, **parameters: object) -> str:
        """Make a domain, bound; `image` and `parameters` as `ldoms-lab guest` takes them."""
        name = f"ldg{next(self._names)}"
        self.lab = labs.load(self.lab.name)
        arguments = {key.replace("_", "."): str(value) for key, value in parameters.items()}
        add_guest(
            self.lab, name, image, host=host, vcpus=0, memory="", parameters=arguments, progress=lambda line: None
        )
        self.lab = labs.load(self.lab.name)
        return name

    def boot(self, domain: str, host: str = SOURCE) -> None:
        """Start a domain, and wait until its guest answers."""
        self.ldm(host, "start-domain", domain)
        try:
            wait_until(lambda: self.answers(domain), 60, f"guest {domain} does not answer")
        except AssertionError as error:
            raise AssertionError(f"{error}; its console ends with {self.console_tail(domain, host)!r}") from None
        wait_until(lambda: self.flags(host, domain)[1] == "n", 10, f"the host does not see that {domain} has booted")

    def console_tail(self, domain: str, host: str = SOURCE) -> str:
        """What a guest has said last on its console, as far as that is logged."""
        text = ""
        for log in self.lab.root(host).rglob(f"{domain}/{CONSOLE_LOG}"):
            text += log.read_text(errors="replace")
        return text[-300:]

    def answers(self, domain: str) -> bool:
        """Whether a tiny guest answers over the network."""
        with contextlib.suppress(Exception):
            self.ask(domain)
            return True
        return False

    def running_guest(self) -> tuple[str, str]:
        """A tiny guest that runs, and the host that it runs on; the same one as the last time, wherever it was left."""
        name = self._standing
        if not name or not self.place(name):
            name = self._standing = self.add_guest(pulse_fill=32, pulse_size=8, pulse_rate=4)
        (host,) = self.place(name)
        if self.state(host, name) == "bound":
            self.boot(name, host)
        assert self.state(host, name) == "active"
        return name, host

    @contextlib.contextmanager
    def guest_behind(self, link: Shape, **pulse: int) -> Iterator[str]:
        """A guest of its own that does so much, booted before the link became like that; nothing of either is left."""
        name = self.add_guest(**pulse)
        try:
            self.boot(name)
            self.shape(link)
            yield name
        finally:
            self.shape(Shape())
            self.settle(name)
            self.remove_guest(name)

    def standing_guest(self) -> str:
        """The same, on t4-1."""
        name, host = self.running_guest()
        if host == TARGET:
            assert self.migrate(name, TARGET).returncode == 0
        return name

    def settle(self, domain: str, limit_s: float = 90) -> None:
        """Wait until no migration of a domain is under way."""
        wait_until(
            lambda: not any(self.flags(host, domain)[5:] in ("s", "t", "e") for host in self.lab.hosts),
            limit_s,
            f"the migration of {domain} does not end",
        )

    def remove_guest(self, domain: str) -> None:
        """Remove a domain from wherever it is, whatever it does."""
        for host in self.lab.hosts:
            if self.view(host, domain) is None:
                continue
            if self.state(host, domain) in ("active", "suspended"):
                self.ldm(host, "stop-domain", "-f", domain)
            if self.state(host, domain) == "bound":
                self.ldm(host, "unbind-domain", domain)
            self.ldm(host, "remove-domain", domain)
        for host in self.lab.hosts:
            for volume in (f"{domain}-root", f"{domain}-seed"):
                if volume in self.ldm(host, "list-services"):
                    self.ldm(host, "remove-vdsdev", f"{volume}@primary-vds0")

    # Gates

    def close_gate(self, name: str) -> None:
        """Have the next migration wait at that gate."""
        (self.gates / f"{name}.reached").unlink(missing_ok=True)
        (self.gates / name).touch()

    def wait_at_gate(self, name: str, limit_s: float = 60) -> None:
        """Wait until a migration is at a gate."""
        wait_until((self.gates / f"{name}.reached").exists, limit_s, f"nobody comes to gate {name}")

    def open_gate(self, name: str) -> None:
        """Let everybody pass."""
        (self.gates / name).unlink(missing_ok=True)

    # Breaking things

    def kill_manager(self, host: str) -> None:
        """Kill the manager of a host, as a crash does."""
        labs.stop_manager(self.lab, host, kill=True)

    def start_manager(self, host: str) -> None:
        """Start it again."""
        labs.start_manager(self.lab, host)

    def shape(self, shape: Shape, host: str = "") -> None:
        """Change the link."""
        self.lab = labs.shape(self.lab, host, shape)

    # Proof that nothing is left

    def programs(self, host: str) -> list[str]:
        """The programs that run on a host, by the kernel's short names, which those that are ending still have."""
        names = []
        for process in self.lab.space(host).processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                names.append(process.name())
        return names

    def check_clean(self, *only: str) -> None:
        """Nothing of any guest is left on these hosts, or on any."""
        for host in only or self.lab.hosts:
            names = [view["domain"]["name"] for view in self.lab.client(host).get("/domains")]
            assert names == ["primary"], f"domains are left on {host}: {names}"
            programs = self.programs(host)
            assert not [name for name in programs if name.startswith("qemu")], f"QEMU is left on {host}: {programs}"
            links = self.lab.space(host).run(["ip", "-o", "link"])
            assert "vnet" not in links, f"taps are left on {host}: {links}"
            assert "vifb" not in links, f"limits of taps are left on {host}: {links}"
            tables = self.lab.space(host).run(["nft", "list", "tables"])
            assert "ldoms" not in tables, f"rules are left on {host}: {tables}"
            view = self.lab.client(host).get("/host")
            held = {strand["holder"] for strand in view["strands"]} | {block["holder"] for block in view["memory"]}
            assert held <= {"primary", ""}, f"{host} has reservations left: {held}"
            domains = list((self.lab.root(host) / "run/ldoms/domains").iterdir())
            keys = [path for path in domains if (path / "keys").exists()]
            assert not keys, f"keys are left on {host}: {keys}"
            listening = self.lab.space(host).run(["ss", "-Hltn"])
            assert not re.search(r":81\d\d\b", listening), f"data ports are left on {host}: {listening}"
        beacons = list(self.lab.shared.glob(".ldoms-*"))
        assert not beacons, f"beacons are left: {beacons}"


class Watch:
    """Looks from outside, all the time, at how many QEMUs of a domain use CPU for their virtual CPUs."""

    PERIOD_S = 0.1

    def __init__(self, hosts: Hosts, uuid: str) -> None:
        self._hosts, self._uuid = hosts, uuid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._last: dict[int, float] = {}
        self.both = 0
        """Consecutive looks at which both ran; a switch-over between two looks may show as one."""
        self.longest_both = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """The guest has never run on two hosts."""
        assert self.longest_both <= 1, f"the guest ran on both hosts for {self.longest_both * self.PERIOD_S:.1f} s"

    def _look(self) -> None:
        while not self._stop.wait(self.PERIOD_S):
            running = sum(1 for process in self._hosts.qemus(self._uuid).values() if self._has_run(process))
            self.both = self.both + 1 if running > 1 else 0
            self.longest_both = max(self.longest_both, self.both)

    def _has_run(self, process: psutil.Process) -> bool:
        """Whether its virtual CPUs have used time since the last look."""
        used = 0.0
        with contextlib.suppress(psutil.Error, OSError):
            for thread in process.threads():
                name = Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text()
                if name.startswith("CPU "):
                    used += thread.user_time + thread.system_time
        before, self._last[process.pid] = self._last.get(process.pid, used), used
        return used > before


def other(host: str) -> str:
    """The other host of a pair."""
    return TARGET if host == SOURCE else SOURCE


def wait_until(condition: Callable[[], object], limit_s: float, complaint: str) -> None:
    """Wait until a condition holds.

    Args:
        condition: asked again and again.
        limit_s: by when it holds on a machine that has nothing else to do.
        complaint: what is wrong if it does not.

    Raises:
        AssertionError: it does not, in time.
    """
    deadline = time.monotonic() + limit_s * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{complaint} (within {limit_s * PATIENCE:g} s; {machine_state()})"
        time.sleep(0.05)


def machine_state() -> str:
    """How busy the machine is, in one line, for whoever reads about something that came too late."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    waits = []
    for kind in ("cpu", "io", "memory"):
        with contextlib.suppress(OSError):
            some = Path(f"/proc/pressure/{kind}").read_text().split()[2]
            waits.append(f"{kind} {some.removeprefix('avg60=')} %")
    return f"load {load}" + (f", waited in the last minute for {', '.join(waits)}" if waits else "")


@contextlib.contextmanager
def make_hosts(count: int = 2, plan: HostPlan | None = None) -> Iterator[Hosts]:
    """A lab of a test's own, which leaves nothing behind."""
    need_root_and_qemu()
    images.build("tiny")
    directory = Path(tempfile.mkdtemp(prefix="ldt-", dir="/tmp"))
    directory.chmod(0o711)  # users of a host pass through it on their way to its socket
    gates = directory / "gates"
    gates.mkdir()
    before = {key: os.environ.get(key) for key in ("LDOMS_LABS", "LDOMS_GATES")}
    os.environ |= {"LDOMS_LABS": str(directory), "LDOMS_GATES": str(gates)}
    try:
        hosts = Hosts(labs.up("t", count, plan or HostPlan(strands_per_cpu=8), lambda line: None), gates)
        try:
            yield hosts
            if hosts._standing:
                hosts.remove_guest(hosts._standing)
            hosts.check_clean()
        finally:
            _keep_evidence(hosts)
            labs.down("t")
        check_no_trace(directory)
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        shutil.rmtree(directory, ignore_errors=True)


def check_no_trace(directory: Path) -> None:
    """Nothing on this machine has anything to do with the lab that was there."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(directory) in word for word in process.cmdline()):
                left.append(f"{process.pid} {process.cmdline()[:3]}")
    assert not left, f"processes are left of the lab: {left}"
    assert str(directory) not in Path("/proc/mounts").read_text(), "mounts are left of the lab"
    assert not (directory / "t").exists(), "files are left of the lab"


def interrupt(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C for a command that runs in a lab host."""
    for child in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            if any(word.endswith("/ldm") for word in child.cmdline()[:2]):
                child.send_signal(signal.SIGINT)


def kill_command(process: subprocess.Popen[str]) -> None:
    """Kill a command that runs in a lab host, as losing its terminal may; it may have ended by itself."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    process.kill()


def _keep_evidence(hosts: Hosts) -> None:
    """The logs of the managers, for whoever reads about a failure."""
    kept = Path("build/test-logs")
    kept.mkdir(parents=True, exist_ok=True)
    for host in hosts.lab.hosts:
        log = hosts.lab.root(host) / "ldmd.log"
        if log.exists():
            shutil.copy(log, kept / f"{Path(hosts.lab.directory).parent.name}-{host}.log")


def words_of(text: str) -> Sequence[Sequence[str]]:
    """A table as rows of words."""
    return [line.split() for line in text.splitlines()]
