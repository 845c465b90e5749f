"""What a log means: throughput, latencies and gaps, each within a window of time."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ldoms.bench.log import Outcome, Transaction


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, seconds since 1970; its end is not part of it."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin

    def __contains__(self, at: float) -> bool:
        return self.begin <= at < self.end


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch without an answer: when it began, seconds since 1970, and how long it was."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of times in seconds, by nearest rank: each is one of the values measured."""

    median_s: float
    p95_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """A load in one window.

    Attributes:
        transactions: acknowledged in it.
        failed: rolled back by the server in it.
        latency: what a user waits: from when the transaction was due. None = there was no transaction.
        service: what the server takes: from when it was sent.
        longest_gap: see `longest_gap`.
    """

    window: Window
    transactions: int
    failed: int
    tps: float
    latency: Percentiles | None
    service: Percentiles | None
    longest_gap: Gap


def window_figures(transactions: Iterable[Transaction], window: Window) -> WindowFigures:
    """Sum up what ended in a window that lies within the run."""
    transactions = list(transactions)
    inside = [transaction for transaction in transactions if transaction.at in window]
    answered = [transaction for transaction in inside if transaction.outcome is Outcome.ACKNOWLEDGED]
    return WindowFigures(
        window=window,
        transactions=len(answered),
        failed=sum(1 for transaction in inside if transaction.outcome is Outcome.FAILED),
        tps=len(answered) / window.seconds,
        latency=percentiles([transaction.latency_s for transaction in answered]),
        service=percentiles([transaction.service_s for transaction in answered]),
        longest_gap=longest_gap(commit_times(transactions), window),
    )


def commit_times(transactions: Iterable[Transaction]) -> list[float]:
    """When transactions were acknowledged, in order."""
    return sorted(one.at for one in transactions if one.outcome is Outcome.ACKNOWLEDGED)


def tps_by_second(transactions: Iterable[Transaction], window: Window) -> tuple[int, ...]:
    """How many were acknowledged in each second from the window's begin; a last part of a second is left out."""
    seconds = Counter(math.floor(at - window.begin) for at in commit_times(transactions))
    return tuple(seconds[second] for second in range(math.floor(window.seconds)))


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """Sum up values; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return Percentiles(percentile(ordered, 50), percentile(ordered, 95), percentile(ordered, 99), ordered[-1])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the values that at least `percent` of them do not exceed; they are in ascending order."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def gaps(times: Sequence[float], window: Window) -> list[Gap]:
    """The stretches between consecutive answers that overlap the window, whole also where they reach out of it.

    Where nothing comes before (or after), the window's begin (or end) takes the place of an answer. So the window
    must lie within the time in which answers were asked for.

    Args:
        times: of answers, ascending.
    """
    first = max(0, bisect_right(times, window.begin) - 1)
    last = bisect_left(times, window.end)
    marks = list(times[first : last + 1])
    if not marks or marks[0] > window.begin:
        marks.insert(0, window.begin)
    if marks[-1] < window.end:
        marks.append(window.end)
    return [Gap(begin, end - begin) for begin, end in pairwise(marks)]


def longest_gap(times: Sequence[float], window: Window) -> Gap:
    """The longest of `gaps`: what a client saw of an interruption."""
    return max(gaps(times, window), key=lambda gap: gap.seconds)
