"""A hand on a host of the lab: see `ldoms.bench.peers.hand`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ldoms.bench.peers.hand import CALL_OFF_S
from ldoms.bench.stage import Stage
from ldoms.model.errors import HostError

DEVICE = "link0"
"""A lab host's end of the link between hosts."""
SPARE_S = 30.0
"""An answer may take so much longer than what was asked for."""
COMMAND_S = 120.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a command has said; `late`: it took too long, and was called off."""

    status: int
    out: str
    err: str
    late: bool


@dataclass(frozen=True, slots=True)
class Ran:
    """Commands that were run: when the first began, in seconds since 1970, and how long all of them took."""

    began_at: float
    seconds: float
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """CPU seconds of the QEMUs of a host, and bytes that it has sent over its link, while it was watched."""

    cpu_s: float
    sent_bytes: int


class RemoteHand:
    """The wishes of `ldoms.bench.peers.hand.Hand`, asked from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        commands: Sequence[Sequence[str]],
        *,
        limit_s: float = COMMAND_S,
        at_once: int = 1,
        off: Sequence[Sequence[str]] = (),
    ) -> Ran:
        """Run commands, however they end.

        Raises:
            HostError: the host does not answer.
        """
        turns = -(-len(commands) // at_once)
        longest_s = turns * (limit_s + 2 * CALL_OFF_S)
        answer = self._ask("run", longest_s, commands=commands, limit_s=limit_s, at_once=at_once, off=off)
        return Ran(answer["began_at"], answer["seconds"], tuple(Result(**one) for one in answer["results"]))

    def do(self, *commands: Sequence[str], limit_s: float = COMMAND_S) -> list[str]:
        """Run commands one after another that have to succeed, and return what they print.

        Raises:
            HostError: one failed.
        """
        printed = []
        for words in commands:
            (result,) = self.run([words], limit_s=limit_s).results
            if result.status != 0:
                reason = result.err.strip() or f"status {result.status}"
                raise HostError(f"'{' '.join(words[:4])}' failed: {reason}", code="command-failed")
            printed.append(result.out)
        return printed

    def start(self, words: Sequence[str], log: str) -> int:
        """Start a program in the background, whose output goes to the file `log`; its process id there."""
        return int(self._ask("start", words=words, log=log)["pid"])

    def stop(self, pid: int) -> None:
        """End a program that was started so."""
        self._ask("stop", pid=pid)

    def watch(self) -> None:
        """Begin to count."""
        self._ask("watch", device=DEVICE)

    def watched(self) -> Watched:
        """What was counted since."""
        return Watched(**self._ask("watched"))

    def await_guests(self, addresses: Sequence[str], limit_s: float) -> None:
        """Wait until guests have filled their memory.

        Raises:
            HostError: some have not, in time.
        """
        missing = self._ask("await_guests", limit_s, addresses=addresses, limit_s=limit_s)["missing"]
        if missing:
            raise HostError(f"the guest with the address {missing[0]} does not get ready", code="guest-gone")

    def _ask(self, wish: str, longest_s: float = 0.0, **values: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(longest_s + SPARE_S, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"do": wish, **values}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            watchdog.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "a host of the lab does not answer"}
        if "error" in answer:
            raise HostError(answer["error"], code="lab-failed")
        return answer


@contextlib.contextmanager
def hand_on(made: Stage, host: str) -> Iterator[RemoteHand]:
    """A hand on a host of the lab, or where its clients are."""
    words = [*made.prefix(host), sys.executable, "-m", "ldoms.bench.peers.hand"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield RemoteHand(process)
    finally:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(SPARE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
