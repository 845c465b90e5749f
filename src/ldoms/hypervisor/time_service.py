"""Who keeps a guest's clock right: the programs that can be asked in it, and what their answers mean."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO

from ldoms.model.guest import TimeService

UNSYNCHRONISED = "Not synchronised"
_TRACKING_FIELDS = 14
_ADDRESS, _LEAP_STATUS = 1, 13


@dataclass(frozen=True, slots=True)
class Question:
    """A program that tells about a time service.

    Attributes:
        read: turns what it prints into what we want to know; raises ValueError if it is something else.
    """

    service: str
    program: str
    arguments: tuple[str, ...]
    read: Callable[[str], TimeService]


def read_tracking(output: str) -> TimeService:
    """The answer of ``chronyc -n -c tracking``: one line of comma-separated fields (chronyc(1), "tracking").

    Raises:
        ValueError: it is not that.
    """
    fields = next(csv.reader(StringIO(output)), [])
    if len(fields) != _TRACKING_FIELDS:
        raise ValueError(f"{len(fields)} fields, not {_TRACKING_FIELDS}")
    synchronised = fields[_LEAP_STATUS] != UNSYNCHRONISED
    return TimeService("chrony", synchronised, fields[_ADDRESS] if synchronised else "")


def read_timedatectl(output: str) -> TimeService:
    """The answer of ``timedatectl show --property=NTPSynchronized --value``.

    Raises:
        ValueError: it is not that.
    """
    answer = output.strip()
    if answer not in ("yes", "no"):
        raise ValueError(f"'{answer}' is neither yes nor no")
    return TimeService("systemd", answer == "yes")


QUESTIONS = (
    Question("chrony", "chronyc", ("-n", "-c", "tracking"), read_tracking),
    Question("systemd", "timedatectl", ("show", "--property=NTPSynchronized", "--value"), read_timedatectl),
)
"""In the order in which they are tried."""
