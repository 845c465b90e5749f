"""What a run says of itself while it goes on: a line each second, in the columns of SwingBench's charbench."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ldoms.bench.log import Outcome, Pause, Progress, Transaction, parse_log, parse_progress, parse_report

MINUTE = 60


class Tail:
    """Reads what pgbench has added to its files since it was asked last.

    It writes its logs in blocks of 4 KiB, about a hundred transactions for each of its threads: at low rates what is
    read here is some seconds old. What it says of each second is there at once.
    """

    def __init__(self, kinds: Sequence[str], pause_s: Pause | None = None) -> None:
        self._kinds = kinds
        self._pause_s = pause_s
        self._read: dict[Path, int] = defaultdict(int)
        self.aborted = 0
        """Clients that have given up by now."""

    def transactions(self, logs: Iterable[Path]) -> list[Transaction]:
        """What has come in its logs."""
        return [one for path in logs for one in parse_log(self._new(path), self._kinds, self._pause_s)]

    def reports(self, errors: Path) -> tuple[Progress, ...]:
        """Seconds that it has reported."""
        text = self._new(errors)
        self.aborted += len(parse_report("", text).aborted_clients)
        return parse_progress(text)

    def _new(self, path: Path) -> str:
        with path.open("rb") as opened:
            opened.seek(self._read[path])
            content = opened.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read[path] += len(whole)
        return whole.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Line:
    """One second.

    Attributes:
        tpm: transactions in the last minute, or since the begin where that is shorter.
        tps: transactions in the last second.
        connected: users whose connection has not been lost.
        response_ms: mean of the last second.
        by_kind_ms: mean of each kind in the newest part of the log that has one.
    """

    tpm: int
    tps: int
    connected: int
    users: int
    response_ms: float
    by_kind_ms: Mapping[str, float]


class LiveFigures:
    """Makes lines from pgbench's reports of each second and its log."""

    def __init__(self, kinds: Sequence[str], users: int, *, has_pauses: bool) -> None:
        """Begin.

        Args:
            kinds: short names, in the order of the columns.
            has_pauses: clients sleep within their scripts, so pgbench's own mean is no response.
        """
        self._users = users
        self._has_pauses = has_pauses
        self._minute: deque[float] = deque(maxlen=MINUTE)
        self._elapsed_s = 0.0
        self._by_kind = dict.fromkeys(kinds, 0.0)
        self._response_ms = 0.0

    def line(self, progress: Progress, news: Sequence[Transaction], aborted: int) -> Line:
        """The line of a second that is over.

        Args:
            progress: pgbench's report.
            news: what its log had more.
            aborted: clients that have given up by now.
        """
        seconds = max(progress.elapsed_s - self._elapsed_s, 1e-3)
        self._elapsed_s = progress.elapsed_s
        self._minute.append(progress.tps * seconds)
        self._note(news)
        if not self._has_pauses:
            self._response_ms = progress.latency_s * 1000
        return Line(
            tpm=round(sum(self._minute)),
            tps=round(progress.tps),
            connected=self._users - aborted,
            users=self._users,
            response_ms=self._response_ms,
            by_kind_ms=dict(self._by_kind),
        )

    def _note(self, news: Sequence[Transaction]) -> None:
        times: dict[str, list[float]] = defaultdict(list)
        for one in news:
            if one.outcome is Outcome.ACKNOWLEDGED:
                times[one.kind].append(one.latency_s * 1000)
        for kind, values in times.items():
            self._by_kind[kind] = math.fsum(values) / len(values)
        if self._has_pauses and times:
            everything = [value for values in times.values() for value in values]
            self._response_ms = math.fsum(everything) / len(everything)


def header(kinds: Sequence[str]) -> str:
    """The line above the columns."""
    return (
        f"{'Time':<9}{'TPM':<9}{'TPS':<8}{'Users':<12}{'Response':<9}"
        + "".join(f"{kind:<6}" for kind in kinds).rstrip()
    )


def formatted(line: Line, clock: str) -> str:
    """A line in the columns; times in milliseconds."""
    users = f"[{line.connected}/{line.users}]"
    kinds = "".join(f"{_milliseconds(value):<6}" for value in line.by_kind_ms.values())
    return (f"{clock:<9}{line.tpm:<9}{line.tps:<8}{users:<12}{_milliseconds(line.response_ms):<9}{kinds}").rstrip()


def _milliseconds(value: float) -> str:
    """Whole; what takes a part of a millisecond is not nothing."""
    return "1" if 0 < value < 1 else f"{value:.0f}"
