"""How the time depends on the number of CPUs: two curves, fitted by least squares, and where they flatten. All pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

WORTH_WHILE = 0.1
"""A step that saves less than this share of the time does not help any more."""
_FARTHEST = 4096
_POWERS = [number / 10 for number in range(-20, 41)]
_FINEST = 1e-8


class Curve(StrEnum):
    """The curves that are tried."""

    INVERSE = "a + b/n"
    """A part that no CPU helps, and work that CPUs share (Amdahl, AFIPS 1967)."""
    POWER = "c * n^-p"
    """For times that fall faster than work can be shared: starved, threads wait for each other as well."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A curve through (CPUs, seconds).

    Attributes:
        first, second: a and b, or c and p.
        residual_s: root of the mean square of what the points are off.
    """

    curve: Curve
    first: float
    second: float
    residual_s: float

    def at(self, cpus: float) -> float:
        """The time with so many CPUs, in seconds."""
        return _time(self.curve, self.first, self.second, cpus)

    @property
    def formula(self) -> str:
        """With its numbers."""
        if self.curve is Curve.INVERSE:
            return f"T = {self.first:.3g} s + {self.second:.3g} s / n"
        return f"T = {self.first:.3g} s * n^-{self.second:.3g}"


def fit_curves(points: Sequence[tuple[int, float]]) -> tuple[Fit, ...]:
    """Both curves, the one that is nearer to the points first; none if they have fewer than two numbers of CPUs.

    Args:
        points: (CPUs, seconds), both > 0; every single run, not medians.
    """
    if len({cpus for cpus, _ in points}) < 2:
        return ()
    fits = (_fitted(Curve.INVERSE, *_inverse(points), points), _fitted(Curve.POWER, *_power(points), points))
    return tuple(sorted(fits, key=lambda fit: fit.residual_s))


def enough_cpus(fit: Fit, least: int, step: int) -> int | None:
    """How many CPUs are enough by a curve: `step` more of them save less than a tenth. None: that is not in sight.

    Args:
        fit: the curve.
        least: where to begin, which is the least that was measured.
        step: by which CPUs are added.
    """
    counts = range(least, least + _FARTHEST, step)
    return next((cpus for cpus in counts if _saving(fit, cpus, step) < WORTH_WHILE), None)


def last_step_that_helped(medians: Sequence[tuple[int, float]]) -> int | None:
    """How many CPUs were enough in what was measured: more than these saved less than a tenth; None if none were.

    Args:
        medians: (CPUs, seconds), ascending in CPUs.
    """
    for (cpus, seconds), (_, next_seconds) in pairwise(medians):
        if next_seconds > (1 - WORTH_WHILE) * seconds:
            return cpus
    return None


def _saving(fit: Fit, cpus: int, step: int) -> float:
    return 1 - fit.at(cpus + step) / fit.at(cpus)


def _time(curve: Curve, first: float, second: float, cpus: float) -> float:
    return first + second / cpus if curve is Curve.INVERSE else first * math.pow(cpus, -second)


def _fitted(curve: Curve, first: float, second: float, points: Sequence[tuple[int, float]]) -> Fit:
    off = [_time(curve, first, second, cpus) - seconds for cpus, seconds in points]
    return Fit(curve, first, second, math.sqrt(statistics.fmean(one * one for one in off)))


def _inverse(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Least squares in 1/n. A fixed part below zero makes no sense: then it is zero."""
    inverse = [1 / cpus for cpus, _ in points]
    slope, intercept = statistics.linear_regression(inverse, [seconds for _, seconds in points])
    if intercept >= 0:
        return intercept, slope
    return 0.0, sum(x * y for x, (_, y) in zip(inverse, points, strict=True)) / sum(x * x for x in inverse)


def _power(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Least squares in seconds. The best factor for a power is a formula; the best power is searched for."""

    def factor(power: float) -> float:
        shares = [math.pow(cpus, -power) for cpus, _ in points]
        return sum(x * y for x, (_, y) in zip(shares, points, strict=True)) / sum(x * x for x in shares)

    def residual(power: float) -> float:
        return _fitted(Curve.POWER, factor(power), power, points).residual_s

    step, power = 0.1, min(_POWERS, key=residual)
    while step > _FINEST:
        power = min((power - step, power, power + step), key=residual)
        step /= 2
    return factor(power), power
