"""The terminal as a console: every key goes to the guest, and what it says comes out as it is."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from types import FrameType

from ldoms.api.client import Conversation
from ldoms.model.errors import HostError, LdomsError

CHUNK = 4096
QUIET_S = 1.0
"""When there is nothing more to type from a file or pipe, the console is left after so long a silence."""
LINGER_S = 5.0
"""Or after so long, if the guest is never silent."""


class Escapes:
    """Looks for ``~.`` at the beginning of a line: it must work also when the manager does not."""

    def __init__(self) -> None:
        self._at_start = True
        self._tilde = False

    def before_leaving(self, data: bytes) -> bytes | None:
        """What comes before the escape that leaves the console; None if there is none in `data`."""
        for place, code in enumerate(data):
            if self._tilde:
                if code == ord("."):
                    return data[: max(0, place - 1)]
                self._tilde = False
                self._at_start = code != ord("~")  # a doubled one is typed
            elif self._at_start and code == ord("~"):
                self._tilde = True
            else:
                self._at_start = code in b"\r\n"
        return None


@contextlib.contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Every key as it comes; as before on every way out. Nothing is done where there is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    handlers = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def converse(conversation: Conversation, source: int, sink: int) -> None:
    """Carry everything from `source` to the guest and from the guest to `sink`, until either has had enough.

    Raises:
        LdomsError: the manager has gone away.
    """
    listener = _Listener(conversation, sink)
    escapes = Escapes()
    try:
        while True:
            data = _typed(source, listener.ended)
            if not data:
                listener.wait_for_silence()
                break
            before = escapes.before_leaving(data)
            try:
                conversation.send(data if before is None else before)
            except LdomsError:
                if not listener.is_over(QUIET_S):
                    raise
                break
            if before is not None:
                break
    finally:
        listener.close()
    if listener.error is not None:
        raise listener.error


def _typed(source: int, ended: int) -> bytes:
    """What is typed next; empty if there is no more, or when the guest's side has ended."""
    try:
        ready, _, _ = select.select([source, ended], [], [])
        return b"" if ended in ready else os.read(source, CHUNK)
    except OSError:
        return b""  # there is no standard input, or its terminal is gone


class _Listener:
    """Writes what the guest says, in a thread of its own, because both sides may wait for ever."""

    def __init__(self, conversation: Conversation, sink: int) -> None:
        self.error: HostError | None = None
        self.ended, self._end = os.pipe()
        self._conversation = conversation
        self._sink = sink
        self._is_closed = False
        self._heard = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def is_over(self, limit_s: float) -> bool:
        """Whether the guest's side has ended, or does within the limit."""
        return self._over.wait(limit_s)

    def wait_for_silence(self) -> None:
        """Return when the guest has said nothing for a while, or goes on and on."""
        deadline = time.monotonic() + LINGER_S
        while not self._over.is_set() and time.monotonic() < deadline:
            self._heard.clear()
            if not self._heard.wait(QUIET_S):
                return

    def close(self) -> None:
        """The console is left."""
        self._is_closed = True
        self._conversation.close()
        self._thread.join(QUIET_S)
        if not self._thread.is_alive():
            os.close(self.ended)
            os.close(self._end)

    def _run(self) -> None:
        try:
            while data := self._conversation.read():
                self._heard.set()
                while data:
                    data = data[os.write(self._sink, data) :]
        except HostError as error:
            if not self._is_closed:
                self.error = error
        except OSError:
            pass  # whoever read our output has gone
        finally:
            self._over.set()
            self._heard.set()
            os.write(self._end, b".")


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
