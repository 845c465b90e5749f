"""The decisions over copies that QEMU has made: recorded pass by pass, good ones and bad ones.

A trace is a JSON file in ``traces``: what was copied and how (`about`), what was promised, how it ended (`end`), what
was done at a stall (`measures`), and of each pass what `PassSample` has. They are of QEMU 10.0.2 under TCG.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ldoms.migration.convergence import (
    Decision,
    GiveUp,
    PassSample,
    Promise,
    SetLimit,
    Situation,
    StartPostcopy,
    SuspendNow,
    Throttle,
    Wait,
    decide,
)
from ldoms.migration.copying import POLL_S
from ldoms.migration.plan import FIRST_DOWNTIME_LIMIT_S, downtime_most_s
from ldoms.model.codec import from_wire
from ldoms.model.migration import OnStall

TRACES = Path(__file__).parent / "traces"
NAMES = sorted(path.stem for path in TRACES.glob("*.json"))


@dataclass(frozen=True, slots=True)
class Trace:
    """A copy that was recorded.

    Attributes:
        throttle_percents: the steps of a throttle, where one was allowed.
        end: `moved` or `stayed`.
        measures: what was done at a stall: percents of a throttle; 0 = the guest was suspended.
    """

    about: str
    max_suspend_s: float
    on_stall: OnStall
    throttle_percents: tuple[int, ...]
    end: str
    measures: tuple[int, ...]
    passes: tuple[PassSample, ...]

    def promise(self, on_stall: OnStall | None = None, max_suspend_s: float = 0.0) -> Promise:
        """As it was, or with something else."""
        max_suspend_s, on_stall = max_suspend_s or self.max_suspend_s, on_stall or self.on_stall
        most_s = downtime_most_s(max_suspend_s)
        steps = self.throttle_percents if on_stall is OnStall.THROTTLE else ()
        return Promise(max_suspend_s, min(FIRST_DOWNTIME_LIMIT_S, most_s), most_s, 0.0, on_stall, steps)


def load(name: str) -> Trace:
    return from_wire(Trace, json.loads((TRACES / f"{name}.json").read_text()))


def replay(trace: Trace, promise: Promise) -> list[tuple[int, Decision]]:
    """What is decided, and after how many passes, looking as often as is done in earnest; up to the first end."""
    now, made = Situation([], 0.0, promise.first_limit_s, 0.0), list[tuple[int, Decision]]()
    before, last = trace.passes[-2:]
    ends_s = [*(sample.at_s for sample in trace.passes[1:]), 2 * last.at_s - before.at_s]
    for number, (sample, end_s) in enumerate(zip(trace.passes, ends_s, strict=True), 1):
        now = replace(now, passes=[*now.passes, sample], now_s=sample.at_s, throttled_percent=sample.throttle_percent)
        while now.now_s < end_s:
            decision = decide(now, promise)
            made.append((number, decision))
            match decision:
                case SetLimit(seconds):
                    since_s = now.now_s if seconds > now.limit_s else now.since_s
                    now = replace(now, limit_s=seconds, since_s=since_s)
                case Throttle(percent):
                    now = replace(now, throttle_percent=percent, since_s=now.now_s)
                case SuspendNow():
                    now = replace(now, is_suspended=True, since_s=now.now_s)
                case StartPostcopy():
                    now = replace(now, goes_over=True, since_s=now.now_s)
                case GiveUp():
                    return made
            now = replace(now, now_s=now.now_s + POLL_S)
    return made


def measures_in(made: list[tuple[int, Decision]]) -> tuple[int, ...]:
    taken = [one for _, one in made if isinstance(one, Throttle | SuspendNow)]
    return tuple(one.percent if isinstance(one, Throttle) else 0 for one in taken)


def test_there_are_good_ones_and_bad_ones() -> None:
    """Each end, with and without something that was done."""
    ends = {(trace.end, bool(trace.measures)) for trace in map(load, NAMES)}
    assert ends >= {("moved", False), ("moved", True), ("stayed", False)}


@pytest.mark.parametrize("name", NAMES)
def test_what_was_done_is_what_is_decided(name: str) -> None:
    """The same measures in the same order, and a copy that has come to its end is not given up before."""
    trace = load(name)
    made = replay(trace, trace.promise())
    assert measures_in(made) == trace.measures
    number, last = made[-1]
    assert isinstance(last, GiveUp) == (trace.end == "stayed")
    assert number >= len(trace.passes) - 1, "what is between two looks may make a pass of a difference"


@pytest.mark.parametrize("name", NAMES)
def test_no_limit_exceeds_the_promise_less_what_waits(name: str) -> None:
    """After each pass."""
    trace = load(name)
    promise = trace.promise()
    for number, one in replay(trace, promise):
        if isinstance(one, SetLimit):
            assert one.seconds <= max(0.0, promise.most_limit_s - trace.passes[number - 1].waiting_s) + 1e-9


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).measures or load(name).end == "stayed"])
def test_a_stall_is_seen_whatever_is_allowed(name: str) -> None:
    """Given up, held back, suspended or handed over: after the same pass."""
    trace = load(name)
    seen = {}
    ends = {OnStall.ABORT: GiveUp, OnStall.SUSPEND: SuspendNow, OnStall.POSTCOPY: StartPostcopy}
    for on_stall, kind in {**ends, OnStall.THROTTLE: Throttle}.items():
        made = replay(trace, trace.promise(on_stall))
        seen[on_stall] = next(number for number, one in made if isinstance(one, kind))
    assert len(set(seen.values())) == 1, f"seen at different passes: {seen}"


@pytest.mark.parametrize("name", NAMES)
def test_a_promise_that_every_pass_keeps_needs_nothing(name: str) -> None:
    """With a minute allowed, no measure is taken: QEMU goes over at the end of the first passes."""
    trace = load(name)
    made = replay(trace, trace.promise(max_suspend_s=60.0))
    assert all(isinstance(one, Wait | SetLimit) for _, one in made)
