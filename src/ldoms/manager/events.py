"""Events: written down, where clients read them, and logged."""

from __future__ import annotations

import time
from typing import Any

import structlog

from ldoms.model.events import Event, EventKind
from ldoms.model.logs import LogKind
from ldoms.store import Store, StoreFailed

_log = structlog.get_logger(__name__)


class EventHub:
    """The one place through which every event of the host goes."""

    def __init__(self, store: Store) -> None:
        """Write events to `store`."""
        self._store = store

    def publish(self, kind: EventKind, domain: str = "", **data: Any) -> Event:
        """Write an event down, if that can be done. Keys of `data` carry their units."""
        try:
            event = self._store.add_event(time.time(), kind, domain, data)
        except StoreFailed as error:  # what has happened has happened, whether there is room to write it down or not
            _log.error("event-not-written", reason=error.message)
            event = Event(0, time.time(), kind, domain, data)
        _log.info(kind.value, log_kind=LogKind.NOTICE, domain=domain, **data)
        return event
