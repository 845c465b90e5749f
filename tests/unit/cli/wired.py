"""`ldm` as it is, with the real application and a manager on fakes behind it instead of a socket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import FastAPI

from ldoms.api.client import COMMAND_HEADER, RUN_HEADER, Client, _error_of
from unit.api.counter import Caller, application
from unit.manager.desk import fake_host, furnish
from unit.migration.harness import FakeHost

LIMIT_S = 20.0


@dataclass
class Wired:
    """A furnished host on fakes, the loop that it lives in, and the application before it."""

    runner: asyncio.Runner
    host: FakeHost
    app: FastAPI
    turn: threading.Lock = field(default_factory=threading.Lock)

    def send(self, method: str, path: str, body: Any, query: Any, headers: dict[str, str]) -> httpx.Response:
        """One request, and everything that goes on until it is answered."""

        async def send() -> httpx.Response:
            async with Caller(self.app) as caller, asyncio.timeout(LIMIT_S):
                return await caller.request(method, path, json=body, params=query or None, headers=headers)

        with self.turn:  # a command may ask from several threads
            return self.runner.run(send())


class WiredClient(Client):
    """A client whose requests do not leave the process."""

    def __init__(self, wired: Wired, command: str = "") -> None:
        super().__init__("/nowhere", command)
        self._wired = wired

    def stream(self, path: str) -> Iterator[Any]:
        """The data of each event; they come all at once, when the stream has ended."""
        answer = self._wired.send("GET", path, None, None, {})
        if answer.status_code >= 400:
            raise _error_of(answer.status_code, answer.content)
        for line in answer.text.splitlines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    def _call(self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, Any] | None = None) -> Any:
        headers = {COMMAND_HEADER: quote(self._command), RUN_HEADER: self._run} if self._command else {}
        answer = self._wired.send(method, path, body, query, headers)
        if answer.status_code >= 400:
            raise _error_of(answer.status_code, answer.content)
        return json.loads(answer.content) if answer.content else None


def wire(runner: asyncio.Runner, directory: Path) -> Wired:
    """Start a furnished host."""
    host = fake_host(directory)
    manager = runner.run(host.start())
    runner.run(furnish(manager))
    return Wired(runner, host, application(manager, directory))
