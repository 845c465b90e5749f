"""Following an operation of the manager to its end: progress for a person who watches, and Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ldoms.api.client import Client
from ldoms.cli.output import complain, on_terminal
from ldoms.model.codec import from_wire
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.operation import Operation
from ldoms.model.phases import QUEUED

LOST_S = 60.0
"""How long a manager may be away, for a restart, before its operation is followed no more."""
RETRY_S = 0.5


def follow(client: Client, operation: Operation) -> Operation:
    """Wait for the end of an operation; the manager may be restarted meanwhile."""
    with _progress(operation) as show:
        return attend(client, operation, show)


def attend(client: Client, operation: Operation, show: Callable[[Operation], None]) -> Operation:
    """The same, where `show` hears of each change."""
    deadline = time.monotonic() + LOST_S
    while True:
        try:
            for data in client.stream(f"/operations/{operation.id}/events"):
                operation = from_wire(Operation, data)
                show(operation)
                deadline = time.monotonic() + LOST_S
        except HostError:
            if time.monotonic() > deadline:
                raise
        if operation.is_over:
            return operation
        time.sleep(RETRY_S)


class CtrlC:
    """Cancels an operation, which takes a moment; it is over when the operation says so.

    Pressed before the manager has said that the operation has begun, it counts as soon as it has.
    """

    def __init__(self, client: Client, notice: str, path: str = "", body: dict[str, Any] | None = None) -> None:
        """Have Ctrl-C say `notice` and post `body` to `path`; without one, to that of the operation that has begun."""
        self._client, self._notice, self._path, self._body = client, notice, path, body
        self._begun = self._wanted = False

    def __enter__(self) -> CtrlC:
        self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def has_begun(self, operation: Operation) -> None:
        """There is something to cancel from now on."""
        self._begun = True
        self._path = self._path or f"/operations/{operation.id}/cancel"
        if self._wanted:
            self._cancel()

    def _press(self, signal_number: int, frame: Any) -> None:
        self._wanted = True
        complain(self._notice)
        if self._begun:
            self._cancel()

    def _cancel(self) -> None:
        try:
            self._client.post(self._path, self._body)
        except LdomsError as error:
            complain(error.message)


@contextmanager
def _progress(operation: Operation) -> Iterator[Any]:
    """Phase and progress on standard error, if a person watches; else nothing at all."""
    if not on_terminal():
        yield lambda operation: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn(operation.domain),
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(operation.phase or operation.kind, total=100)
        yield lambda known: bar.update(task, description=_description(known), completed=known.progress)


def _description(operation: Operation) -> str:
    """Where it is; with its place in the queue, how much a guest is held back, or how much of its disks was copied."""
    if operation.phase == QUEUED and operation.figures:
        return f"{QUEUED} {operation.figures['position']}: {operation.figures['reason']}"
    held_back = operation.figures.get("throttle_percent")
    where = (operation.phase or operation.kind) + (f", guest held back {held_back} %" if held_back else "")
    if operation.figures.get("status") == "disks" and (disks := operation.figures["disks"]):
        done, total = (sum(disk[key] for disk in disks) / (1 << 30) for key in ("copied_bytes", "total_bytes"))
        where += f", disks {done:.1f}/{total:.1f} GiB"
    return where
