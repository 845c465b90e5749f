"""Free strands lent to the control domain for a while: nobody holds them, and whoever is to hold one gets it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ldoms.model.partition import Partition


@dataclass(frozen=True, slots=True)
class Loan:
    """What is lent for one purpose.

    Attributes:
        strands: that are lent now.
        taken: how many of those lent at first a domain has got meanwhile.
    """

    strands: frozenset[int]
    taken: int = 0


class Lending:
    """The loans of a host, by what they are for.

    They are in no binding and on no disk: for everybody who wants strands they are free, and a manager that has died
    has lent nothing when it is there again. Whoever they were lent for asks once more.
    """

    def __init__(self) -> None:
        self._loans: dict[str, Loan] = {}

    @property
    def strands(self) -> frozenset[int]:
        """Every strand that is lent."""
        return frozenset(strand for loan in self._loans.values() for strand in loan.strands)

    def free(self, partition: Partition) -> tuple[int, ...]:
        """Strands that nobody holds and that are not lent."""
        lent = self.strands
        return tuple(strand for strand in partition.free_strands if strand not in lent)

    def lend(self, purpose: str, count: int, partition: Partition) -> int:
        """Lend strands, in place of what was lent for that purpose before.

        Returns:
            How many: fewer than `count` where fewer are free.
        """
        self.give_back(purpose)
        # The last ones: domains are given the first.
        chosen = self.free(partition)[::-1][:count]
        if chosen:
            self._loans[purpose] = Loan(frozenset(chosen))
        return len(chosen)

    def give_back(self, purpose: str) -> Loan:
        """End a loan; one that is not there is an empty one."""
        return self._loans.pop(purpose, Loan(frozenset()))

    def give_way(self, held: Iterable[int]) -> bool:
        """Take strands that somebody holds out of every loan; whether there were any."""
        gone = frozenset(held) & self.strands
        for purpose, loan in self._loans.items() if gone else ():
            rest = loan.strands - gone
            self._loans[purpose] = replace(loan, strands=rest, taken=loan.taken + len(loan.strands) - len(rest))
        return bool(gone)
