"""Everything that is looked at while a domain moves, begun together and ended together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ldoms.bench.figures import Window
from ldoms.bench.observe.hosts import HostWatch, Place, watch_hosts
from ldoms.bench.observe.lines import CopyLook, HostLog
from ldoms.bench.observe.series import copy_series, guest_series, host_series, probe_series
from ldoms.bench.pgbench import LoadRun
from ldoms.bench.probe import ProbeRecord, ProbeRun, joined, sql_record, start_probe, start_sql_probe
from ldoms.bench.record import Series
from ldoms.bench.server import Server
from ldoms.model.errors import HostError

PING, CONNECT, SQL = "ping", "connect", "sql"
CLIENTS = {SQL: "a client of the database", PING: "ping", CONNECT: "new connections"}
"""Probes in the order in which they can say what a client sees of an interruption, with words for them."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What is asked from outside, and how often: the intervals decide what it costs the guest.

    Attributes:
        address: of the guest; empty = neither ping nor connections.
        port: to which connections are made; 0 = none are.
        server: that is asked ``select 1``; None = none is.
        prefix: words in front of a command that run it where the clients are.
        seconds: after which it ends by itself, whatever becomes of whoever began it.
        connect_s: a new connection costs a PostgreSQL server a process, ten times what a question does.
        closely_s: of ping and questions while `Observation.closely` is on; 0 = as always.
    """

    address: str = ""
    port: int = 0
    server: Server | None = None
    prefix: tuple[str, ...] = ()
    ping_s: float = 0.05
    connect_s: float = 5.0
    sql_s: float = 0.05
    closely_s: float = 0.0
    seconds: float = 3600.0


class Observation:
    """What was seen; whole once it has ended."""

    def __init__(
        self, watches: Sequence[HostWatch], outside: Outside, directory: Path, pgbench: Path | None = None
    ) -> None:
        self._watches = watches
        self._outside = outside
        self._directory = directory
        self._pgbench = pgbench
        self._asked: list[_Asked] = []
        self._logs: tuple[HostLog, ...] | None = None

    @property
    def logs(self) -> tuple[HostLog, ...]:
        """What each host has seen so far, the source first."""
        return self._logs if self._logs is not None else tuple(watch.log() for watch in self._watches)

    @property
    def copies(self) -> tuple[CopyLook, ...]:
        """The copy as its source saw it."""
        return self.logs[0].copies if self._watches else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be seen, in sentences."""
        return tuple(f"{log.host}: {note}" for log in self.logs for note in log.notes)

    def probes(self) -> dict[str, ProbeRecord]:
        """The records of the probes, by name.

        Raises:
            HostError: one of them has seen nothing at all.
        """
        asked = [one.records() for one in self._asked]
        names = asked[0] if asked else {}
        return {name: joined([records[name] for records in asked if name in records]) for name in names}

    def series(self, window: Window) -> tuple[Series, ...]:
        """Everything second by second, where it lies in the window."""
        logs = self.logs
        guests = [look for log in logs for look in log.guests]
        return (
            *guest_series(guests),
            *host_series(logs),
            *copy_series(self.copies),
            *probe_series(self.probes(), window),
        )

    @contextmanager
    def closely(self) -> Iterator[None]:
        """Ask more often until the end of the block, as `Outside` says: for what is short, and costs too much always.

        Raises:
            HostError: nothing outside has had an answer.
        """
        outside = self._outside
        if not outside.closely_s:
            yield
            return
        # A new connection says nothing that a question does not, and costs ten times as much.
        outside = replace(outside, port=0, ping_s=outside.closely_s, sql_s=outside.closely_s)
        directory = self._directory / "closely"
        directory.mkdir()
        with ExitStack() as undo:
            self._asked.append(_Asked.start(self._pgbench, outside, directory, undo))
            yield

    # Inside

    def begin(self, undo: ExitStack) -> None:
        """Start what asks from outside all the time; `undo` ends it."""
        self._asked.append(_Asked.start(self._pgbench, self._outside, self._directory, undo))

    def end(self) -> None:
        """Stop the watches, and keep what they have seen."""
        for watch in self._watches:
            watch.stop()
        self._logs = tuple(watch.log() for watch in self._watches)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Probes that were started together."""

    outside: Outside
    runs: Mapping[str, ProbeRun]
    sql: LoadRun | None

    @classmethod
    def start(cls, pgbench: Path | None, outside: Outside, directory: Path, undo: ExitStack) -> _Asked:
        """Start them, and return when each has had an answer; `undo` ends them."""
        asked: Mapping[str, tuple[str, float]] = {}
        if outside.address:
            asked = {PING: ("icmp", outside.ping_s)}
            if outside.port:
                asked = {**asked, CONNECT: ("connect", outside.connect_s)}
        runs = {}
        for name, (sort, interval_s) in asked.items():
            runs[name] = start_probe(
                sort,
                outside.address,
                directory / f"{name}.jsonl",
                port=outside.port,
                interval_s=interval_s,
                seconds=outside.seconds,
                prefix=outside.prefix,
            )
            undo.callback(runs[name].stop)
        sql = None
        if outside.server is not None and pgbench is not None:
            sql = start_sql_probe(
                pgbench,
                outside.server,
                directory / SQL,
                interval_s=outside.sql_s,
                seconds=round(outside.seconds),
                prefix=outside.prefix,
            )
            undo.callback(sql.stop)
        for run in runs.values():
            run.wait_until_begun()
        return cls(outside, runs, sql)

    def records(self) -> dict[str, ProbeRecord]:
        """What each has seen."""
        found = {name: run.result() for name, run in self.runs.items()}
        if self.sql is not None:
            assert self.outside.server is not None
            try:
                found[SQL] = sql_record(
                    self.sql.result(), target=self.outside.server.host, interval_s=self.outside.sql_s
                )
            except ValueError as error:
                raise HostError(str(error), code="probe-failed") from error
        return found


@contextmanager
def observe(
    domain: str, hosts: Sequence[Place], outside: Outside, directory: Path, *, pgbench: Path | None = None
) -> Iterator[Observation]:
    """Look at a domain from its hosts, the source first, and from outside, until the end of the block.

    Args:
        directory: where what is seen is kept; it is made.
        pgbench: for the questions to a database.

    Raises:
        HostError: a host cannot be watched, or nothing outside has had an answer; nothing goes on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as undo:
        made = Observation(watch_hosts(hosts, domain, directory), outside, directory, pgbench)
        undo.callback(made.end)
        made.begin(undo)
        yield made
