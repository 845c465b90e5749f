"""What a migration will take: a pure function from what was measured, and from what earlier ones have taught.

The copy is followed pass by pass, as QEMU makes it: while what is left is sent, the guest changes memory, which is left
for the next pass; what is left at last crosses while the guest stands still (Clark et al., "Live Migration of Virtual
Machines", NSDI 2005). The ranges come from the same calculation at the ends of what the measurements leave open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ldoms.migration.convergence import (
    PassSample,
    SetLimit,
    Situation,
    StartPostcopy,
    SuspendNow,
    Throttle,
    Wait,
    decide,
    promise_of,
)
from ldoms.model.forecast import DirtyRate, Forecast, ForecastBasis, LinkSource, LinkSpeed, Range
from ldoms.model.migration import MigrationPlan, MigrationReport, Outcome
from ldoms.model.phases import Phase

PAGE_BYTES = 4096
PAGE_HEADER_BYTES = 8
ZERO_PAGE_S = 0.4e-6
"""To find that a page is zero, and to say so."""
FIXED_S = 0.25
"""What a migration takes besides the checks and the copy, where nothing is known: QEMU's start, the hand-off."""
FIXED_ROUND_TRIPS, SUSPENSION_ROUND_TRIPS = 12, 3
SUSPENSION_S = 0.045
"""From the guest's stop to its resumption, besides what is sent meanwhile: devices, records on disks."""
BUFFERED_BYTES, BUFFERED_S = 1 << 20, 0.02
"""What waits in the source's kernel when the guest stops is no more than either (see `ldoms.migration.copying`)."""
TAIL = 3.0
"""Where a guest shows no sign that it comes back to the same pages: it is expected to within so many windows, as it
mostly does."""
TRACKED_PAGE_S = 3e-6
"""What the guest waits for each page that it changes first after a pass has begun."""
COPY_CPUS = 1.0
"""That a copy keeps busy on the source."""
MOST_PASSES = 200
"""After which it is not looked further ahead."""
NEGLIGIBLE = 0.05
"""Of what may be left: the guest changes less than this while it is sent, and the copy ends."""
ASSUMED_BYTES_S, ASSUMED_SPREAD = 400e6, 3.0
HISTORY_SPREAD = 0.3
LEARNT_FROM = 8
"""Earlier migrations of a domain that are looked at."""
PRIOR = 2.0
"""What the defaults count, in migrations."""
SPREAD_TOTAL, SPREAD_SUSPENSION = 0.12, 0.45
"""How far the model itself is off, where no earlier migration tells: standard deviation of the logarithm."""
RATE_SPREAD, LONG_TAIL, MEMORY_SPREAD = 0.25, 5.0, 0.02
"""Of the measured rates, of what is expected beyond the longest window, and of all memory."""
MOST_BUSIER = 4.0
"""A guest that is busier, or quieter, by more than this than it was then, is another one."""
COMPRESSED_SHARES = (0.39, 0.55, 0.77)
"""Of what compressed memory takes on the wire, where none was tried: of files, in between, and of what a guest had
filled at random."""
SHARE_SPREAD = 0.15
"""What QEMU's zstd leaves may differ from what zlib has left of a sample by so much."""
COMPRESSED_BYTES_S = 250e6
"""Of memory, that one thread compresses."""
_UNCOMPRESSED = ("", "none")
NINE_IN_TEN = 1.64
"""Standard deviations to either side."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """What earlier migrations of a domain have taught: corrections, and how far they leave a forecast off."""

    migrations: int = 0
    fixed_s: float = FIXED_S
    copy_factor: float = 1.0
    suspension_factor: float = 1.0
    copy_spread: float = SPREAD_TOTAL
    suspension_spread: float = SPREAD_SUSPENSION


@dataclass(frozen=True, slots=True)
class Course:
    """How a copy goes.

    Attributes:
        seconds: up to the guest's stop.
        left_bytes: that cross after it.
        throttled: share of the guest's time that was held back, over the copy.
    """

    seconds: float
    sent_bytes: float
    left_bytes: float
    passes: int
    throttled: float
    converges: bool


class DirtyCurve:
    """How much of its memory a guest changes within any time, from its rates over a few windows.

    Between the windows it is a straight line. Beyond the longest it goes on as it did last, slackening as it did
    before: a guest that writes to the same pages again and again has changed all of them some time.
    """

    def __init__(self, rates: Sequence[DirtyRate], ceiling_bytes: float, tail: float = TAIL) -> None:
        """Make one that never goes above `ceiling_bytes`, and slackens within `tail` windows without a sign of it."""
        self._ceiling = ceiling_bytes
        self._tail_windows = tail
        self._points = [(0.0, 0.0)]
        rate = math.inf
        for one in sorted(rates, key=lambda one: one.window_s):
            if one.window_s < self._points[-1][0] * 1.01 or one.window_s <= 0:
                continue  # as good as the same one
            rate = min(rate, one.bytes_s)  # a longer window cannot have a higher one: what is more is chance
            changed = max(self._points[-1][1], rate * one.window_s)
            self._points.append((one.window_s, changed))
        self._slope, self._slackening = self._tail()

    @property
    def end_bytes(self) -> float:
        """What it comes to in the end."""
        last = self._points[-1][1]
        return min(self._ceiling, last + (self._slope / self._slackening if self._slackening > 0 else 0.0))

    def changed(self, seconds: float) -> float:
        """Bytes that are changed within so long, at least once."""
        for (begin, low), (end, high) in zip(self._points, self._points[1:], strict=False):
            if seconds <= end:
                return min(self._ceiling, low + (high - low) * (seconds - begin) / (end - begin))
        window, known = self._points[-1]
        beyond = seconds - window
        more = self._slope * beyond
        if self._slackening > 0:
            more = self._slope / self._slackening * -math.expm1(-self._slackening * beyond)
        return min(self._ceiling, known + more)

    def _tail(self) -> tuple[float, float]:
        slopes = [
            ((high - low) / (end - begin), (begin + end) / 2)
            for (begin, low), (end, high) in zip(self._points, self._points[1:], strict=False)
        ]
        if not slopes:
            return 0.0, 0.0
        last, at = slopes[-1]
        if last <= 0:
            return 0.0, 0.0
        slackening = 1 / (self._tail_windows * self._points[-1][0])
        if len(slopes) == 1:
            return last, slackening
        before, at_before = slopes[-2]
        # Measured at different moments, the curve may also bend the other way: that is no sign of an end.
        return last, max(slackening, math.log(max(1.0, before / last)) / (at - at_before))


def follow_copy(
    nonzero_bytes: float,
    total_bytes: float,
    curve: DirtyCurve,
    bytes_s: float,
    plan: MigrationPlan,
    before_s: float = 0.0,
) -> Course:
    """How a copy goes, pass by pass, by the rule that decides about real ones; `before_s` has gone before it."""
    zero_s = (total_bytes - nonzero_bytes) / PAGE_BYTES * ZERO_PAGE_S
    full = nonzero_bytes * (1 + PAGE_HEADER_BYTES / PAGE_BYTES)
    if plan.stands_still:
        return Course(0.0, full, full + zero_s * bytes_s, 1, 0.0, full / bytes_s + zero_s <= plan.max_suspend_s)
    promise = promise_of(plan)
    limit_s = min(promise.first_limit_s, promise.most_limit_s)
    left, seconds, sent, since_s = full, zero_s, 0.0, 0.0
    throttle, throttled_s = 0, 0.0
    samples: list[PassSample] = []

    def end(left: float, *, converges: bool) -> Course:
        throttled = throttled_s / seconds if seconds else 0.0
        return Course(seconds, sent + left, left, len(samples) + 1, throttled, converges)

    while True:
        may_be_left = limit_s * bytes_s
        if left <= may_be_left * (1 + NEGLIGIBLE) + PAGE_BYTES:
            return end(left, converges=True)
        if len(samples) >= MOST_PASSES:
            return end(0.0, converges=False)
        lasts = (left - may_be_left) / bytes_s
        runs = 1 - throttle / 100
        changed = curve.changed(lasts * runs)
        seconds, sent = seconds + lasts, sent + left - may_be_left
        throttled_s += (1 - runs) * lasts
        left = may_be_left + changed
        samples.append(PassSample(seconds, left / bytes_s, round(left), changed / lasts, bytes_s, throttle))
        while not isinstance(
            decision := decide(
                Situation(
                    samples,
                    seconds,
                    limit_s,
                    0.0,
                    since_s,
                    before_s,
                    throttle_percent=throttle,
                    throttled_percent=throttle,
                ),
                promise,
            ),
            Wait,
        ):
            since_s = seconds
            match decision:
                case SetLimit(allowed_s):
                    limit_s = allowed_s
                case Throttle(percent):
                    throttle = percent
                case SuspendNow():
                    return end(left, converges=True)
                case StartPostcopy():
                    # What is left is sent while the guest runs there, and waits for it again and again.
                    rest = end(0.0, converges=True)
                    return replace(rest, seconds=rest.seconds + left / bytes_s, sent_bytes=rest.sent_bytes + left)
                case _:
                    return end(0.0, converges=False)


def forecast(basis: ForecastBasis, plan: MigrationPlan, lessons: Lessons, total_bytes: int) -> Forecast:
    """What is to be expected.

    Args:
        basis: what was measured; what was learnt is put into that of the forecast.
        plan: how memory will be copied.
        lessons: from earlier migrations.
        total_bytes: of the guest's memory, for where nothing else is known of it.
    """
    total = basis.memory.total_bytes if basis.memory else total_bytes
    nonzero = basis.memory.nonzero_bytes if basis.memory else total_bytes
    curve = DirtyCurve(basis.dirty_rates, total)
    basis = replace(
        basis,
        working_set_bytes=round(curve.end_bytes) if curve.end_bytes < total else 0,
        fixed_s=lessons.fixed_s,
        migrations=lessons.migrations,
        copy_correction=lessons.copy_factor,
        suspension_correction=lessons.suspension_factor,
    )
    link = basis.link
    slack = MEMORY_SPREAD * total
    speed = link.bytes_s / lessons.copy_factor
    fast, slow = speed * (1 + link.spread), speed / (1 + link.spread)
    few, many = max(0.0, nonzero - slack), min(float(total), nonzero + slack)
    calm, wild = (
        DirtyCurve([replace(one, bytes_s=one.bytes_s * factor) for one in basis.dirty_rates], total, tail)
        for factor, tail in ((1 / (1 + RATE_SPREAD), TAIL / LONG_TAIL), (1 + RATE_SPREAD, TAIL * LONG_TAIL))
    )
    before_s = basis.check_s + lessons.fixed_s + FIXED_ROUND_TRIPS * basis.round_trip_s
    befores = [before_s + sum(disk.content_bytes for disk in plan.disks) / bytes_s for bytes_s in (fast, speed, slow)]
    shares = _shares(basis, plan)
    most = math.inf if plan.compression in _UNCOMPRESSED else COMPRESSED_BYTES_S * plan.channels
    fast, speed, slow = (min(most, bytes_s / share) for bytes_s, share in zip((fast, speed, slow), shares, strict=True))
    courses = [
        (follow_copy(few, total, calm, fast, plan, befores[0]), fast),
        (follow_copy(nonzero, total, curve, speed, plan, befores[1]), speed),
        (follow_copy(many, total, wild, slow, plan, befores[2]), slow),
    ]
    off_total, off_suspension = (
        math.exp(NINE_IN_TEN * spread) for spread in (lessons.copy_spread, lessons.suspension_spread)
    )
    suspensions = [
        _suspension_s(course, bytes_s, basis) if course.converges or plan.stands_still else 0.0
        for course, bytes_s in courses
    ]
    totals = [
        before + course.seconds + suspension
        for before, (course, _), suspension in zip(befores, courses, suspensions, strict=True)
    ]
    expected = courses[1][0]
    slowdown = _slowdown(expected, suspensions[1], basis)
    return Forecast(
        total_s=_range(totals, off_total),
        suspension_s=_range(suspensions, off_suspension),
        bytes=_range([course.sent_bytes * share for (course, _), share in zip(courses, shares, strict=True)], 1.03),
        slowdown_percent=Range(slowdown / 2, slowdown, min(100.0, slowdown * 2 + 5)),
        passes=expected.passes,
        converges=expected.converges,
        basis=basis,
    )


def _shares(basis: ForecastBasis, plan: MigrationPlan) -> tuple[float, float, float]:
    """What memory takes on the wire, of its size: at best, as expected, at worst."""
    if plan.compression in _UNCOMPRESSED:
        return 1.0, 1.0, 1.0
    if basis.memory is None or not basis.memory.compressed_share:
        return COMPRESSED_SHARES
    share = basis.memory.compressed_share
    return share / (1 + SHARE_SPREAD), share, min(1.0, share * (1 + SHARE_SPREAD))


def learn(reports: Sequence[MigrationReport]) -> Lessons:
    """What earlier migrations of a domain teach, the latest last: of each figure the mean, drawn to the default."""
    done = [one for one in reports if one.outcome is Outcome.DONE and one.active and one.stop_resume_s is not None]
    done = done[-LEARNT_FROM:]
    if not done:
        return Lessons()
    fixed = [
        sum(one.seconds for one in report.phases if one.name in (Phase.PREPARE, Phase.HAND_OFF)) for report in done
    ]
    # Where disks were copied, too, the phase says little about the memory.
    forecast_ones = [one for one in done if one.forecast is not None and one.forecast.converges and not one.storage]
    copies, suspensions = _ratios(forecast_ones)
    return Lessons(
        migrations=len(done),
        fixed_s=(sum(fixed) + PRIOR * FIXED_S) / (len(fixed) + PRIOR),
        copy_factor=_factor(copies, 1.5),
        suspension_factor=_factor(suspensions, 3.0),
        copy_spread=_spread(copies, SPREAD_TOTAL),
        suspension_spread=_spread(suspensions, SPREAD_SUSPENSION),
    )


def link_of_history(reports: Sequence[MigrationReport], encrypted: bool) -> LinkSpeed | None:
    """How fast earlier migrations have sent memory, in their longest pass, where nothing else has held them back.

    None = there are none.
    """
    speeds = [
        longest.sent_bytes / longest.seconds
        for report in reports[-LEARNT_FROM:]
        if report.outcome is Outcome.DONE and report.plan and _tells_of_link(report.plan, encrypted) and report.passes
        if (longest := max(report.passes, key=lambda one: one.seconds)).seconds > 0 and longest.sent_bytes > 0
    ]
    return LinkSpeed(sorted(speeds)[len(speeds) // 2], HISTORY_SPREAD, LinkSource.HISTORY) if speeds else None


def _tells_of_link(plan: MigrationPlan, encrypted: bool) -> bool:
    return plan.encrypted == encrypted and plan.compression in _UNCOMPRESSED and not plan.max_bandwidth_bytes_s


def rates_of_history(reports: Sequence[MigrationReport], rates: Sequence[DirtyRate]) -> tuple[DirtyRate, ...]:
    """How fast the guest changed memory over windows longer than could be measured now: the passes of earlier copies.

    They count as far as the guest is as busy as it was then.

    Args:
        reports: of earlier migrations, the latest last.
        rates: as measured now.
    """
    if not rates:
        return ()
    longest = max(rates, key=lambda one: one.window_s)
    found: dict[float, DirtyRate] = {}
    for report in reports[-LEARNT_FROM:]:
        then = report.forecast.basis.dirty_rates if report.forecast is not None else ()
        if not then or report.throttle_percent or report.outcome is not Outcome.DONE:
            continue
        known = min(then, key=lambda one: abs(one.window_s - longest.window_s)).bytes_s
        busier = min(MOST_BUSIER, max(1 / MOST_BUSIER, longest.bytes_s / known)) if known > 0 else 1.0
        for one in report.passes:
            if one.seconds > 1.5 * longest.window_s:
                window_s = float(round(one.seconds))
                found[window_s] = DirtyRate(window_s, one.dirty_bytes / one.seconds * busier)
    return tuple(found[window_s] for window_s in sorted(found))


def bounded(link: LinkSpeed, plan: MigrationPlan) -> LinkSpeed:
    """The speed of a link under the plan's limit."""
    most = plan.max_bandwidth_bytes_s
    return replace(link, bytes_s=float(most), spread=0.05) if most and most < link.bytes_s else link


