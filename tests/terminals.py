"""Somebody at a console of a guest, for tests."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from support import SOURCE, Hosts, kill_command

ANSWER_S = 20.0


@dataclass
class Terminal:
    """A program that shows a console, and what it has shown since the last look."""

    process: subprocess.Popen[bytes]
    keyboard: int
    screen: int
    seen: bytes = b""

    def expect(self, text: str) -> str:
        """Read until some text comes; all that came since the last time."""
        deadline = time.monotonic() + ANSWER_S
        os.set_blocking(self.screen, False)
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} does not come; there was {self.seen!r}"
            with contextlib.suppress(BlockingIOError, OSError):  # OSError: a terminal that nobody has any more
                self.seen += os.read(self.screen, 65536)
            time.sleep(0.02)
        before, _, self.seen = self.seen.partition(text.encode())
        return (before + text.encode()).decode(errors="replace")

    def type(self, text: str) -> None:
        """Type some text."""
        os.write(self.keyboard, text.encode())


@contextlib.contextmanager
def telnet(hosts: Hosts, port: str, host: str = SOURCE) -> Iterator[Terminal]:
    """The telnet program on a host, connected to a console."""
    with program(hosts, host, "telnet", "127.0.0.1", port) as made:
        yield made


@contextlib.contextmanager
def program(hosts: Hosts, host: str, *words: str) -> Iterator[Terminal]:
    """A command on a host, between pipes."""
    process = subprocess.Popen(
        hosts.command(host, *words),
        env=hosts.lab.environment(host),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Terminal(process, process.stdin.fileno(), process.stdout.fileno())
    finally:
        kill_command(process)
        process.wait()


@contextlib.contextmanager
def program_on_terminal(hosts: Hosts, host: str, *words: str) -> Iterator[tuple[Terminal, int]]:
    """The same on a terminal of its own; with the terminal's device, to ask it how it is set."""
    controller, device = pty.openpty()
    process = subprocess.Popen(
        hosts.command(host, *words), env=hosts.lab.environment(host), stdin=device, stdout=device, stderr=device
    )
    try:
        yield Terminal(process, controller, controller), device
    finally:
        kill_command(process)
        process.wait()
        os.close(controller)
        os.close(device)
