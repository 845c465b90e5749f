"""``panic-domain``: a guest's kernel is made to panic, and its memory kept for a debugger if that is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import GuestEventKind, RunState
from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.manager.operations import Handle
from ldoms.model.domain import Domain
from ldoms.model.errors import Cancelled, HostError, RequestError
from ldoms.model.operation import Operation

KIND = "panic-domain"
CORE_S = 3600.0
"""How long a guest may stand still for its memory to be written."""
PANIC_S = 15.0
"""How long a guest may take to show that it has panicked."""

_SIGNS = (GuestEventKind.PANICKED, GuestEventKind.RESET, GuestEventKind.SHUT_DOWN, GuestEventKind.GONE)


class PanicVerbs:
    """``panic-domain``."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def begin(self, name: str, core: str, user: str) -> Operation:
        """Begin to panic the guest of a domain; the operation goes on by itself.

        Args:
            name: of the domain.
            core: file of this host that the guest's memory is written to first; empty = it is not.
            user: who asked for it.

        Raises:
            RequestError: the domain is not active, or the file cannot be written so.
            Busy: another operation holds the domain.
        """
        with self._host.changing(name, KIND) as domain:
            running = self._require(domain)
            path = _check_core(core) if core else None

        async def work(handle: Handle) -> Mapping[str, Any]:
            if path is not None:
                await _keep_core(name, running.guest, path, handle)
            await self._panic(name, running.guest, handle)
            return {"core": str(path) if path else ""}

        return self._host.operations.start(
            KIND, name, user, work, may_cancel=path is not None, asked={"core": str(path) if path else ""}
        )

    def recover(self) -> None:
        """Remove what an earlier manager has left of cores: its end was the end of them, and their guests went on."""
        for operation in self._host.store.operations():
            core = operation.asked.get("core", "")
            if operation.kind == KIND and not operation.is_over and core:
                with suppress(OSError):
                    _part(Path(core)).unlink(missing_ok=True)

    def _require(self, domain: Domain) -> RunningGuest:
        if domain.is_control:
            raise RequestError(
                "LDom primary is the host itself and cannot be panicked with this command", code="control-domain"
            )
        running = self._host.guests.get(domain.uuid)
        if running is None or running.run_state is not RunState.RUNNING:
            raise RequestError(f"LDom {domain.name} is not active", code="domain-not-active")
        return running

    async def _panic(self, name: str, guest: Guest, handle: Handle) -> None:
        handle.update(phase="panic", progress=99, may_cancel=False)
        with guest.events() as events:
            await guest.inject_nmi()
            try:
                async with asyncio.timeout(PANIC_S):
                    while (await events.get()).kind not in _SIGNS:
                        pass
            except TimeoutError as error:
                raise HostError(
                    f"LDom {name} was sent an NMI and shows no sign of a panic within {PANIC_S:g} s: a Linux guest must"
                    " be told to panic on it ('sysctl kernel.unknown_nmi_panic=1' in the guest)",
                    code="no-panic",
                ) from error


def _check_core(core: str) -> Path:
    path = Path(core)
    if not path.is_absolute() or any(character.isspace() and character != " " for character in core):
        raise RequestError(f"the file for the core needs its full path, not '{core}'", code="bad-path")
    for taken in (path, _part(path)):
        if taken.exists():
            raise RequestError(f"{taken} already exists: name a new file for the core", code="file-exists")
    if not path.parent.is_dir():
        raise RequestError(f"the directory {path.parent} does not exist", code="bad-path")
    return path


def _part(path: Path) -> Path:
    """Where a core is as long as it is not whole."""
    return path.with_name(f"{path.name}.part")


async def _keep_core(name: str, guest: Guest, path: Path, handle: Handle) -> None:
    """Write the memory of a guest to a file, which is there only when it is whole.

    Raises:
        HostError: it cannot be written, or takes too long; the guest goes on.
        Cancelled: somebody wants an end of it; the guest goes on.
    """
    handle.update(phase="core", progress=0)
    part = _part(path)
    dumping = asyncio.ensure_future(guest.dump(part, lambda percent: handle.update(progress=min(98, percent))))
    cancelled = asyncio.create_task(handle.cancelled.wait())
    try:
        await asyncio.wait((dumping, cancelled), timeout=CORE_S, return_when=asyncio.FIRST_COMPLETED)
        if dumping.done():
            dumping.result()
            part.rename(path)
        elif cancelled.done():
            raise Cancelled(f"cancelled: the memory of LDom {name} was not written, and its guest runs on")
        else:
            raise HostError(
                f"the memory of LDom {name} was not written within {CORE_S:g} s, and its guest runs on", code="no-core"
            )
    except OSError as error:
        raise HostError(f"the core cannot be put at {path}: {error.strerror}", code="no-core") from error
    finally:
        cancelled.cancel()
        dumping.cancel()
        await asyncio.gather(dumping, return_exceptions=True)
        with suppress(OSError):
            part.unlink(missing_ok=True)
