"""The application on a host of fakes, and clients that call it without a socket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from ldoms.api.access import Services
from ldoms.api.connections import STATE_KEY, Connection
from ldoms.api.server import make_app
from ldoms.auth.callers import Groups, Role
from ldoms.auth.certificates import Certificates
from ldoms.auth.fake import FakePasswords
from ldoms.auth.passwords import Gatekeeper
from ldoms.manager.manager import Manager

ROOT = Connection(uid=0)
NOBODY = Connection(uid=65_432_100)
NETWORK = Connection(address="192.0.2.1")
PREFIX = "/v1"
ROLES = {"tracy": Role.MANAGE, "larry": Role.REVIEW, "plain": Role.NOBODY}


def application(manager: Manager, directory: Path) -> FastAPI:
    """The application for a manager, with users whose password is ``secret``: see `ROLES`."""
    gatekeeper = Gatekeeper(
        FakePasswords(dict.fromkeys(ROLES, "secret")), Groups(), lambda user, groups: ROLES.get(user, Role.NOBODY)
    )
    return make_app(Services(manager, gatekeeper, Certificates(directory / "keys", "t4-1"), Groups()))


class Caller(httpx.AsyncClient):
    """A client on a connection of some sort."""

    def __init__(self, app: FastAPI, connection: Connection = ROOT, **more: Any) -> None:
        async def connected(scope: dict[str, Any], receive: Any, send: Any) -> None:
            await app({**scope, "state": {STATE_KEY: connection}}, receive, send)

        super().__init__(transport=httpx.ASGITransport(connected), base_url=f"http://t4-1{PREFIX}", **more)


def error_of(answer: httpx.Response) -> Mapping[str, Any]:
    """What went wrong, in the one shape."""
    body = answer.json()
    assert set(body) == {"error"}, body
    error: Mapping[str, Any] = body["error"]
    assert {"family", "code", "message", "details"} <= set(error)
    return error
