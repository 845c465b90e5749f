"""The API from a client's side, with nothing but the standard library: `ldm` must start in a blink."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlencode

from ldoms.api.exchange import ANSWER_S, DEFAULT_SOCKET, SOCKET_VARIABLE, Answer, connect, exchange
from ldoms.model import errors
from ldoms.model.codec import from_wire
from ldoms.model.errors import CheckFailed, HostError, LdomsError
from ldoms.model.findings import Finding

T = TypeVar("T")

COMMAND_HEADER = "X-Ldm-Command"
RUN_HEADER = "X-Ldm-Run"
CONSOLE_HEADER = "X-Ldm-Console"


class Client:
    """Calls to the manager of this host."""

    def __init__(self, path: str = "", command: str = "", answer_s: float = ANSWER_S) -> None:
        """Make no connection yet.

        Args:
            path: of the socket; without it ``$LDM_SOCKET``, or where ``ldmd`` has it.
            command: for the history.
            answer_s: how long an answer may take.
        """
        self._path = path or os.environ.get(SOCKET_VARIABLE, "") or DEFAULT_SOCKET
        self._command = command
        self._run = f"{os.getpid()}-{time.monotonic_ns()}"
        self._answer_s = answer_s
        self.notices: list[str] = []
        """What the manager wants whoever typed the command to know, apart from the answers."""

    def get(self, path: str, **query: Any) -> Any:
        """Ask; the answer as JSON data.

        Raises:
            LdomsError: the manager says no, or is not there.
        """
        return self._call("GET", path, None, query)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Have something made or done."""
        return self._call("POST", path, body or {})

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """Have something set."""
        return self._call("PUT", path, body)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """Have something changed."""
        return self._call("PATCH", path, body)

    def delete(self, path: str, **query: Any) -> Any:
        """Have something removed."""
        return self._call("DELETE", path, None, query)

    def fetch(self, kind: type[T], path: str, **query: Any) -> T:
        """Ask for a value of the model."""
        return from_wire(kind, self.get(path, **query))

    def stream(self, path: str) -> Iterator[Any]:
        """The data of each server-sent event, until the manager ends the stream.

        Raises:
            HostError: the manager has gone away.
        """
        try:
            with self._send("GET", path) as answer:
                if answer.status >= 400:
                    raise _error_of(answer.status, answer.read())
                for line in answer.lines():
                    if line.startswith(b"data: "):
                        yield json.loads(line[len(b"data: ") :])
        except OSError as error:
            raise self._gone(error) from error

    def converse(self, path: str, body: dict[str, Any]) -> Conversation:
        """Begin to follow a console.

        Raises:
            LdomsError: the manager says no, or is not there.
        """
        try:
            connection = connect(self._path)
            answer = exchange(connection, "POST", path, self._command_header(), json.dumps(body))
            if answer.status >= 400:
                with answer:
                    raise _error_of(answer.status, answer.read())
        except OSError as error:
            raise self._gone(error) from error
        connection.settimeout(None)  # a guest may say nothing for days
        return Conversation(self._path, connection, answer)

    def _command_header(self) -> dict[str, str]:
        if not self._command:
            return {}
        return {COMMAND_HEADER: quote(self._command, safe=" -_./:@=,+?'\"()[]{}"), RUN_HEADER: self._run}

    def _call(self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, Any] | None = None) -> Any:
        if query:
            path += "?" + urlencode(query, doseq=True)
        try:
            with self._send(method, path, self._command_header(), "" if body is None else json.dumps(body)) as answer:
                status, data, notice = answer.status, answer.read(), answer.notice
        except OSError as error:
            raise self._gone(error) from error
        if status >= 400:
            raise _error_of(status, data)
        if notice:
            self.notices.append(unquote(notice))
        return json.loads(data) if data else None

    def _send(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: str = "") -> Answer:
        return exchange(connect(self._path, self._answer_s), method, path, headers, body)

    def _gone(self, error: Exception) -> HostError:
        if isinstance(error, PermissionError):
            return HostError(f"Authorization failed: you may not use {self._path}", code="not-authorized")
        return HostError(
            f"ldmd does not answer on {self._path}: is it running? ({error or type(error).__name__})", code="no-ldmd"
        )


class Conversation:
    """A console that is followed; what is typed goes over connections of its own."""

    def __init__(self, path: str, connection: socket.socket, answer: Answer) -> None:
        """Follow `answer`, which comes over `connection` from the socket at `path`."""
        self._path = path
        self._connection = connection
        self._answer = answer
        self._pieces = answer.pieces()
        self._target = f"/consoles/{part(answer.headers.get(CONSOLE_HEADER.lower(), ''))}"

    def read(self) -> bytes:
        """What has come; empty at the end.

        Raises:
            HostError: the manager has gone away.
        """
        try:
            return next(self._pieces, b"")
        except (OSError, ValueError) as error:  # ValueError: it was closed meanwhile
            raise HostError(f"the connection to the console was lost ({error})", code="no-ldmd") from error

    def send(self, data: bytes) -> None:
        """Type.

        Raises:
            LdomsError: the manager says no, or has gone away.
        """
        if not data:
            return
        try:
            with exchange(connect(self._path), "POST", self._target, body=data) as answer:
                status, text = answer.status, answer.read()
        except OSError as error:
            raise HostError(f"the connection to the console was lost ({error})", code="no-ldmd") from error
        if status >= 400:
            raise _error_of(status, text)

    def close(self) -> None:
        """Leave; may be called while another thread reads, which then reads the end."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


def part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def error_from(described: dict[str, Any]) -> LdomsError:
    """The error that the manager has described."""
    kind = getattr(errors, str(described.get("family", "")), LdomsError)
    message, code = str(described["message"]), str(described["code"])
    details = {str(key): value for key, value in dict(described.get("details") or {}).items()}
    if "findings" in described:
        findings = tuple(from_wire(Finding, finding) for finding in described["findings"])
        return CheckFailed(message, findings, code=code)
    if not issubclass(kind, LdomsError) or kind is errors.MigrationError:
        kind = LdomsError
    error = kind(message, code=code)
    error.details = details
    return error


def _error_of(status: int, data: bytes) -> LdomsError:
    try:
        return error_from(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return HostError(f"ldmd answered with HTTP status {status}", code="bad-answer")
