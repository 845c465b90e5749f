"""Operations: work on a domain that others must not disturb, and that may outlive the request that began it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import structlog

from ldoms.model.codec import to_wire
from ldoms.model.errors import Busy, Cancelled, CheckFailed, LdomsError, NotFound, RequestError
from ldoms.model.operation import Operation, OperationStatus
from ldoms.store import Store, StoreFailed

REST_S = 15.0
"""So long a command waits at most for work that nobody has asked for; it is told that the domain is busy then."""

Work = Callable[["Handle"], Awaitable[Mapping[str, Any]]]

_CANCELLED_AS = {"migrate-domain": "migration", "memdr": "memdr"}

_log = structlog.get_logger(__name__)


class Handle:
    """What the work of an operation says of itself, and hears from others."""

    def __init__(self, operations: Operations, operation: Operation) -> None:
        self._operations = operations
        self.operation = operation
        self.cancelled = asyncio.Event()
        """Set when somebody has asked for an end."""

    def update(
        self,
        *,
        phase: str | None = None,
        progress: int | None = None,
        may_cancel: bool | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell how far it is. Nothing of this is written down: the journal of the work is what counts."""
        now = self.operation
        self.operation = replace(
            now,
            phase=now.phase if phase is None else phase,
            progress=now.progress if progress is None else progress,
            may_cancel=now.may_cancel if may_cancel is None else may_cancel,
            figures=now.figures if figures is None else figures,
        )
        self._operations.tell(self.operation)


