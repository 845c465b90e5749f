"""Calls to the manager of another host, over TLS: implements `ldoms.migration.peer`."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from ldoms.api.wire import PREFIX
from ldoms.auth.certificates import Certificates
from ldoms.migration.peer import Credentials
from ldoms.model import errors
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import LdomsError, PeerError
from ldoms.model.migration import (
    ClockTimes,
    Description,
    DescriptionAnswer,
    MigrationReport,
    Preparation,
    TargetStatus,
    Ticket,
    Trial,
)
from ldoms.model.queue import Turn

T = TypeVar("T")

CONNECT_S = 5.0
DESCRIBE_S = 90.0
"""A wrong password is answered late on purpose."""
TRIAL_S = 10.0
PREPARE_S = 60.0
STATUS_S = 2.0
FINISH_S = 15.0
ABORT_S = 20.0


class HttpConnector:
    """Makes connections to the managers of other hosts, each of which must show its trusted certificate."""

    def __init__(self, certificates: Certificates, port: int) -> None:
        self._certificates = certificates
        self._port = port

    async def connect(self, host: str, credentials: Credentials, address: str = "") -> HttpPeer:
        """Connect to the manager of `host`, at `address` if that is known from before."""
        context = self._certificates.client_context(host, show_certificate=credentials.certificate)
        if not address:
            address = await _resolve(host, self._port)
        return HttpPeer(host, address, self._port, context, credentials)


class HttpPeer:
    """The manager of another host. See `ldoms.migration.peer.Peer`."""

    def __init__(self, host: str, address: str, port: int, context: ssl.SSLContext, credentials: Credentials) -> None:
        self._host = host
        self.address = address
        netloc = f"[{address}]" if ":" in address else address
        user, password = credentials.user, credentials.password
        self._authentication = httpx.BasicAuth(user, password) if user else httpx.Auth()
        self._client = httpx.AsyncClient(
            base_url=f"https://{netloc}:{port}{PREFIX}/peer",
            verify=context,
            auth=self._authentication,
            trust_env=False,  # a proxy of the environment has no business between hosts
            timeout=httpx.Timeout(CONNECT_S),
        )
        if credentials.token:
            self.use_token(credentials.token)

    def use_token(self, token: str) -> None:
        """Use what the target has given for all later calls."""
        self._client.auth = httpx.Auth()
        self._client.headers["Authorization"] = f"Bearer {token}"

    async def describe(self, description: Description) -> DescriptionAnswer:
        """Tell the target what is to come, and hear what it says to that."""
        self._client.headers.pop("Authorization", None)  # it may be asked again, when there is a token already
        self._client.auth = self._authentication
        return await self._call(DescriptionAnswer, "/describe", to_wire(description), DESCRIBE_S)

    async def clock(self, migration: str) -> ClockTimes:
        """Ask for the target's time."""
        return await self._call(ClockTimes, f"/migrations/{migration}/clock", {}, STATUS_S)

    async def begin_trial(self, trial: Trial) -> Ticket:
        """Have the target receive a trial of the link."""
        return await self._call(Ticket, f"/migrations/{trial.migration}/trial", to_wire(trial), TRIAL_S)

    async def end_trial(self, migration: str) -> None:
        """End it."""
        await self._request("DELETE", f"/migrations/{migration}/trial", None, TRIAL_S)

    async def ask_turn(self, migration: str) -> Turn:
        """Ask whether the domain may come now."""
        return await self._call(Turn, f"/migrations/{migration}/turn", {}, STATUS_S)

    async def prepare(self, preparation: Preparation) -> Ticket:
        """Have the target get ready."""
        path = f"/migrations/{preparation.migration}/prepare"
        return await self._call(Ticket, path, to_wire(preparation), PREPARE_S)

    async def status(self, migration: str, phase: str, progress: int) -> TargetStatus:
        """Tell how it stands here and ask how it stands there."""
        body = {"phase": phase, "progress": progress}
        return await self._call(TargetStatus, f"/migrations/{migration}/status", body, STATUS_S)

    async def finish(self, migration: str) -> TargetStatus:
        """Ask the target to take over."""
        return await self._call(TargetStatus, f"/migrations/{migration}/finish", {}, FINISH_S)

    async def abort(self, migration: str, reason: str) -> TargetStatus:
        """Call the migration off."""
        return await self._call(TargetStatus, f"/migrations/{migration}/abort", {"reason": reason}, ABORT_S)

    async def listen_again(self, migration: str) -> Ticket:
        """Have the target wait for the rest of a guest's memory at another place."""
        return await self._call(Ticket, f"/migrations/{migration}/listen-again", {}, FINISH_S)

    async def deliver_report(self, report: MigrationReport) -> None:
        """Leave the report with the target as well."""
        await self._request("PUT", f"/migrations/{report.id}/report", to_wire(report), STATUS_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _call(self, kind: type[T], path: str, body: dict[str, Any], limit_s: float) -> T:
        answer = await self._request("POST", path, body, limit_s)
        try:
            return from_wire(kind, answer.json())
        except ValueError as error:
            raise PeerError(f"ldmd on {self._host} gave an answer that is not understood: {error}") from error

    async def _request(self, method: str, path: str, body: dict[str, Any] | None, limit_s: float) -> httpx.Response:
        with _translated(self._host):
            answer = await self._client.request(
                method, path, json=body, timeout=httpx.Timeout(limit_s, connect=min(CONNECT_S, limit_s))
            )
        if answer.is_error:
            raise _error_of(self._host, answer)
        return answer


async def _resolve(host: str, port: int) -> str:
    """The address of a host.

    Raises:
        PeerError: it has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PeerError(f"host {host} is not known: {error.strerror or error}", code="unknown-host") from error
    return str(found[0][4][0])


@contextmanager
def _translated(host: str) -> Iterator[None]:
    """Turn every failure to reach the other host into a `PeerError`."""
    try:
        yield
    except httpx.HTTPError as error:
        if isinstance(_root(error), ssl.SSLCertVerificationError):
            raise PeerError(
                f"host {host} does not show the certificate that is trusted under that name; if it has really"
                f" changed, run 'ldm remove-trust {host}' and 'ldm add-trust {host}'",
                code="wrong-certificate",
            ) from error
        raise PeerError(
            f"Failed to establish connection with ldmd on target: {host} ({error or type(error).__name__})",
            code="no-connection",
        ) from error


def _root(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _error_of(host: str, answer: httpx.Response) -> LdomsError:
    """The error that the other host answered with: what you may change is yours, the rest is that host's."""
    try:
        described = answer.json()["error"]
        family, code, message = described["family"], described["code"], described["message"]
    except (ValueError, KeyError, TypeError):
        return PeerError(f"ldmd on {host} answered with HTTP status {answer.status_code}")
    kind = getattr(errors, family, PeerError)
    if isinstance(kind, type) and issubclass(kind, errors.RequestError):
        return kind(f"{message} (on {host})", code=code)
    return PeerError(f"ldmd on {host}: {message}", code=code)
