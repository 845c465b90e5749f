"""The other host's manager, as the source of a migration sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True, slots=True)
class Credentials:
    """By what the target is to know who is calling.

    Attributes:
        user, password: of a user of the target; empty with certificates.
        certificate: show this host's own certificate.
        token: given by the target in an earlier answer.
    """

    user: str = ""
    password: str = ""
    certificate: bool = False
    token: str = ""

    def __repr__(self) -> str:
        """Without anything secret, as it may end in a log."""
        return f"Credentials(user={self.user!r}, certificate={self.certificate})"


class Peer(Protocol):
    """Calls to the target. All of them raise `PeerError` when it does not answer in time.

    `finish` and `abort` may be repeated as often as one likes: the target has decided once, and says so again.
    """

    @property
    def address(self) -> str:
        """The address that the target is reached at."""

    def use_token(self, token: str) -> None:
        """Use what the target has given for all later calls."""

    async def describe(self, description: Description) -> DescriptionAnswer:
        """Tell the target what is to come, and hear what it says to that.

        Raises:
            NotAuthorized: the target does not let the caller in.
        """

    async def clock(self, migration: str) -> ClockTimes:
        """Ask for the target's time."""

    async def begin_trial(self, trial: Trial) -> Ticket:
        """Have the target receive a trial of the link; it ends with `end_trial`, and by itself after a while."""

    async def end_trial(self, migration: str) -> None:
        """End it."""

    async def ask_turn(self, migration: str) -> Turn:
        """Ask whether the domain may come now."""

    async def prepare(self, preparation: Preparation) -> Ticket:
        """Have the target get ready."""

    async def status(self, migration: str, phase: str, progress: int) -> TargetStatus:
        """Tell how it stands here and ask how it stands there: the sign of life that the target waits for."""

    async def finish(self, migration: str) -> TargetStatus:
        """Ask the target to take over; the answer has its verdict."""

    async def abort(self, migration: str, reason: str) -> TargetStatus:
        """Call the migration off; the answer has the verdict, which may be that it was taken already."""

    async def listen_again(self, migration: str) -> Ticket:
        """Have the target wait for the rest of a guest's memory at another place; may be repeated.

        Raises:
            RequestError: code ``no-pages-missing``: it lacks none, or its guest has ended.
        """

    async def deliver_report(self, report: MigrationReport) -> None:
        """Leave the report with the target as well."""

    async def close(self) -> None:
        """Close the connection."""


class Connector(Protocol):
    """Makes connections to other hosts."""

    async def connect(self, host: str, credentials: Credentials, address: str = "") -> Peer:
        """Connect to the manager of `host`, at `address` if that is known from before.

        Raises:
            RequestError: code ``host-key-unknown``: its certificate is not trusted yet.
            PeerError: it cannot be reached, or shows another certificate than the one that is trusted.
        """
