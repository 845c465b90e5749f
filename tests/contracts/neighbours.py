"""The contract of `ldoms.net.neighbours.Neighbours`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ldoms.net.neighbours import Neighbours

HOLDER, TAKEN, FREE = "t4-2", "00:14:4f:f8:00:01", "00:14:4f:f8:00:02"


class NeighboursBench(Protocol):
    """A subnet on which host `HOLDER` has the address `TAKEN`, and nobody has `FREE`."""

    neighbours: Neighbours


async def check_the_holder_is_named(bench: NeighboursBench) -> None:
    """Each time."""
    assert await bench.neighbours.holder_of(TAKEN) == HOLDER
    assert await bench.neighbours.holder_of(TAKEN) == HOLDER


async def check_silence_means_free(bench: NeighboursBench) -> None:
    """After a moment."""
    assert not await bench.neighbours.holder_of(FREE)


CHECKS: tuple[Callable[[NeighboursBench], Awaitable[None]], ...] = (
    check_the_holder_is_named,
    check_silence_means_free,
)
