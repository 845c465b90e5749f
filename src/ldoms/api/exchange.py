"""One request over a Unix socket and its answer: as much of HTTP/1.1 as `ldmd` speaks, from what is imported anyway.

`http.client` takes longer to import than `ldm list` takes in all.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from types import TracebackType

PREFIX = "/v1"
DEFAULT_SOCKET = "/run/ldoms/ldmd.sock"
SOCKET_VARIABLE = "LDM_SOCKET"
ANSWER_S = 180.0
"""A guest may take its time to shut down."""


class Answer:
    """What comes back; to be closed.

    Attributes:
        status: of HTTP.
        notice: what the manager wants whoever typed the command to know, percent-encoded; or empty.
        headers: by their names in small letters.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Read the head of the answer.

        Raises:
            OSError: there is no answer of HTTP/1.1, or it ends too early.
        """
        self._connection = connection
        self._file = connection.makefile("rb")
        first = self._line().split(b" ", 2)
        if len(first) < 2 or not first[0].startswith(b"HTTP/1.") or not first[1].isdigit():
            raise ConnectionError("what answers does not speak HTTP")
        self.status = int(first[1])
        self.headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        self._length = self.headers.get("content-length", "")
        self._in_chunks = self.headers.get("transfer-encoding", "").lower() == "chunked"
        self.notice = self.headers.get("x-ldm-notice", "")

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._connection.close()

    def read(self) -> bytes:
        """All that it says.

        Raises:
            OSError: it ends too early.
        """
        return b"".join(self.pieces())

    def lines(self) -> Iterator[bytes]:
        """Each line as soon as it is there, without its end."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def json(self) -> object:
        """What it says as data, None for nothing.

        Raises:
            OSError: it ends too early.
            ValueError: it is not JSON.
        """
        data = self.read()
        return json.loads(data) if data else None

    def pieces(self) -> Iterator[bytes]:
        """Each part of it as soon as it is there, however long the next one takes.

        Raises:
            OSError: it ends too early.
        """
        if not self._in_chunks:
            yield self._bytes(_number(self._length, 10)) if self._length else self._file.read()
            return
        while size := _number(self._line().partition(b";")[0], 16):
            yield self._bytes(size)
            self._line()

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise ConnectionError("the answer ends too early")
        return data

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the answer ends too early")
        return line.rstrip(b"\r\n")


def _number(text: str | bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise ConnectionError("what answers does not speak HTTP") from error


def connect(path: str, answer_s: float = ANSWER_S) -> socket.socket:
    """A connection to the manager's socket, on which it may keep silent for so long.

    Raises:
        OSError: it is not there, or may not be used.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(answer_s)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def exchange(
    connection: socket.socket,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: str | bytes = "",
) -> Answer:
    """Send a request, and read the head of its answer.

    Args:
        connection: that nothing else uses; it is closed with the answer.
        method: of HTTP.
        target: path and query below the prefix, in ASCII.
        headers: more of them, in ASCII.
        body: JSON as text, or bytes as they are, or nothing.

    Raises:
        OSError: the connection broke.
    """
    data, kind = (body.encode(), "json") if isinstance(body, str) else (body, "octet-stream")
    lines = [f"{method} {PREFIX}{target} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += [f"Content-Type: application/{kind}", f"Content-Length: {len(data)}"]
    try:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + data)
        return Answer(connection)
    except BaseException:
        connection.close()
        raise