# Inside


def _suspension_s(course: Course, bytes_s: float, basis: ForecastBasis) -> float:
    own = SUSPENSION_S + SUSPENSION_ROUND_TRIPS * basis.round_trip_s
    buffered_s = min(BUFFERED_BYTES / bytes_s, BUFFERED_S)
    return (course.left_bytes / bytes_s + buffered_s + own) * basis.suspension_correction


def _slowdown(course: Course, suspension_s: float, basis: ForecastBasis) -> float:
    """Percent: held back, waiting for pages that are tracked, without a CPU, and stopped."""
    rate = basis.dirty_rates[0].bytes_s if basis.dirty_rates else 0.0
    tracking = min(0.5, rate / PAGE_BYTES * TRACKED_PAGE_S)
    wanted = basis.control_busy * basis.control_cpus + COPY_CPUS
    competing = max(0.0, 1 - basis.control_cpus / wanted) if basis.control_shared and basis.control_cpus else 0.0
    runs = (1 - course.throttled) * (1 - tracking) * (1 - competing)
    whole = course.seconds + suspension_s
    return 100 * (1 - runs * course.seconds / whole) if whole else 0.0


def slowdown_percent(ran_s: float, waited_s: float, held_share: float, copy_s: float, suspension_s: float) -> float:
    """What a guest has lost of its speed in a migration: the same account as in a forecast, from what was seen.

    What QEMU's tracking of changed pages costs is not in it: nobody sees it from outside.

    Args:
        ran_s: CPU time that its virtual CPUs had during the copy.
        waited_s: that they wanted, and waited for.
        held_share: of the copy, for which they were held back.
        copy_s: from the begin of the copy to the guest's stop.
        suspension_s: from there to its resumption.
    """
    served = ran_s / (ran_s + waited_s) if ran_s > 0 else 1.0
    whole = copy_s + suspension_s
    return 100 * (1 - served * (1 - held_share) * copy_s / whole) if whole > 0 else 0.0


