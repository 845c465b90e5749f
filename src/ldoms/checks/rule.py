"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ldoms.model.findings import Finding
from ldoms.model.migration import CheckFacts

Findings = Iterator[Finding]


class Moves(StrEnum):
    """What is moved: an inactive domain is only a description, a bound one has resources, an active one runs."""

    INACTIVE = "inactive"
    BOUND = "bound"
    ACTIVE = "active"


ANY = frozenset(Moves)
BOUND = frozenset({Moves.BOUND, Moves.ACTIVE})
ACTIVE = frozenset({Moves.ACTIVE})


@dataclass(frozen=True, slots=True)
class Rule:
    """One requirement.

    Attributes:
        name: stable, as findings carry it.
        applies_to: what must be moved for the rule to matter.
        check: the pure function.
    """

    name: str
    applies_to: frozenset[Moves]
    check: Callable[[CheckFacts], Findings]


def what_moves(facts: CheckFacts) -> Moves:
    """Whether the domain of the facts is inactive, bound or active."""
    if facts.domain.active:
        return Moves.ACTIVE
    return Moves.BOUND if facts.domain.domain.is_bound else Moves.INACTIVE
