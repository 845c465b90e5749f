"""The memory of a guest on its way to a file, for a debugger: QEMU writes it into a pipe, and we into the file.

QEMU has no command to end a dump. It ends one that cannot be written, and lets the guest run again: with a pipe, that
is when its reader closes it, or dies.

What comes through the pipe is makedumpfile's flattened format (makedumpfile(8), ``flattened_format.h``): a header of
4096 bytes, then pieces, each behind its offset and length in the file, both of eight bytes, big-endian. crash(8) reads
the file that they make.
"""

from __future__ import annotations

import os
import select
import struct
import threading
from collections.abc import Iterator

SIGNATURE = b"makedumpfile\0\0\0\0"
HEADER_BYTES = 4096
CHUNK = 1 << 20
LOOK_S = 0.2
_PIECE = struct.Struct(">qq")


class Unflattened:
    """Takes a flattened file apart, however it is cut."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._has_header = False
        self._at = 0
        self._left = 0
        self.is_complete = False
        """Whether its end was seen."""

    def take(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The offsets and contents of what has come so far and was not given out yet.

        Raises:
            ValueError: it is no such file.
        """
        self._waiting += data
        if not self._has_header:
            if len(self._waiting) < HEADER_BYTES:
                return
            if not self._waiting.startswith(SIGNATURE):
                raise ValueError("what QEMU writes is not in makedumpfile's flattened format")
            del self._waiting[:HEADER_BYTES]
            self._has_header = True
        while self._waiting and not self.is_complete:
            if not self._left:
                if len(self._waiting) < _PIECE.size:
                    return
                self._at, self._left = _PIECE.unpack_from(self._waiting)
                del self._waiting[: _PIECE.size]
                self.is_complete = self._at < 0
                continue
            piece = bytes(self._waiting[: self._left])
            del self._waiting[: len(piece)]
            yield self._at, piece
            self._at, self._left = self._at + len(piece), self._left - len(piece)


def write(pipe: int, file: int, stop: threading.Event) -> bool:
    """Write what comes through a pipe that is open already into a file, until it ends or somebody wants an end.

    It closes the pipe, whatever happens, so that QEMU does not wait.

    Returns:
        Whether all of it has come.

    Raises:
        OSError: the file cannot be written.
        ValueError: QEMU writes something else.
    """
    content = Unflattened()
    try:
        while not stop.is_set():
            if not select.select([pipe], [], [], LOOK_S)[0]:
                continue
            data = os.read(pipe, CHUNK)
            if not data:
                break
            for offset, piece in content.take(data):
                _write_all(file, piece, offset)
        return content.is_complete
    finally:
        os.close(pipe)


def _write_all(file: int, piece: bytes, offset: int) -> None:
    while piece:
        written = os.pwrite(file, piece, offset)
        piece, offset = piece[written:], offset + written