def _range(values: Sequence[float], off: float) -> Range:
    low, expected, high = values
    return Range(min(low, expected) / off, expected, max(expected, high) * off)


def _ratios(reports: Sequence[MigrationReport]) -> tuple[list[float], list[float]]:
    """Facts over forecasts without their corrections, of the copy and of the suspension, as logarithms."""
    copies, suspensions = [], []
    for report in reports:
        known = report.forecast
        assert known is not None
        fact = next((one.seconds for one in report.phases if one.name is Phase.COPY), 0.0)
        basis = known.basis
        said = known.total_s.expected - known.suspension_s.expected - basis.check_s - basis.fixed_s
        said -= FIXED_ROUND_TRIPS * basis.round_trip_s
        said /= basis.copy_correction
        if fact > 0.05 and said > 0.05 and basis.link.source in (LinkSource.PROBE, LinkSource.EARLIER_PROBE):
            copies.append(math.log(fact / said))
        stood = known.suspension_s.expected / basis.suspension_correction
        if report.stop_resume_s and stood > 0:
            suspensions.append(math.log(report.stop_resume_s / stood))
    return copies, suspensions


def _factor(logs: Sequence[float], most: float) -> float:
    return min(most, max(1 / most, math.exp(sum(logs) / (len(logs) + PRIOR))))


def _spread(logs: Sequence[float], default: float) -> float:
    """Standard deviation around what is learnt from them, the default counting as so many that were off by so much."""
    learnt = sum(logs) / (len(logs) + PRIOR)
    squares = sum((one - learnt) ** 2 for one in logs) + PRIOR * default**2
    return math.sqrt(squares / (len(logs) + PRIOR))
