"""An ``ldmd`` of one's own below a directory, without a lab: domains, and tiny guests that run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ldoms.api.client import Client
from ldoms.api.exchange import SOCKET_VARIABLE
from ldoms.model.errors import HostError, LdomsError

START_S = 60.0
STOP_S = 20.0
_POLL_S = 0.005
CONTROL_VCPUS, CONTROL_MIB = 2, 1024
GUEST_MIB = 128
_CONFIGURATION = """
[host]
name = "bench"
strands_per_cpu = {strands}
confine = false
memory = "{memory_mib}M"
[network]
address = ""
[hypervisor]
accelerator = "tcg"
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A guest image of the lab.

    Attributes:
        disk: on which those of its guests are based; None = it boots without one.
    """

    kernel: Path
    initrd: Path
    boot_args: str
    disk: Path | None = None


def tiny_image() -> Image:
    """The image that fits this checkout.

    Raises:
        HostError: it was not built.
    """
    return lab_image("tiny")


def lab_image(name: str) -> Image:
    """The image of that name that fits this checkout.

    Raises:
        HostError: it was not built.
    """
    listed = run([program("ldoms-lab"), "image", "list", "--json"])
    found = next((one for one in json.loads(listed) if one["name"] == name and one["is_current"]), None)
    if found is None:
        raise HostError(f"there is no guest image '{name}': 'ldoms-lab image build {name}' makes it", code="no-image")
    disk = Path(found["disk"]) if found["disk"] else None
    return Image(Path(found["kernel"]), Path(found["initrd"]), found["boot_args"], disk)


@dataclass(frozen=True, slots=True)
class Solo:
    """One manager below a directory.

    Attributes:
        root: its ``--root``.
        guests: for so many at most it has strands, memory and console ports.
    """

    root: Path
    guests: int

    @property
    def configuration(self) -> str:
        """Its file ``ldmd.toml``."""
        strands = math.ceil((self.guests + CONTROL_VCPUS) / (os.cpu_count() or 1))
        memory_mib = CONTROL_MIB + math.ceil(self.guests * GUEST_MIB / CONTROL_MIB) * CONTROL_MIB
        return _CONFIGURATION.format(strands=strands, memory_mib=memory_mib)

    @property
    def client(self) -> Client:
        """Its API."""
        return Client(self._socket)

    @property
    def environment(self) -> dict[str, str]:
        """Of commands that talk to it."""
        return {**os.environ, SOCKET_VARIABLE: self._socket}

    def ldm(self, *words: str) -> str:
        """Type an `ldm` command, and return what it prints.

        Raises:
            HostError: it failed.
        """
        return run([program("ldm"), *words], self.environment)

    def furnish(self, first_port: int) -> None:
        """Make what guests need; `first_port` is that of the first console."""
        ports = f"port-range={first_port}-{first_port + self.guests - 1}"
        self.ldm("set-vcpu", str(CONTROL_VCPUS), "primary")
        self.ldm("set-memory", f"{CONTROL_MIB}M", "primary")
        self.ldm("add-vcc", ports, "primary-vcc0", "primary")

    def start_guest(self, name: str, image: Image, *arguments: str) -> None:
        """Make a domain from the image, with more kernel arguments, and start it."""
        boot_args = " ".join([image.boot_args, *arguments])
        variables = (f"boot-file={image.kernel}", f"boot-initrd={image.initrd}", f"boot-args={boot_args}")
        self.ldm("add-domain", name)
        self.ldm("set-vcpu", "1", name)
        self.ldm("set-memory", f"{GUEST_MIB}M", name)
        self.ldm("set-variable", *variables, name)
        self.ldm("bind-domain", name)
        self.ldm("start-domain", name)

    def add_domains(self, first: int, last: int) -> None:
        """Make inactive domains with the numbers `first` to `last` - 1."""
        client = self.client
        for number in range(first, last):
            client.post("/domains", {"name": f"bench{number}", "properties": {}})

    @contextlib.contextmanager
    def running(self) -> Iterator[tuple[psutil.Process, float]]:
        """The manager's process while it runs, and the seconds until it first answered. Guests outlive it.

        Raises:
            LdomsError: it does not start.
        """
        etc = self.root / "etc/ldoms"
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "ldmd.toml").write_text(self.configuration)
        begun = time.perf_counter()
        with (self.root / "log").open("a") as log:
            process = subprocess.Popen([program("ldmd"), "--root", str(self.root)], stdout=log, stderr=log)
        try:
            self._wait(process, begun)
            yield psutil.Process(process.pid), time.perf_counter() - begun
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def guests_end(self) -> Iterator[None]:
        """Whatever happens inside: afterwards no guest of this manager runs. It does not run itself then."""
        try:
            yield
        finally:
            with contextlib.suppress(LdomsError), self.running():
                self.ldm("stop-domain", "-f", "-a")
            for pid_file in self.root.glob("run/ldoms/domains/*/qemu.pid"):
                with contextlib.suppress(OSError, ValueError, psutil.Error):  # it has gone, as it should
                    process = psutil.Process(int(pid_file.read_text()))
                    if str(pid_file) in process.cmdline():
                        process.kill()
                        process.wait(STOP_S)

    @property
    def _socket(self) -> str:
        return str(self.root / "run/ldoms/ldmd.sock")

    def _wait(self, process: subprocess.Popen[bytes], begun: float) -> None:
        client = self.client
        while True:
            try:
                client.get("/domains")
                return
            except LdomsError as error:
                if process.poll() is not None:
                    last = (self.root / "log").read_text().strip().splitlines()[-1:]
                    raise HostError(f"ldmd does not start: {''.join(last)}", code="no-manager") from error
                if time.perf_counter() - begun > START_S:
                    raise
                time.sleep(_POLL_S)


def program(name: str) -> str:
    """A program of ours, from the environment that this one runs in."""
    return str(Path(sys.executable).with_name(name))


def run(words: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a command, and return what it prints.

    Raises:
        HostError: it failed; the message has what it said.
    """
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip() or f"status {done.returncode}"
        raise HostError(f"'{' '.join(words)}' failed: {reason}", code="command-failed")
    return done.stdout
