"""``ldoms-bench commands``: how long `ldm list` takes, and how `ldmd` bears hundreds of domains.

One ``ldmd`` of its own below a temporary directory, without guests. Cases take turns within a run; every value is kept.
Where libvirt's `virsh` is installed it lists the domains of a ``libvirtd`` that is started for the run: the peer.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ldoms.api.client import Client
from ldoms.api.exchange import SOCKET_VARIABLE
from ldoms.bench.stage import heading, say
from ldoms.model.errors import HostError, LdomsError

FEW, MANY = 3, 500
ADDED_AT = (10, 490)
"""How many domains are there when the time of one more is taken."""
AROUND = 10
START_S = 60.0
CONFIGURATION = """
[host]
name = "bench"
strands_per_cpu = 16
[network]
address = ""
[hypervisor]
accelerator = "tcg"
"""
_PEER = """<domain type="qemu"><name>{name}</name><memory unit="MiB">16</memory><os><type>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>"""


def run_commands(build: Path, rounds: int) -> None:
    """Measure, print a table, and write ``commands.json`` into the directory `build`.

    Raises:
        LdomsError: a command failed.
    """
    heading(f"An ldmd of its own, {FEW} and {MANY} domains, {rounds} rounds")
    with tempfile.TemporaryDirectory(prefix="ldoms-bench-") as directory:
        root = Path(directory)
        (root / "etc/ldoms").mkdir(parents=True)
        (root / "etc/ldoms/ldmd.toml").write_text(CONFIGURATION)
        values: dict[str, list[float]] = {}
        with _ldmd(root) as (client, _, _), _peer(root) as peer:
            _add(client, 1, FEW)
            cases = {f"ldm list, {FEW} domains": _ldm(root), **peer}
            _take_turns(cases, rounds, values)
            times = dict(zip(range(FEW, MANY), _add(client, FEW, MANY), strict=True))
            for count in ADDED_AT:
                values[f"add-domain, {count} domains there, ms"] = [times[count + step] for step in range(AROUND)]
            _take_turns({f"ldm list, {MANY} domains": _ldm(root)}, rounds, values)
        for _ in range(3):
            with _ldmd(root) as (_, started_ms, process):
                values.setdefault(f"ldmd starts, {MANY} domains", []).append(started_ms)
                resident = process.memory_info().rss / (1 << 20)
                values.setdefault(f"ldmd resident, {MANY} domains, MiB", []).append(resident)
    summary = {name: _summary(series) for name, series in values.items()}
    build.mkdir(parents=True, exist_ok=True)
    facts = {"cpus": os.cpu_count(), "load": os.getloadavg(), "unit": "ms, where nothing else is said"}
    (build / "commands.json").write_text(
        json.dumps({"host": facts, "rounds": rounds, "cases": summary}, indent=2) + "\n"
    )
    for name, one in summary.items():
        say(f"{name:<44} {one['median']:>9.1f}  [{one['min']:.1f} .. {one['max']:.1f}]")
    say(f"\nAll values           {build / 'commands.json'}")


def _take_turns(cases: Mapping[str, Callable[[], None]], rounds: int, values: dict[str, list[float]]) -> None:
    for _ in range(rounds):
        for name, command in cases.items():
            values.setdefault(name, []).append(_timed_ms(command))


def _timed_ms(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def _command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Callable[[], None]:
    def run() -> None:
        done = subprocess.run(
            words, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise HostError(f"'{' '.join(words)}' failed: {done.stderr.strip()}", code="command-failed")

    return run


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _ldm(root: Path) -> Callable[[], None]:
    return _command([_program("ldm"), "list"], {SOCKET_VARIABLE: str(root / "run/ldoms/ldmd.sock")})


def _add(client: Client, first: int, last: int) -> list[float]:
    """Make domains up to a number of them, and return the milliseconds that each took."""
    return [
        _timed_ms(lambda number=number: client.post("/domains", {"name": f"bench{number}", "properties": {}}))  # type: ignore[misc]
        for number in range(first, last)
    ]


@contextlib.contextmanager
def _ldmd(root: Path) -> Iterator[tuple[Client, float, psutil.Process]]:
    """A manager, the milliseconds until it answered, and its process."""
    client, begun = Client(str(root / "run/ldoms/ldmd.sock")), time.perf_counter()
    with (root / "log").open("a") as log:
        process = subprocess.Popen([_program("ldmd"), "--root", str(root)], stdout=log, stderr=log)
    try:
        while True:
            try:
                client.get("/domains")
                break
            except LdomsError:
                if process.poll() is not None or time.perf_counter() - begun > START_S:
                    raise
                time.sleep(0.005)
        yield client, (time.perf_counter() - begun) * 1000, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _peer(root: Path) -> Iterator[dict[str, Callable[[], None]]]:
    """``virsh list`` of as many domains, at a ``libvirtd`` with a socket of its own and the driver for QEMU."""
    if os.geteuid() != 0 or not (shutil.which("virsh") and shutil.which("libvirtd")):
        say("no peer: that needs root, virsh and libvirtd")
        yield {}
        return
    home = root / "libvirt"
    home.mkdir()
    (home / "libvirtd.conf").write_text(
        f'unix_sock_dir = "{home}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nunix_sock_group = "root"\n'
    )
    socket, uri = home / "libvirt-sock", f"qemu:///system?socket={home}/libvirt-sock"
    daemon = subprocess.Popen(
        ["libvirtd", "--config", str(home / "libvirtd.conf"), "--pid-file", str(home / "pid"), "--timeout", "600"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_S
        while not socket.exists() and time.monotonic() < deadline and daemon.poll() is None:
            time.sleep(0.05)
        for number in range(FEW):
            described = home / f"{number}.xml"
            described.write_text(_PEER.format(name=f"bench{number}"))
            _command(["virsh", "-c", uri, "define", str(described)])()
        yield {f"virsh list --all, {FEW} domains": _command(["virsh", "-c", uri, "list", "--all"])}
    except HostError as error:
        say(f"no peer: {error.message}")
        yield {}
    finally:
        for number in range(FEW):
            with contextlib.suppress(HostError):
                _command(["virsh", "-c", uri, "undefine", f"bench{number}"])()
        daemon.terminate()
        daemon.wait()


def _summary(series: Sequence[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(series), 2),
        "min": round(min(series), 2),
        "max": round(max(series), 2),
        "values": [round(value, 2) for value in series],
    }


def main_commands(build: Path, rounds: int) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        run_commands(build, rounds)
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0
