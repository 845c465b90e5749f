"""The servers: one application, on the local socket and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from ldoms import __version__
from ldoms.api import routes_configuration, routes_console, routes_domain, routes_host, routes_peer, routes_service
from ldoms.api.access import Services
from ldoms.api.connections import ConnectionProtocol
from ldoms.api.errors import add_error_handlers
from ldoms.api.notices import Notices
from ldoms.model.errors import HostError

STOP_S = 2
START_S = 10.0
KEEP_ALIVE_S = 60

_log = structlog.get_logger(__name__)


def make_app(services: Services) -> FastAPI:
    """The application, which does everything with `services`."""
    app = FastAPI(title="ldoms", version=__version__, description="The Logical Domains Manager for Linux")
    app.state.services = services
    for routes in (routes_domain, routes_console, routes_service, routes_configuration, routes_host, routes_peer):
        app.include_router(routes.router)
    add_error_handlers(app)
    app.add_middleware(Notices, manager=services.manager)
    return app


class Servers:
    """The application being served: on a Unix socket, and on a TCP port if there is an address for it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._running: list[tuple[_Server, asyncio.Task[None]]] = []

    async def open_socket(self, path: Path) -> None:
        """Serve on a Unix socket, open to everybody on this host: who may do what is decided for each request.

        Raises:
            HostError: it cannot be made.
        """
        await self._open(_config(self._app, uds=str(path)), str(path))

    async def open_port(self, address: str, port: int, context: ssl.SSLContext) -> None:
        """Serve over TLS.

        Raises:
            HostError: the port is taken.
        """
        config = _config(self._app, host=address, port=port, ssl_context_factory=lambda config, default: context)
        await self._open(config, f"{address} port {port}")

    async def close(self) -> None:
        """Stop serving; requests that are under way get a moment to end."""
        for server, _ in self._running:
            server.should_exit = True
        for _, task in self._running:
            await task

    async def _open(self, config: uvicorn.Config, where: str) -> None:
        server = _Server(config)
        task = asyncio.create_task(server.serve(), name=f"serve {where}")
        async with asyncio.timeout(START_S):
            while not server.started and not task.done():
                await asyncio.sleep(0.01)
        if task.done():
            reason = task.exception()
            raise HostError(f"cannot listen on {where}: {reason or 'it is taken'}", code="no-listen") from reason
        self._running.append((server, task))
        _log.info("listening", where=where)


class _Server(uvicorn.Server):
    """A server that leaves signals to the daemon, and reports a failure instead of ending the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        except SystemExit as error:
            raise HostError("it is taken, or may not be used", code="no-listen") from error


def _config(app: FastAPI, **where: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=ConnectionProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        server_header=False,
        **where,
    )
