"""A process that outlives this one: started in a session of its own, found again, and watched until it ends."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from ldoms.model.errors import HostError

_PIDFD_GETFD = 438
"""Number of the system call pidfd_getfd(2), the same on every architecture; Python has no name for it."""
_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """A process that is followed through a pidfd, whether this manager or an earlier one has started it.

    Attributes:
        pid: its id.
        gone: set once it has ended.
    """

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """Follow process `pid`; `child` if it is ours to reap.

        Raises:
            ProcessLookupError: there is no such process.
        """
        self.pid = pid
        self.gone = asyncio.Event()
        self._child = child
        self._known: Sequence[Any] = ()
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    @classmethod
    def start(cls, words: Sequence[str], directory: Path, log: Path) -> Process:
        """Start a program in a session of its own, its output going to `log`.

        Raises:
            HostError: the program is not there.
        """
        with log.open("ab") as output:
            try:
                child = subprocess.Popen(
                    words,
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                raise HostError(f"{words[0]} cannot be started: {error}", code="no-qemu") from error
        return cls(child.pid, child)

    @classmethod
    def find(cls, pid_file: Path, mark: str) -> Process | None:
        """The process whose id is in `pid_file`, if it still runs and `mark` is among its arguments."""
        try:
            process = cls(int(pid_file.read_text()))
        except (OSError, ValueError):
            return None
        with suppress(psutil.Error):
            # Looked at after the pidfd is open, so that the id cannot have gone to another process meanwhile.
            if mark in psutil.Process(process.pid).cmdline():
                return process
        process.close()
        return None

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def unsent_bytes(self) -> int:
        """What it has written to its TCP connections, all in all, and their other ends have not received.

        Of the connections that were there at the last look, if one of them still is: looking for them takes
        milliseconds. 0 where it cannot be known.
        """
        with suppress(psutil.Error, OSError):
            return sum(list(_unsent(self._open_here(self._known))) or _unsent(self._connections()))
        return 0

    def limit_unsent(self, size: int) -> None:
        """Have each of its TCP connections take no more than about so much before it can be sent; if that can be."""
        with suppress(psutil.Error, OSError):
            for connection in self._connections():
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def break_connections(self) -> None:
        """Shut down every TCP connection that it has, whatever it is doing; it sees them as closed by the other end.

        Raises:
            HostError: the kernel does not let us.
        """
        try:
            for connection in self._connections():
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        except (psutil.Error, OSError) as error:
            raise HostError(
                f"the connections of process {self.pid} cannot be broken: {error}", code="no-cut"
            ) from error

    def thread_times(self) -> dict[int, float]:
        """CPU seconds that each of its threads has used so far, by thread id; empty when it has ended."""
        try:
            return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process(self.pid).threads()}
        except psutil.Error:
            return {}

    def thread_wait_s(self, thread: int) -> float:
        """For how long one of its threads has waited for a CPU so far; 0 if it has ended, or the kernel does not count.

        The second field of schedstat: Linux's Documentation/scheduler/sched-stats.rst.
        """
        with suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{self.pid}/task/{thread}/schedstat").read_text().split()[1]) / 1e9
        return 0.0

    @property
    def status(self) -> int | None:
        """How it ended: an exit status, or less than zero for a signal; None where that cannot be known."""
        return self._child.returncode if self._child is not None else None

    def close(self) -> None:
        """Stop following it; it goes on."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _connections(self) -> Iterator[socket.socket]:
        """Its TCP connections, each open here as well until the next one is asked for."""
        everything = psutil.Process(self.pid).net_connections("tcp")
        self._known = [connection for connection in everything if connection.raddr]
        return self._open_here(self._known)

    def _open_here(self, connections: Sequence[Any]) -> Iterator[socket.socket]:
        """Those that still are what psutil has told of, one after the other."""
        for known in connections:
            file = _libc.syscall(_PIDFD_GETFD, self._pidfd, known.fd, 0)
            if file < 0:
                if ctypes.get_errno() == errno.EBADF:
                    continue  # closed meanwhile
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            with socket.socket(fileno=file) as connection:
                if _is(connection, known):  # the number may belong to another file by now
                    yield connection

    def _on_end(self) -> None:
        self.close()
        if self._child is not None:
            self._child.wait()
        self.gone.set()


def _unsent(connections: Iterable[socket.socket]) -> Iterator[int]:
    """Of each, the bytes that its other end has not received; tcp(7) calls it SIOCOUTQ, with the number of TIOCOUTQ."""
    for connection in connections:
        yield struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


def _is(connection: socket.socket, known: Any) -> bool:
    """Whether that is the connection that psutil has told of; it may not be made yet, and has no other end then."""
    try:
        if connection.getsockname()[:2] != (known.laddr.ip, known.laddr.port):
            return False
        return bool(connection.getpeername()[:2] == (known.raddr.ip, known.raddr.port))
    except OSError:
        return bool(known.status == psutil.CONN_SYN_SENT)
