"""Values that were measured: their median and spread, promises about them, and in which order cases take turns."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

SEED = 1


class Unit(StrEnum):
    """Of the values of a case."""

    MILLISECONDS = "ms"
    SECONDS = "s"
    MEGABYTES = "MB"
    CPU = "CPU seconds a minute"


@dataclass(frozen=True, slots=True)
class Spread:
    """All values of a case, at least one, in the order in which they were measured; `least` and `most` of them."""

    unit: Unit
    median: float
    least: float
    most: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.median:.4g} {self.unit} [{self.least:.4g} .. {self.most:.4g}]"


@dataclass(frozen=True, slots=True)
class Promise:
    """What the median of a case keeps.

    Attributes:
        case: its name.
        limit: the most that it may be, in its own unit; or so many times the median of `of`.
        of: another case of the same run, whose conditions were the same; empty = there is none.
    """

    case: str
    limit: float
    of: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a promise was kept.

    Attributes:
        unit: `times`, where the limit is a multiple of the median of `of`.
        measured: as the limit has it: a median, or the ratio of two.
    """

    case: str
    limit: float
    of: str
    unit: str
    measured: float
    kept: bool

    def __str__(self) -> str:
        what = f"{self.case}: {self.measured:.4g} {self.unit}" + (f" {self.of}" if self.of else "")
        return f"{what}, at most {self.limit:g}: {'kept' if self.kept else 'NOT KEPT'}"


def spread(values: Sequence[float], unit: Unit) -> Spread:
    """Sum up the values of a case.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    return Spread(unit, statistics.median(values), min(values), max(values), tuple(values))


def judge(promises: Sequence[Promise], cases: Mapping[str, Spread]) -> list[Verdict]:
    """Compare medians with what is promised; a promise whose cases were not all measured is left out."""
    verdicts = []
    for promise in promises:
        if promise.case not in cases or (promise.of and promise.of not in cases):
            continue
        case = cases[promise.case]
        measured = case.median / cases[promise.of].median if promise.of else case.median
        unit = "times" if promise.of else str(case.unit)
        verdicts.append(Verdict(promise.case, promise.limit, promise.of, unit, measured, measured <= promise.limit))
    return verdicts


def turns(cases: Sequence[str], rounds: int, seed: int = SEED) -> Iterator[str]:
    """The order of measurements: in each round every case once, shuffled, so that none always follows the same one."""
    order = random.Random(seed)  # noqa: S311
    for _ in range(rounds):
        yield from order.sample(cases, len(cases))
