"""Who is at the other end of a connection: found out once, when it is made, and carried along with each request."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ldoms.auth.certificates import fingerprint_of_der

STATE_KEY = "connection"


@dataclass(frozen=True, slots=True)
class Connection:
    """The other end of a connection.

    Attributes:
        uid: of the process at the other end of the local socket; None over the network.
        address: of the other host; empty for the local socket.
        fingerprint: of the trusted certificate that it has shown, or empty.
    """

    uid: int | None = None
    address: str = ""
    fingerprint: str = ""


class ConnectionProtocol(HttpToolsProtocol):
    """HTTP that knows with whom it speaks: `Connection` is in the state of each request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look at the other end."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, STATE_KEY: _look_at(transport)}


def _look_at(transport: asyncio.Transport) -> Connection:
    peer: socket.socket = transport.get_extra_info("socket")
    if peer.family == socket.AF_UNIX:
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return Connection(uid=uid)
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    name: Any = transport.get_extra_info("peername")
    return Connection(address=name[0], fingerprint=fingerprint_of_der(certificate) if certificate else "")
