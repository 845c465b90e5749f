"""Namespaces with a process 1 of their own: made, entered and ended. A lab host is one of them.

The tools are util-linux's ``unshare`` and ``nsenter``. Ending process 1 ends everything inside, as a power cut does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ldoms.model.errors import HostError

START_S = 10.0
END_S = 10.0
_INIT = Path(__file__).with_name("init.py")


@dataclass(frozen=True, slots=True)
class Space:
    """A set of namespaces: network, processes, mounts and host name.

    Attributes:
        pid: of its process 1, as this machine sees it.
        started: when that began, to tell it from a later process with the same id.
    """

    pid: int
    started: float

    @property
    def is_alive(self) -> bool:
        """Whether it is still there."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def command(self, words: Sequence[str]) -> list[str]:
        """The words that run `words` inside."""
        return ["nsenter", f"--target={self.pid}", "--net", "--pid", "--mount", "--uts", "--", *words]

    def run(self, words: Sequence[str], *, text: str | None = None, limit_s: float = 60.0) -> str:
        """Run a command inside and return what it prints.

        Raises:
            HostError: it failed; the message has what it said.
        """
        try:
            done = subprocess.run(
                self.command(words), input=text, capture_output=True, text=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise HostError(f"{words[0]} took longer than {limit_s:g} s in the lab", code="lab-failed") from error
        if done.returncode != 0:
            # The last line that is no continuation of the one before it.
            said = [
                line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line[0].isspace()
            ]
            raise HostError(
                f"{' '.join(words[:3])} failed in the lab: {said[-1] if said else 'no reason'}", code="lab-failed"
            )
        return done.stdout

    def start(self, words: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        """Start a program inside that goes on by itself; its output goes to `log`."""
        line = 'exec setsid "$@" >>"$LOG" 2>&1 </dev/null &'
        with subprocess.Popen(
            self.command(["sh", "-c", line, "sh", *words]), env={**environment, "LOG": str(log)}
        ) as starter:
            starter.wait(START_S)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs inside, process 1 included."""
        try:
            mark = os.readlink(f"/proc/{self.pid}/ns/pid")
        except OSError:
            return []
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == mark:
                    found.append(process)
        return found

    def end(self) -> None:
        """End process 1, and with it everything inside; return when all of it is gone.

        Raises:
            HostError: something does not end.
        """
        if not self.is_alive:
            return
        inside = self.processes()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _, left = psutil.wait_procs(inside, timeout=END_S)
        stuck = [process.pid for process in left if _is_running(process)]
        if stuck:
            raise HostError(f"processes {stuck} of the lab do not end", code="lab-stuck")


def make_space() -> Space:
    """Make a set of namespaces.

    Raises:
        HostError: the kernel does not allow it.
    """
    return _make(["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--propagation=private"])


def make_cell() -> Space:
    """Make a user namespace in which an ordinary user is root, for a whole lab to live in.

    Raises:
        HostError: the kernel does not allow it.
    """
    return _make(["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"])


def _make(words: list[str]) -> Space:
    starter = subprocess.Popen(
        [*words, "--", sys.executable, "-S", "-E", str(_INIT)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + START_S
    while starter.poll() is None and time.monotonic() < deadline:
        for child in psutil.Process(starter.pid).children():
            with suppress(psutil.Error):
                if str(_INIT) in child.cmdline():
                    return Space(child.pid, child.create_time())
        time.sleep(0.01)
    assert starter.stderr is not None
    starter.kill()
    reason = starter.stderr.read().decode(errors="replace").strip()
    raise HostError(f"a network namespace cannot be made here: {reason or 'no reason given'}", code="no-namespace")


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
