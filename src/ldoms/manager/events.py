"""Events: written down, and handed to whoever listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from ldoms.model.events import Event, EventKind
from ldoms.store import Store

QUEUED_EVENTS = 1_000
"""That a slow listener may be behind before it is cut off."""

_log = structlog.get_logger(__name__)


class EventHub:
    """The one place through which every event of the host goes."""

    def __init__(self, store: Store) -> None:
        """Write events to `store`."""
        self._store = store
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def publish(self, kind: EventKind, domain: str = "", **data: Any) -> Event:
        """Write an event down and hand it on. Keys of `data` carry their units."""
        event = self._store.add_event(time.time(), kind, domain, data)
        _log.info(kind.value, domain=domain, **data)
        for queue in list(self._queues):
            if queue.qsize() >= QUEUED_EVENTS:
                self._queues.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)
        return event

    @contextmanager
    def listen(self) -> Iterator[AsyncIterator[Event]]:
        """Subscribe to events from now on; the iterator ends if the listener falls too far behind."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._queues.discard(queue)


async def _drain(queue: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
    while (event := await queue.get()) is not None:
        yield event
