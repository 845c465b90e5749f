"""The last part of what a guest has said on its console, for whoever comes later."""

from __future__ import annotations

import re

SIZE = 64 * 1024
"""Bytes of a console that are kept for clients which come later."""

# Questions to the terminal. Replayed, they would be answered once more, and the guest would take that for typing:
# device attributes, status and cursor reports, window reports, requests for settings, colours and the like.
_QUESTIONS = re.compile(
    rb"\x1b\[[>=?]?[0-9;]*[cn]"
    rb"|\x1b\[(?:1[1-9]|2[01])t"
    rb"|\x1bZ|\x05"
    rb"|\x1b\[[?0-9;]*\$p"
    rb"|\x1b\][0-9;]*;\?(?:\x07|\x1b\\)"
    rb"|\x1bP[+$]q[^\x1b]*\x1b\\"
)


class History:
    """A bounded memory of bytes."""

    def __init__(self, data: bytes = b"", size: int = SIZE) -> None:
        self._size = size
        self._data = bytearray(data[-size:])

    def add(self, data: bytes) -> None:
        """Remember; the oldest goes."""
        self._data += data
        if len(self._data) > self._size:
            del self._data[: -self._size]

    def clear(self) -> None:
        """Forget everything."""
        self._data.clear()

    @property
    def data(self) -> bytes:
        """Everything that is remembered, as it was said."""
        return bytes(self._data)

    def replay(self) -> bytes:
        """What a terminal may be shown: from the beginning of a line on, and without questions to it."""
        data = self.data
        if len(data) >= self._size:
            data = data[data.find(b"\n") + 1 :]
        return _QUESTIONS.sub(b"", data)
