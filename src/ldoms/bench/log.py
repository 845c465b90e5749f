"""What pgbench wrote: one value for each transaction, and the report at its end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """How a transaction ended, for its client."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    """The server has said that it was rolled back: a deadlock, or a serialization failure."""
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One line of pgbench's log.

    Attributes:
        seq: number among the client's transactions, from 1, whatever their outcome.
        at: when it was over, seconds since 1970.
        latency_s: from when it was due to its answer, less what its user thought before it; 0 if it was not
            acknowledged.
        lag_s: part of it that it waited for its client to be free; 0 without a rate.
    """

    client: int
    seq: int
    kind: str
    at: float
    latency_s: float = 0.0
    lag_s: float = 0.0
    outcome: Outcome = Outcome.ACKNOWLEDGED

    @property
    def service_s(self) -> float:
        """From the question to the answer."""
        return max(0.0, self.latency_s - self.lag_s)


@dataclass(frozen=True, slots=True)
class Progress:
    """One of pgbench's lines per second.

    Attributes:
        elapsed_s: since its start.
        tps: acknowledged per second since the line before.
        latency_s: mean.
    """

    elapsed_s: float
    tps: float
    latency_s: float
    failed: int = 0


@dataclass(frozen=True, slots=True)
class PgbenchReport:
    """What pgbench says at its end.

    Attributes:
        processed: transactions acknowledged; None = it did not come to its end.
        aborted_clients: that gave up, by number.
        lost_clients: those of them that gave up because their connection was lost, not because of an error that
            the server reported.
        messages: its errors, one per client that gave up.
    """

    processed: int | None
    failed: int = 0
    tps: float = 0.0
    connecting_s: float = 0.0
    aborted_clients: tuple[int, ...] = ()
    lost_clients: tuple[int, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """All that is known of a load after its end.

    Attributes:
        transactions: in the order of their ends.
        is_complete: the log has every transaction that pgbench counted. Not so when it had to be killed.
    """

    transactions: tuple[Transaction, ...]
    report: PgbenchReport
    is_complete: bool


Pause = Callable[[int, int], float]
"""What a client sleeps before the transaction of a number, in seconds."""


def parse_log(text: str, kinds: Sequence[str], pause_s: Pause | None = None) -> list[Transaction]:
    """Read pgbench's log (its manual, "Per-Transaction Logging").

    A line is ``client number time script seconds microseconds [lag]``, times in microseconds; the time of one that
    was not acknowledged is a word. A last line without an end was cut off and is left out.

    Args:
        pause_s: what is taken from each time, because the client slept so long at the beginning.

    Raises:
        ValueError: a line is not of that form.
    """
    whole = text[: text.rfind("\n") + 1]
    return [_parse_line(line, kinds, pause_s) for line in whole.splitlines()]


def read_logs(paths: Iterable[Path], kinds: Sequence[str], pause_s: Pause | None = None) -> tuple[Transaction, ...]:
    """Read the files of one run, one for each of pgbench's threads, in the order in which transactions ended."""
    found = [transaction for path in paths for transaction in parse_log(path.read_text(), kinds, pause_s)]
    return tuple(sorted(found, key=lambda transaction: transaction.at))


def _parse_line(line: str, kinds: Sequence[str], pause_s: Pause | None) -> Transaction:
    fields = line.split()
    client, number, took, script, seconds, microseconds = fields[:6]
    kind = kinds[int(script)]
    at = int(seconds) + int(microseconds) / 1e6
    if not took.isdecimal():
        outcome = Outcome.SKIPPED if took == "skipped" else Outcome.FAILED
        return Transaction(int(client), int(number), kind, at, outcome=outcome)
    lag_s = int(fields[6]) / 1e6 if len(fields) > 6 else 0.0
    paused_s = pause_s(int(client), int(number)) if pause_s else 0.0
    return Transaction(int(client), int(number), kind, at, max(0.0, int(took) / 1e6 - paused_s), lag_s)


_PROGRESS = re.compile(
    r"progress: (?P<elapsed>[\d.]+) s, (?P<tps>[\d.]+) tps, lat (?P<latency>[\d.]+|NaN) ms"
    r"(?: stddev (?:[\d.]+|NaN))?(?:, (?P<failed>\d+) failed)?"
)
# Two threads may write at once: a line may hold the beginnings of two messages, so the prefix is not asked for.
_ABORTED = re.compile(r"client (?P<client>\d+) (?:script \d+ )?aborted (?P<why>.*)")


def parse_progress(errors: str) -> tuple[Progress, ...]:
    """Find the progress lines in pgbench's error output."""
    return tuple(
        Progress(
            elapsed_s=float(found["elapsed"]),
            tps=float(found["tps"]),
            latency_s=0.0 if found["latency"] == "NaN" else float(found["latency"]) / 1000,
            failed=int(found["failed"] or 0),
        )
        for found in _PROGRESS.finditer(errors)
    )


def parse_report(output: str, errors: str) -> PgbenchReport:
    """Read pgbench's summary and the messages of clients that gave up."""
    processed = _number(r"transactions actually processed: (\d+)", output)
    aborted = {int(found["client"]): found for found in _ABORTED.finditer(errors)}
    # Only an ERROR leaves the connection as it was. FATAL, "perhaps the backend died" and the system's errors do not.
    lost = [client for client, found in aborted.items() if "ERROR:" not in found["why"]]
    return PgbenchReport(
        processed=None if processed is None else int(processed),
        failed=int(_number(r"number of failed transactions: (\d+)", output) or 0),
        tps=_number(r"(?m)^tps = ([\d.]+)", output) or 0.0,
        connecting_s=(_number(r"initial connection time = ([\d.]+) ms", output) or 0.0) / 1000,
        aborted_clients=tuple(sorted(aborted)),
        lost_clients=tuple(sorted(lost)),
        messages=tuple(aborted[client][0].strip() for client in sorted(aborted)),
    )


def _number(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text)
    return float(found[1]) if found else None
