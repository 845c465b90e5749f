"""Time that a test owns: an event loop in which nobody waits.

When nothing is left to do but to wait, the loop's clock jumps to the next thing that is due. Timeouts of minutes are
tested in milliseconds. Not for code that waits for another thread or process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is its own."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1_000_000.0

    def time(self) -> float:
        """The loop's own time."""
        return self._now

    def _run_once(self) -> None:
        due = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        if due and not self._ready:  # type: ignore[attr-defined]
            self._now = max(self._now, min(due))
        super()._run_once()  # type: ignore[misc]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in time that jumps."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(coroutine)
