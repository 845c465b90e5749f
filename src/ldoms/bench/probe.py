"""What a client sees from outside: small questions asked every few milliseconds, and when their answers came.

Four sorts, with one record in common:

- ``icmp``: echo requests to an address. What is lost stays lost, so it shows how long nothing got through.
- ``tcp``: one line and its answer after the other, over one connection that is never made again. TCP sends again
  what was lost, so it shows what a program would see.
- ``connect``: a new TCP connection each time, closed at once. A first packet that is lost is sent again by the kernel
  after a second, but others are under way by then: it shows how long a service cannot be reached by somebody new.
- SQL: `start_sql_probe`, the same with a database.

The first three are a program, ``python -m ldoms.bench.asking``, so that they can be run in a network namespace. It
writes a JSON line for each answer at once, and a last one at its end: by its time, or by SIGTERM.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ldoms.bench.background import Background
from ldoms.bench.figures import Gap, Window, gaps, percentile
from ldoms.bench.log import LoadResult, Outcome
from ldoms.bench.pgbench import LoadOptions, LoadRun, Script, start_load
from ldoms.bench.server import Server
from ldoms.model.errors import HostError

DEFAULT_INTERVAL_S = 0.005
LATE_S = 1.0
"""An answer that is not there so long after its question is lost."""
CONNECT_TIMEOUT_S = 10.0
_POLL_S = 0.02
_STOP_GRACE_S = 5.0

# --------------------------------------------------------------------------------------------- what is kept


class Ending(StrEnum):
    """Why a probe ended."""

    TIME = "time"
    STOPPED = "stopped"
    LOST = "lost"
    """Its connection was lost."""
    KILLED = "killed"
    """It did not get to say why."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer.

    Attributes:
        sent_at, answered_at: seconds since 1970; None = no answer has come.
        answer: its text, for a line.
    """

    seq: int
    sent_at: float
    answered_at: float | None
    answer: str = ""


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """All that a probe has seen.

    Attributes:
        exchanges: in the order of the questions.
        error: what the system said when the connection was lost.
    """

    probe: str
    target: str
    interval_s: float
    began_at: float
    ended_at: float
    ending: Ending
    exchanges: tuple[Exchange, ...]
    error: str = ""

    @property
    def answer_times(self) -> list[float]:
        """When answers came, in order."""
        return sorted(one.answered_at for one in self.exchanges if one.answered_at is not None)

    @property
    def wrong_answers(self) -> int:
        """Lines that answer another question than the one asked; see `line_number`."""
        return sum(1 for one in self.exchanges if one.answer and line_number(one.answer) != one.seq)


@dataclass(frozen=True, slots=True)
class ProbeFigures:
    """A probe in one window.

    Attributes:
        answers: that came in it.
        lost: questions of the window that have had no answer, `LATE_S` after they were asked or when the connection
            was lost.
        median_gap_s, p99_gap_s: between consecutive answers: what is usual.
        median_round_trip_s: None = there was no answer.
        longest_gap: what is not.
        connection_lost: at any time of the record.
    """

    window: Window
    answers: int
    lost: int
    median_gap_s: float
    p99_gap_s: float
    median_round_trip_s: float | None
    longest_gap: Gap
    connection_lost: bool


def probe_figures(record: ProbeRecord, window: Window) -> ProbeFigures:
    """Sum up a window of a record.

    The time before the probe began is left out, and that after its end, unless the end was the loss of its
    connection: then the client saw nothing more.

    Raises:
        ValueError: the probe did not run in the window.
    """
    connection_lost = record.ending is Ending.LOST
    clipped = Window(
        max(window.begin, record.began_at), window.end if connection_lost else min(window.end, record.ended_at)
    )
    if clipped.seconds <= 0:
        raise ValueError(f"the probe of {record.target} did not run between {window.begin} and {window.end}")
    lengths = sorted(gap.seconds for gap in gaps(record.answer_times, clipped))
    answered = [one for one in record.exchanges if one.answered_at is not None and one.answered_at in clipped]
    round_trips = sorted(one.answered_at - one.sent_at for one in answered if one.answered_at is not None)
    return ProbeFigures(
        window=clipped,
        answers=len(answered),
        lost=sum(1 for one in record.exchanges if one.sent_at in clipped and _is_lost(one, record)),
        median_gap_s=percentile(lengths, 50),
        p99_gap_s=percentile(lengths, 99),
        median_round_trip_s=percentile(round_trips, 50) if round_trips else None,
        longest_gap=max(gaps(record.answer_times, clipped), key=lambda gap: gap.seconds),
        connection_lost=connection_lost,
    )


def joined(records: Sequence[ProbeRecord]) -> ProbeRecord:
    """One record of several probes that asked the same; the first of them for the longest time.

    It is lost if one of them is.
    """
    whole = next((record for record in records if record.ending is Ending.LOST), records[0])
    exchanges = sorted((one for record in records for one in record.exchanges), key=lambda one: one.sent_at)
    return replace(records[0], exchanges=tuple(exchanges), ending=whole.ending, error=whole.error)


def _is_lost(exchange: Exchange, record: ProbeRecord) -> bool:
    if exchange.answered_at is not None:
        return False
    return record.ending is Ending.LOST or exchange.sent_at < record.ended_at - LATE_S


def line_number(answer: str) -> int:
    """The number that an answer begins with, that of its question; -1 = none."""
    word = answer.split(maxsplit=1)[0] if answer.split() else ""
    return int(word) if word.isdecimal() else -1


def line_counters(answer: str) -> dict[str, int]:
    """The ``name=number`` words of an answer such as ``17 count=3203 errors=0``."""
    pairs = (word.partition("=") for word in answer.split())
    return {name: int(value) for name, _, value in pairs if value.isdecimal()}


def read_record(path: Path) -> ProbeRecord:
    """Read what a probe has written, also of one that still runs or was killed.

    Raises:
        ValueError: it is not such a file, or there is nothing in it yet.
    """
    return parse_record(path.read_text())


def parse_record(text: str) -> ProbeRecord:
    """Read the lines of a record; a last line without an end was cut off and is left out.

    Raises:
        ValueError: as `read_record`.
    """
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    if not lines or "probe" not in lines[0]:
        raise ValueError("this is not the record of a probe, or it has not begun")
    first, last = lines[0], lines[-1]
    exchanges = [
        Exchange(line["seq"], line["sent_at"], line["answered_at"], line.get("answer", ""))
        for line in lines
        if "seq" in line
    ]
    latest = max([first["began_at"], *(one.answered_at or one.sent_at for one in exchanges)])
    return ProbeRecord(
        probe=first["probe"],
        target=first["target"],
        interval_s=first["interval_s"],
        began_at=first["began_at"],
        ended_at=last.get("ended_at", latest),
        ending=Ending(last.get("ending", Ending.KILLED)),
        exchanges=tuple(sorted(exchanges, key=lambda one: one.seq)),
        error=last.get("error", ""),
    )


# --------------------------------------------------------------------------------------------- started from outside


class ProbeRun:
    """A probe that runs in the background; its record is `path`."""

    def __init__(self, words: Sequence[str], path: Path, seconds: float) -> None:
        """Start it; use `start_probe`."""
        self.path = path
        self._seconds = seconds
        self._program = Background(words, path.parent, path.stem, mark=str(path))

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._program.is_running

    @property
    def pid(self) -> int:
        """Its own, whatever was put in front of it; 0 = not yet."""
        return self._program.pid

    def wait_until_begun(self, timeout_s: float = CONNECT_TIMEOUT_S + 5.0) -> None:
        """Wait for the first answer.

        Raises:
            HostError: it ended before, or none came; the message has its own words.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.is_running:
            if self._has_answer():
                return
            time.sleep(_POLL_S)
        raise HostError(f"the probe has had no answer: {self._said()}", code="probe-failed")

    def stop(self) -> None:
        """End it; what it has seen is in its record."""
        deadline = time.monotonic() + _STOP_GRACE_S
        asked = False
        try:
            while self.is_running and time.monotonic() < deadline:
                # Not before its record begins: until then nobody would note why it ended.
                asked = asked or (self._has_begun() and self._program.send(signal.SIGTERM))
                time.sleep(_POLL_S)
        finally:
            self._program.kill()  # also when somebody cannot wait

    def _has_begun(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def result(self) -> ProbeRecord:
        """Wait for its end and read its record.

        Raises:
            HostError: it could not begin.
        """
        if not self._program.wait(self._seconds + CONNECT_TIMEOUT_S + _STOP_GRACE_S):
            self.stop()
        try:
            return read_record(self.path)
        except (OSError, ValueError) as error:
            raise HostError(f"the probe could not begin: {self._said()}", code="probe-failed") from error

    def _has_answer(self) -> bool:
        with suppress(OSError, ValueError):
            return bool(read_record(self.path).answer_times)
        return False

    def _said(self) -> str:
        return self.path.with_suffix(".err").read_text(errors="replace").strip()


def start_probe(
    probe: str,
    host: str,
    path: Path,
    *,
    port: int = 7,
    interval_s: float = DEFAULT_INTERVAL_S,
    seconds: float = 3600.0,
    prefix: Sequence[str] = (),
) -> ProbeRun:
    """Start a probe: ``connect``, ``icmp`` or ``tcp``.

    Args:
        path: its record, a new file; its output goes beside it.
        port: for ``connect``, and of the line probe.
        seconds: it ends by itself after so long.

    Raises:
        HostError: it cannot be started. That nothing answers shows in `ProbeRun.wait_until_begun`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()
    path.unlink(missing_ok=True)
    words = [sys.executable, "-m", "ldoms.bench.asking", probe, host, f"--port={port}"]
    words += [f"--interval={interval_s}", f"--seconds={seconds}", f"--record={path}"]
    return ProbeRun([*prefix, *words], path, seconds)


def start_sql_probe(
    pgbench: Path,
    server: Server,
    directory: Path,
    *,
    interval_s: float = DEFAULT_INTERVAL_S,
    seconds: int = 3600,
    prefix: Sequence[str] = (),
) -> LoadRun:
    """Start one client that asks a database ``select 1`` again and again; read it with `sql_record`.

    It pauses in its script, before the question: pgbench's own rate would start them at random moments, and more than
    once a second such a gap is five times as long as the mean.

    Raises:
        AlreadyExists, HostError: as `ldoms.bench.pgbench.start_load`.
    """
    script = Script("probe", f"\\sleep {round(interval_s * 1e6)} us\nselect 1;\n")
    options = LoadOptions(clients=1, threads=1, seconds=seconds)
    return start_load(pgbench, server, [script], options, directory, prefix=prefix)


def sql_record(result: LoadResult, *, target: str, interval_s: float = DEFAULT_INTERVAL_S) -> ProbeRecord:
    """What the client of `start_sql_probe` has seen.

    pgbench's time includes the pause, which is taken off; so a round trip includes what it overslept.

    Raises:
        ValueError: no question was answered.
    """
    answered = [one for one in result.transactions if one.outcome is Outcome.ACKNOWLEDGED]
    if not answered:
        raise ValueError(f"the probe of {target} has had no answer")
    exchanges = [Exchange(one.seq, one.at - max(0.0, one.latency_s - interval_s), one.at) for one in answered]
    ending = Ending.TIME if result.is_complete else Ending.KILLED
    if result.report.lost_clients:
        ending = Ending.LOST
        exchanges.append(Exchange(answered[-1].seq + 1, answered[-1].at + interval_s, None))
    return ProbeRecord(
        probe="sql",
        target=target,
        interval_s=interval_s,
        began_at=answered[0].at - answered[0].latency_s,
        ended_at=answered[-1].at,
        ending=ending,
        exchanges=tuple(exchanges),
        error="; ".join(result.report.messages),
    )
