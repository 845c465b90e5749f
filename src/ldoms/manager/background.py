"""Work that goes on by itself: each piece has an owner, which lets go of it when the manager stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


class Background:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], str] = {}

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Begin some work; what goes wrong with it is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = name
        task.add_done_callback(self._over)

    def is_at(self, name: str) -> bool:
        """Whether work of that name is under way."""
        return any(known == name and not task.done() for task, known in self._tasks.items())

    async def close(self) -> None:
        """Let go of everything, and return when it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        name = self._tasks.pop(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            _log.error("background-crashed", work=name, exc_info=bug)
