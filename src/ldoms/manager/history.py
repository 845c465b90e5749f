"""``list-history``: what was typed and has changed something, a row for each command."""

from __future__ import annotations

from collections import OrderedDict

import structlog

from ldoms.model.events import CommandRecord
from ldoms.model.logs import LogKind
from ldoms.store import Store

KEPT_RUNS = 256
"""Commands that may still go on; one that is older than so many others begins a row of its own."""

_log = structlog.get_logger(__name__)


class History:
    """The commands of a host. `ldm` may need several requests for one of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: OrderedDict[str, int] = OrderedDict()

    def note(self, record: CommandRecord, run: str = "") -> None:
        """Write a command down, or what a further request of it has come to.

        Args:
            record: of this request.
            run: the same for every request of a command, and for no other command; empty = it is not known.
        """
        row = self._rows.get(run) if run else None
        if row is not None and record.succeeded:
            if record.operations:
                self._store.extend_command(row, record.operations)
            return
        _log.info("command", log_kind=LogKind.CMD, user=record.user, command=record.command, succeeded=record.succeeded)
        if row is not None:
            self._store.fail_command(row)
            return
        row = self._store.add_command(record)
        if run:
            self._rows[run] = row
            if len(self._rows) > KEPT_RUNS:
                self._rows.popitem(last=False)
