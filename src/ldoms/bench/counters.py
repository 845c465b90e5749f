"""The counters of a database at the ends of the stretches that are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ldoms.bench.clock import guest_clock, try_clock
from ldoms.bench.database import Snapshot, database_report, take_snapshot
from ldoms.bench.observe.series import CHANGED, COPY
from ldoms.bench.record import DatabaseReport, GuestClockRecord, Series, Stretch
from ldoms.bench.server import Server
from ldoms.model.errors import LdomsError
from ldoms.model.migration import ClockReading, MigrationReport


class Counters:
    """Takes them four times: at the begin, before and after the migration, and at the end.

    A server that does not give them costs the report its part about the database, not the measurement.

    Attributes:
        notes: why not, in sentences.
    """

    def __init__(self, server: Server | None, prefix: Sequence[str] = ()) -> None:
        """Ask `server`; None = there is none, and nothing is done."""
        self._server = server
        self._prefix = prefix
        self._taken: list[Snapshot] = []
        self._clocks: list[ClockReading | None] = []
        self.notes: list[str] = []

    def take(self) -> None:
        """Take them once more, and the clock of the server's machine."""
        if self._server is not None:
            self._clocks.append(try_clock(self._server, prefix=self._prefix))
        if self._server is None or self.notes:
            return
        try:
            self._taken.append(take_snapshot(self._server, prefix=self._prefix))
        except LdomsError as error:
            self.notes.append(f"the counters of the database: {error.message}")

    def clock(self, migration: MigrationReport) -> GuestClockRecord | None:
        """The guest's clock before the move and after it; None if there is no server to ask."""
        if len(self._clocks) != len(Stretch) + 1:
            return None
        _, before, _, after = self._clocks
        return guest_clock(before, after, migration.guest_time)

    def report(self, migration: MigrationReport, series: Iterable[Series]) -> DatabaseReport | None:
        """What they have grown by in each stretch, beside what the migration saw of the guest's memory.

        The server is asked for more, which costs it something.
        """
        if self._server is None or len(self._taken) != len(Stretch) + 1:
            return None
        pairs = zip(self._taken, self._taken[1:], strict=False)
        changed = next((one for one in series if (one.group, one.name) == (COPY, CHANGED)), None)
        stretches = dict(zip(Stretch, pairs, strict=True))
        try:
            return database_report(
                self._server, stretches, prefix=self._prefix, migration=migration, dirty_rate=changed
            )
        except LdomsError as error:
            self.notes.append(f"the report of the database: {error.message}")
            return None
