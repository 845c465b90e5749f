"""``python -m ldoms.bench.peers.hand``: runs commands on a host of the lab, and takes their time there.

It reads a JSON line for each wish, and writes one for each answer. Its own start, and the way into the host's
namespaces, are so not part of any figure. It ends with its input, and everything that it started in the background.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

QEMU = "qemu-system-x86"
"""As the kernel has the name of the process, which is cut."""
SAMPLE_S, LOOK_S = 0.02, 0.2
"""How often CPU times are read; how often it is looked for new processes."""
CALL_OFF_S = 60.0
"""A command that was called off may take so long to end."""
ASK_S = 1.0


def sent_bytes(table: str, device: str) -> int:
    """What a device has sent, of the text of ``/proc/net/dev``.

    Raises:
        ValueError: there is no such device.
    """
    for line in table.splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == device:
            return int(counters.split()[8])
    raise ValueError(f"there is no device {device}")


class Watch:
    """CPU time of all QEMUs of this host from now on, also of those that end meanwhile, and bytes of its link."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._first = {pid: used for pid, (_, used) in self._look({}).items()}
        self._last: dict[int, float] = {}
        self._sent = self._sent_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def end(self) -> dict[str, float]:
        """Stop; the CPU seconds, and the bytes."""
        self._over.set()
        self._thread.join()
        used = sum(last - self._first.get(pid, 0.0) for pid, last in self._last.items())
        return {"cpu_s": used, "sent_bytes": self._sent_bytes() - self._sent}

    def _sample(self) -> None:
        known: dict[int, tuple[psutil.Process, float]] = {}
        looked = 0.0
        while not self._over.is_set():
            if time.monotonic() - looked > LOOK_S:
                known, looked = self._look(known), time.monotonic()
            self._read(known)
            self._over.wait(SAMPLE_S)
        self._read(self._look(known))

    def _read(self, known: Mapping[int, tuple[psutil.Process, float]]) -> None:
        for pid, (process, _) in known.items():
            with suppress(psutil.Error):
                self._last[pid] = _used_s(process)

    @staticmethod
    def _look(known: Mapping[int, tuple[psutil.Process, float]]) -> dict[int, tuple[psutil.Process, float]]:
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name().startswith(QEMU):
                    found[process.pid] = known.get(process.pid) or (process, _used_s(process))
        return found

    def _sent_bytes(self) -> int:
        return sent_bytes(Path("/proc/self/net/dev").read_text(), self._device)


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def run_one(words: Sequence[str], limit_s: float, off: Sequence[str] = ()) -> dict[str, Any]:
    """Run a command; after `limit_s` it is called off with the command `off`, and in the end killed."""
    child = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    late = False
    try:
        out, err = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        late = True
        with suppress(OSError, subprocess.TimeoutExpired):
            if off:
                subprocess.run(off, stdin=subprocess.DEVNULL, capture_output=True, timeout=CALL_OFF_S, check=False)
        try:
            out, err = child.communicate(timeout=CALL_OFF_S if off else 0.1)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
    return {"status": child.returncode, "out": out, "err": err, "late": late}


class Hand:
    """The wishes, by name."""

    def __init__(self) -> None:
        self._watch: Watch | None = None
        self._background: list[subprocess.Popen[bytes]] = []

    def run(
        self, commands: Sequence[Sequence[str]], limit_s: float, at_once: int = 1, off: Sequence[Sequence[str]] = ()
    ) -> dict[str, Any]:
        """Run commands, so many at once, and take the time of all of them."""
        began_at, began = time.time(), time.perf_counter()
        with ThreadPoolExecutor(at_once) as hands:
            results = list(hands.map(run_one, commands, [limit_s] * len(commands), off or [()] * len(commands)))
        seconds = time.perf_counter() - began
        return {"began_at": began_at, "seconds": seconds, "results": results}

    def start(self, words: Sequence[str], log: str) -> dict[str, Any]:
        """Start a program that goes on in the background."""
        with Path(log).open("ab") as output:
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._background.append(child)
        return {"pid": child.pid}

    def stop(self, pid: int) -> dict[str, Any]:
        """End a program that `start` has started."""
        for child in [one for one in self._background if one.pid == pid]:
            child.kill()
            child.wait()
            self._background.remove(child)
        return {}

    def watch(self, device: str) -> dict[str, Any]:
        """Begin to count what QEMUs use, and what the link carries."""
        self._watch = Watch(device)
        return {}

    def watched(self) -> dict[str, Any]:
        """What was counted."""
        assert self._watch is not None
        watch, self._watch = self._watch, None
        return dict(watch.end())

    def await_guests(self, addresses: Sequence[str], limit_s: float) -> dict[str, Any]:
        """Wait until guests have filled their memory, and their hearts beat."""
        deadline = time.monotonic() + limit_s
        missing = list(addresses)
        while missing and time.monotonic() < deadline:
            missing = [address for address in missing if beats(address) < 3]
            time.sleep(0.1)
        return {"missing": missing}

    def close(self) -> None:
        """End what was started."""
        for child in list(self._background):
            self.stop(child.pid)
        if self._watch is not None:
            self._watch.end()


def beats(address: str) -> int:
    """How many times the heart of the guest at an address has beaten; 0 if it does not answer."""
    with suppress(OSError), socket.create_connection((address, 7), timeout=ASK_S) as connection:
        connection.settimeout(ASK_S)
        connection.sendall(b"ready\n")
        found = re.search(rb"count=(\d+)", connection.recv(4096))
        return int(found[1]) if found else 0
    return 0


def serve() -> None:
    """Answer wishes until the input ends."""
    hand = Hand()
    wishes: Mapping[str, Callable[..., dict[str, Any]]] = {
        name: getattr(hand, name) for name in ("run", "start", "stop", "watch", "watched", "await_guests")
    }
    try:
        for line in sys.stdin:
            wish = json.loads(line)
            try:
                answer = wishes[wish.pop("do")](**wish)
            except (OSError, ValueError) as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
    finally:
        hand.close()


if __name__ == "__main__":
    serve()
