"""One QMP connection: commands with a time limit, events for many listeners, errors translated once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate

from ldoms.model.errors import HostError

QUICK_S = 5.0
"""For commands that QEMU answers from its own state."""
SLOW_S = 20.0
"""For commands that open images, or wait for a disk."""
CONNECT_S = 30.0
"""A QEMU that was just started may have to be read from a slow disk first; one that ends is noticed at once."""
RETRY_S = 0.01
MOST_UNANSWERED = 4
"""QEMU keeps 8 commands that it has not come to yet, and then reads no more: not even what goes out of band."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn every error of the QMP library into a `HostError`; `what` says what was tried on which domain.

    Raises:
        HostError: code ``qemu-refused`` (QEMU said no), ``qemu-silent`` (no answer in time), or ``qemu-gone``
            (the connection was lost, so the command may or may not have been carried out).
    """
    try:
        yield
    except ExecuteError as error:
        raise HostError(f"{what}: QEMU says: {error}", code="qemu-refused") from error
    except TimeoutError as error:
        raise HostError(f"{what}: QEMU did not answer in time", code="qemu-silent") from error
    except (ExecInterruptedError, QMPError, EOFError, OSError) as error:
        raise HostError(f"{what}: the connection to QEMU was lost ({error})", code="qemu-gone") from error


class Monitor:
    """A connection to the QMP socket of one QEMU.

    Attributes:
        lost: set when the connection has ended, from whatever side.
    """

    def __init__(self, name: str, on_event: Callable[[Message], None] = lambda event: None) -> None:
        """Prepare a monitor of domain `name`; every event is handed to `on_event`."""
        self._name = name
        self._client = QMPClient(f"ldoms-{name}")
        self._client.logger.setLevel("CRITICAL")  # every error reaches us as an exception
        self._client.events.event_filter = lambda event: False  # the built-in listener would keep every one
        self._client.register_listener(_Forward(on_event))
        self._watcher: asyncio.Task[None] | None = None
        self._closing = asyncio.Lock()
        self._was_open = False
        self._unanswered: set[asyncio.Task[object]] = set()
        self.lost = asyncio.Event()

    async def connect(
        self, path: Path, gone: asyncio.Event, limit_s: float = CONNECT_S, retry_s: float = RETRY_S
    ) -> bool:
        """Connect as soon as QEMU listens at `path`, and negotiate.

        A QEMU that is starting makes its socket a moment before it listens to it.

        Args:
            path: of the socket.
            gone: set when QEMU has ended.
            limit_s: how long to try.
            retry_s: between two tries.

        Returns:
            False if QEMU has ended, as `gone` says, before it listened.

        Raises:
            HostError: nobody answers in time; code ``qemu-silent``.
        """
        deadline = asyncio.get_running_loop().time() + limit_s
        while not gone.is_set():
            try:
                with translated(f"connect to the monitor of LDom {self._name}"):
                    async with asyncio.timeout_at(deadline):
                        await self._client.connect(str(path))
            except HostError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise HostError(f"the QEMU of LDom {self._name} does not answer", code="qemu-silent") from error
                await asyncio.sleep(retry_s)
            else:
                self._was_open = True
                self._watcher = asyncio.create_task(self._watch(), name=f"qmp-watch-{self._name}")
                return True
        return False

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._client.runstate is Runstate.RUNNING

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit_s: float = QUICK_S,
        out_of_band: bool = False,
    ) -> Any:
        """Carry out one command and return its answer.

        Args:
            command: name of the QMP command.
            arguments: as the QMP reference names them.
            limit_s: how long to wait for the answer.
            out_of_band: it is one of the few that QEMU carries out at once, also when its main loop is blocked.

        Raises:
            HostError: see `translated`.
        """
        if not self._was_open:
            raise HostError(f"{command} on LDom {self._name}: QEMU does not answer", code="qemu-silent")
        if len(self._unanswered) >= MOST_UNANSWERED and not out_of_band:
            raise HostError(f"{command} on LDom {self._name}: QEMU does not answer", code="qemu-silent")
        asked = asyncio.create_task(self._client.execute(command, arguments, oob=out_of_band), name=f"qmp-{command}")
        try:
            with translated(f"{command} on LDom {self._name}"):
                async with asyncio.timeout(limit_s):
                    return await asyncio.shield(asked)
        finally:
            if not asked.done():  # QEMU has it on its list, although nobody waits for the answer any more
                self._unanswered.add(asked)
                asked.add_done_callback(self._answered)

    def _answered(self, asked: asyncio.Task[object]) -> None:
        self._unanswered.discard(asked)
        if not asked.cancelled():
            asked.exception()  # nobody wants to know

    async def close(self) -> None:
        """Close the connection; QEMU goes on. It may be called by several at once, and again."""
        async with self._closing:  # the library does not bear two that disconnect at the same time
            if self._watcher is not None:
                self._watcher.cancel()
            with suppress(QMPError, EOFError, OSError):
                await self._client.disconnect()
            for asked in self._unanswered:
                asked.cancel()
            self.lost.set()

    async def _watch(self) -> None:
        while self.is_open:
            await self._client.runstate_changed()
        self.lost.set()


class _Forward(EventListener):
    """Hands every event on, and keeps none."""

    def __init__(self, on_event: Callable[[Message], None]) -> None:
        super().__init__()
        self._on_event = on_event

    async def put(self, event: Message) -> None:
        self._on_event(event)
