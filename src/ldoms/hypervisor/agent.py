"""The guest agent of QEMU, spoken to over its virtio-serial socket (docs/interop/qemu-ga-ref)."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from ldoms.hypervisor.states import GuestVcpu, PowerWish
from ldoms.hypervisor.time_service import QUESTIONS
from ldoms.model.errors import HostError
from ldoms.model.guest import CpuTimes, TimeService

ANSWER_S = 3.0
VCPUS_S = 10.0
"""A busy guest takes its time to empty a CPU."""
RUN_TRIES = 20
RUN_POLL_S = 0.1
# Linux's own switch: u makes file systems read-only, o switches off (admin-guide/sysrq).
_SWITCH_OFF = "sync; echo u >/proc/sysrq-trigger; sleep 1; echo o >/proc/sysrq-trigger"
_DELIMITER = b"\xff"

T = TypeVar("T")


def _as_it_is(answer: Any) -> Any:
    return answer


class QemuAgent:
    """The agent in one guest; it may not be there, or not answer."""

    def __init__(self, socket: Path, name: str) -> None:
        """Prepare to talk to the agent of domain `name`; each call connects anew, as the socket takes one client."""
        self._socket = socket
        self._name = name
        self._lock = asyncio.Lock()

    async def ping(self) -> bool:
        """Whether it answers."""
        try:
            await self._call("guest-ping")
        except HostError:
            return False
        return True

    async def clock(self) -> float:
        """The guest's clock, seconds since 1970.

        Raises:
            HostError: it does not answer.
        """
        return await self._call("guest-get-time", read=lambda answer: float(answer) / 1e9)

    async def set_clock(self, at: float) -> None:
        """Set the guest's clock to `at` seconds since 1970.

        Raises:
            HostError: it does not answer, or cannot.
        """
        await self._call("guest-set-time", {"time": int(at * 1e9)})

    async def vcpus(self) -> tuple[GuestVcpu, ...]:
        """The virtual CPUs that the guest knows of, by number.

        Raises:
            HostError: it does not answer, or cannot.
        """
        return await self._call("guest-get-vcpus", read=_vcpus)

    async def set_vcpus(self, vids: Sequence[int], *, online: bool) -> None:
        """Bring virtual CPUs online or take them offline.

        Raises:
            HostError: it does not answer, or refuses the first one.
        """
        wanted = [{"logical-id": vid, "online": online} for vid in vids]
        await self._call("guest-set-vcpus", {"vcpus": wanted}, limit_s=VCPUS_S)

    async def cpu_times(self) -> tuple[CpuTimes, ...]:
        """What the virtual CPUs that are online have done since the guest booted, by number.

        Raises:
            HostError: it does not answer, or cannot.
        """
        return await self._call("guest-get-cpustats", read=_cpu_times)

    async def shut_down(self, wish: PowerWish = PowerWish.OFF) -> None:
        """Ask the guest to shut down, or to restart. The agent does not answer this one."""
        async with self._connection() as (reader, writer):
            await self._synchronize(reader, writer)
            await _write(writer, {"execute": "guest-shutdown", "arguments": {"mode": wish.value}})

    async def switch_off(self) -> None:
        """Have the guest write its file systems and switch off."""
        await self._call("guest-exec", {"path": "/bin/sh", "arg": ["-c", _SWITCH_OFF]})

    async def tell(self, text: str) -> None:
        """Show a text on the terminals of the guest's users.

        Raises:
            HostError: it does not answer, may not run programs, or has no ``wall``.
        """
        status, _ = await self._run_program("wall", text=f"{text}\n")
        if status != 0:
            raise HostError(f"wall has failed in LDom {self._name}", code="agent-refused")

    async def time_service(self) -> TimeService | None:
        """What keeps the guest's clock right; None if there is nothing that we know, or nobody may ask it.

        Raises:
            HostError: the agent does not answer.
        """
        silent = None
        for question in QUESTIONS:
            try:
                status, output = await self._run_program(question.program, question.arguments)
                if status == 0:
                    return question.read(output)
                silent = silent or TimeService(question.service, synchronised=False)  # it is there, and does not run
            except HostError as error:
                if error.code != "agent-refused":
                    raise
            except ValueError:
                continue  # whoever has the guest can have it say anything
        return silent

    async def system(self) -> str:
        """The name of the guest's operating system."""
        name = await self._call("guest-get-osinfo", read=_system)
        if not name:
            raise HostError(f"the guest agent of LDom {self._name} does not know its system", code="agent-refused")
        return name

    async def _run_program(self, program: str, arguments: Sequence[str] = (), *, text: str = "") -> tuple[int, str]:
        """Run a program in the guest, with `text` as its input; its exit status, and what it has printed."""
        asked: dict[str, object] = {"path": program, "arg": list(arguments), "capture-output": True}
        if text:
            asked["input-data"] = base64.b64encode(text.encode()).decode()
        pid = await self._call("guest-exec", asked, read=lambda answer: answer["pid"])
        for _ in range(RUN_TRIES):
            ended = await self._call("guest-exec-status", {"pid": pid}, read=_ended)
            if ended is not None:
                return ended
            await asyncio.sleep(RUN_POLL_S)
        raise HostError(f"{program} does not end in LDom {self._name}", code="agent-refused")

    async def _call(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        read: Callable[[Any], T] = _as_it_is,
        limit_s: float = ANSWER_S,
    ) -> T:
        async with self._connection(limit_s) as (reader, writer):
            await self._synchronize(reader, writer)
            await _write(writer, {"execute": command, "arguments": arguments or {}})
            answer = json.loads(await reader.readline())
        try:
            if "error" in answer:
                raise HostError(
                    f"{command} in LDom {self._name}: the guest agent says: {answer['error'].get('desc')}",
                    code="agent-refused",
                )
            return read(answer["return"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            # Whoever has the guest can have its agent say anything.
            raise HostError(
                f"{command} in LDom {self._name}: the answer of the guest agent makes no sense", code="agent-refused"
            ) from error

    async def _synchronize(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # An answer to somebody who has gone may still be on its way: the delimiter tells where ours begin.
        number = secrets.randbelow(2**31)
        writer.write(_DELIMITER)
        await _write(writer, {"execute": "guest-sync-delimited", "arguments": {"id": number}})
        while True:
            await reader.readuntil(_DELIMITER)
            if json.loads(await reader.readline()).get("return") == number:
                return

    @asynccontextmanager
    async def _connection(
        self, limit_s: float = ANSWER_S
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        async with self._lock:
            try:
                async with asyncio.timeout(limit_s):
                    reader, writer = await asyncio.open_unix_connection(self._socket)
                    try:
                        yield reader, writer
                    finally:
                        writer.close()
            except TimeoutError as error:
                raise HostError(
                    f"the guest agent of LDom {self._name} does not answer within {limit_s:g} s", code="no-agent"
                ) from error
            except (OSError, EOFError, ValueError, AttributeError, asyncio.LimitOverrunError) as error:
                raise HostError(
                    f"the guest agent of LDom {self._name} cannot be reached: {error}", code="no-agent"
                ) from error


async def _write(writer: asyncio.StreamWriter, message: Mapping[str, object]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


def _vcpus(answer: Any) -> tuple[GuestVcpu, ...]:
    known = [
        GuestVcpu(int(cpu["logical-id"]), bool(cpu["online"]), fixed=not cpu.get("can-offline", False))
        for cpu in answer
    ]
    return tuple(sorted(known, key=lambda cpu: cpu.vid))


# Our names and those of the agent, which counts in milliseconds; a kernel may lack all but the first three.
_CPU_TIMES = {
    "user_s": "user",
    "system_s": "system",
    "idle_s": "idle",
    "nice_s": "nice",
    "iowait_s": "iowait",
    "irq_s": "irq",
    "softirq_s": "softirq",
    "steal_s": "steal",
    "guest_s": "guest",
    "guest_nice_s": "guestnice",
}


def _cpu_times(answer: Any) -> tuple[CpuTimes, ...]:
    known = [
        CpuTimes(int(cpu["cpu"]), **{ours: float(cpu.get(theirs, 0)) / 1000 for ours, theirs in _CPU_TIMES.items()})
        for cpu in answer
    ]
    return tuple(sorted(known, key=lambda cpu: cpu.cpu))


def _ended(answer: Any) -> tuple[int, str] | None:
    """Exit status and output of a program; None while it runs."""
    if not answer["exited"]:
        return None
    output = base64.b64decode(answer.get("out-data", "")).decode(errors="replace")
    return int(answer.get("exitcode", 1)), output


def _system(answer: Any) -> str:
    return str(answer.get("pretty-name") or answer.get("name") or answer.get("id") or "")