class Unobserved:
    """In place of a `Handle`, for work that nobody follows or calls off."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def update(
        self,
        *,
        phase: str | None = None,
        progress: int | None = None,
        may_cancel: bool | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """Nobody wants to know."""


class Operations:
    """The operations of a host: at most one for each domain."""

    def __init__(self, store: Store) -> None:
        """Write operations to `store`."""
        self._store = store
        self._running: dict[str, Handle] = {}
        self._held: dict[str, str] = {}
        self._unasked: dict[str, set[asyncio.Event]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watchers: dict[str, set[asyncio.Queue[Operation]]] = {}

    # Short work

    @contextmanager
    def holding(self, domain: str, kind: str) -> Iterator[None]:
        """Keep everybody else from changing a domain while a short piece of work goes on.

        Raises:
            Busy: another operation holds it; the message names that one.
        """
        self.check_free(domain)
        self._held[domain] = kind
        try:
            yield
        finally:
            del self._held[domain]

    def check_free(self, domain: str) -> None:
        """Make sure that nothing holds a domain.

        Raises:
            Busy: something does; the message names it and what to do.
        """
        operation = self.on(domain)
        if operation is not None:
            remedy = "wait for it to end"
            if operation.kind in _CANCELLED_AS and operation.may_cancel:
                remedy += f", or run 'ldm cancel-operation {_CANCELLED_AS[operation.kind]} {domain}'"
            raise Busy(
                f"LDom {domain} is busy: operation {operation.kind} (phase {operation.phase or 'begin'}) is under"
                f" way; {remedy}",
                operation=operation.id,
                kind=operation.kind,
            )
        if domain in self._held:
            raise Busy(f"LDom {domain} is busy: {self._held[domain]} is under way; try again", kind=self._held[domain])

    def on(self, domain: str, kind: str = "") -> Operation | None:
        """The operation that is under way on a domain, or None; with `kind`, only one of that kind."""
        for handle in self._running.values():
            if handle.operation.domain == domain and kind in ("", handle.operation.kind):
                return handle.operation
        return None

    @contextmanager
    def unasked(self, domain: str) -> Iterator[None]:
        """Mark short work on a domain that nobody has asked for: commands wait for its end (`rest`)."""
        done = asyncio.Event()
        marks = self._unasked.setdefault(domain, set())
        marks.add(done)
        try:
            yield
        finally:
            marks.discard(done)
            if not marks:
                self._unasked.pop(domain, None)
            done.set()

    async def rest(self, domain: str) -> None:
        """Wait until nothing is at work on a domain that nobody has asked for.

        Such work takes a second or so, and comes by itself: whoever types a command cannot know of it, and it is not
        to fail because of that.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                for done in tuple(self._unasked.get(domain, ())):
                    await done.wait()

    def holder(self, domain: str) -> str:
        """The kind of the operation, or the verb of the short work, that holds a domain; or empty."""
        operation = self.on(domain)
        return operation.kind if operation is not None else self._held.get(domain, "")

    # Long work

    def start(
        self,
        kind: str,
        domain: str,
        user: str,
        work: Work,
        *,
        may_cancel: bool,
        identity: str = "",
        asked: Mapping[str, Any] | None = None,
    ) -> Operation:
        """Begin an operation that goes on by itself.

        Args:
            kind: the verb.
            domain: that it holds while it runs.
            user: who asked for it.
            work: what it does; what it returns becomes `Operation.result`, what it raises `Operation.error`.
            may_cancel: whether it can be stopped from the beginning.
            identity: id of an earlier operation that this one continues; empty = a new one.
            asked: becomes `Operation.asked`.

        Raises:
            Busy: another operation holds the domain.
        """
        self.check_free(domain)
        operation = Operation(
            id=identity or str(uuid.uuid4()),
            kind=kind,
            domain=domain,
            user=user,
            started_at=time.time(),
            may_cancel=may_cancel,
            asked=asked or {},
        )
        handle = Handle(self, operation)
        self._store.put_operation(operation)
        self._running[operation.id] = handle
        self._tasks[operation.id] = asyncio.create_task(self._run(handle, work), name=f"{kind}-{domain}")
        return operation

    def get(self, identity: str) -> Operation:
        """The operation with that id, running or over.

        Raises:
            NotFound: there is none.
        """
        if identity in self._running:
            return self._running[identity].operation
        operation = self._store.operation(identity)
        if operation is None:
            raise NotFound(f"operation {identity} was not found")
        return operation

    def list(self) -> tuple[Operation, ...]:
        """All operations that are remembered, oldest first."""
        running = {identity: handle.operation for identity, handle in self._running.items()}
        return tuple(running.get(operation.id, operation) for operation in self._store.operations())

    async def follow(self, identity: str) -> AsyncIterator[Operation]:
        """The operation as it is now, and again after each change, until it is over.

        Raises:
            NotFound: there is none.
        """
        queue: asyncio.Queue[Operation] = asyncio.Queue()
        watchers = self._watchers.setdefault(identity, set())
        watchers.add(queue)
        try:
            operation = self.get(identity)
            yield operation
            while not operation.is_over:
                operation = await queue.get()
                yield operation
        finally:
            watchers.discard(queue)
            if not watchers:
                self._watchers.pop(identity, None)

    async def wait(self, identity: str) -> Operation:
        """The operation, once it is over.

        Raises:
            NotFound: there is none.
        """
        operation = self.get(identity)
        async for known in self.follow(identity):
            operation = known
        return operation

    def cancel(self, identity: str) -> None:
        """Ask an operation to stop; it says by itself when it has.

        Raises:
            RequestError: it is over, or cannot be stopped any more.
        """
        handle = self._running.get(identity)
        if handle is None:
            raise RequestError(f"operation {identity} is over", code="operation-over")
        if not handle.operation.may_cancel:
            raise RequestError(
                f"operation {handle.operation.kind} on LDom {handle.operation.domain} cannot be cancelled any more"
                f" (phase {handle.operation.phase})",
                code="too-late",
            )
        handle.cancelled.set()

    def abandon(self, operation: Operation, why: str = "") -> None:
        """Note that an operation has ended with the manager that was doing it, and cannot go on; `why` says more."""
        message = why or f"{operation.kind} was interrupted by a restart of the manager"
        error = {"code": "restarted", "message": message}
        ended = replace(operation, status=OperationStatus.FAILURE, ended_at=time.time(), may_cancel=False, error=error)
        self._store.put_operation(ended)

    async def close(self) -> None:
        """Let go of everything that runs; what it was doing is in the journal and goes on after a restart."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Inside

    def tell(self, operation: Operation) -> None:
        """Tell everybody who follows the operation that it has changed."""
        for queue in self._watchers.get(operation.id, ()):
            queue.put_nowait(operation)

    async def _run(self, handle: Handle, work: Work) -> None:
        identity, domain = handle.operation.id, handle.operation.domain
        with structlog.contextvars.bound_contextvars(operation=identity, domain=domain):
            status, error, result = OperationStatus.SUCCESS, {}, {}
            try:
                result = dict(await work(handle))
            except Cancelled as cancelled:
                status, error = OperationStatus.CANCELLED, describe_error(cancelled)
            except LdomsError as failure:
                status, error = OperationStatus.FAILURE, describe_error(failure)
            except asyncio.CancelledError:
                # The manager stops: the operation is not over, and goes on after the restart.
                del self._running[identity], self._tasks[identity]
                raise
            except Exception as bug:
                _log.exception("operation-crashed", kind=handle.operation.kind)
                status, error = OperationStatus.FAILURE, {"code": "internal", "message": f"internal error: {bug!r}"}
        handle.operation = replace(
            handle.operation,
            status=status,
            ended_at=time.time(),
            may_cancel=False,
            progress=100 if status is OperationStatus.SUCCESS else handle.operation.progress,
            error=error,
            result=result,
        )
        del self._running[identity], self._tasks[identity]
        try:
            self._store.put_operation(handle.operation)
        except StoreFailed as failure:  # it has ended all the same; whoever waits for it must hear of that
            _log.error("operation-not-written", reason=failure.message)
        self.tell(handle.operation)


def describe_error(error: LdomsError) -> dict[str, Any]:
    """An error as JSON data: its code, its sentence, and what explains it."""
    described: dict[str, Any] = {"code": error.code, "message": error.message, "details": to_wire(error.details)}
    if isinstance(error, CheckFailed):
        described["findings"] = to_wire(error.findings)
    return described
