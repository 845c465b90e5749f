"""``set-logctl``: which messages `ldmd` logs, from one moment to the next, and after a restart."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from ldoms.manager.properties import choice_property, refuse_unknown
from ldoms.model.logs import LogKind, LogSwitch
from ldoms.store import Store

KIND = "log_kind"
"""In a message: its kind, if its level does not say it."""
REMEMBERED = "log-control"
"""Under which the store remembers what is not as by default."""

_BY_LEVEL = {"debug": LogKind.DEBUG, "info": LogKind.INFO, "warning": LogKind.WARNING}
_FROM_LEVEL_ON = {
    "debug": frozenset(LogKind) - {LogKind.CMD},
    "info": frozenset({LogKind.INFO, LogKind.NOTICE, LogKind.WARNING, LogKind.FATAL}),
    "warning": frozenset({LogKind.WARNING, LogKind.FATAL}),
    "error": frozenset({LogKind.FATAL}),
}


class LogControl:
    """Lets messages through or drops them: one of the steps that structlog takes with each of them.

    Attributes:
        on: kinds of messages that are logged.
        default: those that are logged when nothing else was said.
    """

    def __init__(self, level: str = "info") -> None:
        """Begin with what `ldmd --log-level` says."""
        self.default = _FROM_LEVEL_ON[level]
        self.on = self.default

    def __call__(self, logger: Any, method: str, message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Drop a message that is not wanted."""
        kind = message.pop(KIND, None) or _BY_LEVEL.get(method, LogKind.FATAL)
        if kind not in self.on:
            raise structlog.DropEvent
        return message


class LogVerbs:
    """``list-logctl`` and ``set-logctl``."""

    def __init__(self, store: Store, control: LogControl) -> None:
        self._store = store
        self._control = control

    def restore(self) -> None:
        """Go on as before the restart, as far as it was said; the rest is as by default."""
        for word in self._store.recall(REMEMBERED).split():
            kind, _, value = word.partition("=")
            if kind in set(LogKind):  # a newer version may have known more
                self._switch(LogKind(kind), is_on=value == "on")

    def list(self) -> tuple[LogSwitch, ...]:
        """Every kind of message."""
        return tuple(LogSwitch(kind, kind in self._control.on, kind in self._control.default) for kind in LogKind)

    def set(self, properties: Mapping[str, str], *, defaults: bool = False) -> tuple[LogSwitch, ...]:
        """Switch kinds of messages on and off.

        Args:
            properties: ``on`` or ``off`` for some kinds; an empty value means: as by default.
            defaults: make all others as by default.

        Raises:
            RequestError: there is no such kind, or no such value; nothing is changed.
        """
        given = dict(properties)
        wanted: dict[LogKind, bool] = {}
        for kind in LogKind:
            if kind in given:
                value = given.pop(kind)
                is_default = kind in self._control.default
                wanted[kind] = choice_property(kind, value, ("on", "off")) == "on" if value else is_default
        refuse_unknown(given)
        if defaults:
            self._control.on = self._control.default
        for kind, is_on in wanted.items():
            self._switch(kind, is_on=is_on)
        different = [known for known in self.list() if known.is_on != known.default]
        self._store.remember(
            REMEMBERED, " ".join(f"{known.kind}={'on' if known.is_on else 'off'}" for known in different)
        )
        return self.list()

    def _switch(self, kind: LogKind, *, is_on: bool) -> None:
        self._control.on = self._control.on | {kind} if is_on else self._control.on - {kind}
