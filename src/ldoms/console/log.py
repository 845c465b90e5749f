"""The log of a console: a file, and older ones beside it that were closed when they had grown large."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import structlog

SIZE = 1 << 20
"""Bytes at which a log is closed and a new one begun."""
KEPT = 4
"""Closed logs that are kept."""
NAME = "console-log"

_log = structlog.get_logger(__name__)


class ConsoleLog:
    """The log of one console: ``console-log``, and ``console-log.0`` to ``.3``, the youngest first.

    What cannot be written is lost to the log, never to the clients: a full disk does not stop a console.
    """

    def __init__(self, directory: Path, size: int = SIZE, kept: int = KEPT) -> None:
        """Log below `directory`, which is made with the first word."""
        self.path = directory / NAME
        self._size = size
        self._kept = kept
        self._file: BinaryIO | None = None
        self._is_failing = False

    def write(self, data: bytes) -> None:
        """Append, and begin a new file when this one is full."""
        try:
            file = self._file or self._open()
            file.write(data)
            if file.tell() >= self._size:
                self._rotate()
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                _log.warning("console-not-logged", path=str(self.path), reason=str(error))
            self._is_failing = True
            self.close()

    def tail(self, size: int) -> bytes:
        """The last bytes of the log; nothing if there is none."""
        found = b""
        for path in (self.path, self._old(0)):
            with suppress(OSError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - size + len(found)))
                found = file.read() + found
        return found[-size:]

    def close(self) -> None:
        """Close the file; the next word opens it again."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Without a buffer: what was said is in the file, also when the manager is killed.
        self._file = self.path.open("ab", buffering=0)
        self.path.chmod(0o600)
        return self._file

    def _rotate(self) -> None:
        self.close()
        for number in range(self._kept - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._old(number - 1).replace(self._old(number))
        self.path.replace(self._old(0))

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{NAME}.{number}")
