"""Errors of the QMP library stop at the hypervisor's door."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any, cast

import pytest
import qemu.qmp
from qemu.qmp import ExecInterruptedError, ExecuteError, QMPError

from ldoms.hypervisor.qmp import MOST_UNANSWERED, Monitor, translated
from ldoms.model.errors import HostError

LIBRARY = [
    kind
    for _, kind in inspect.getmembers(qemu.qmp, inspect.isclass)
    if issubclass(kind, QMPError) and kind is not QMPError
]


def make(kind: type[BaseException]) -> BaseException:
    """An error of that sort, without the circumstances that its constructor wants."""
    plain = {"__init__": lambda self: Exception.__init__(self), "__str__": lambda self: "the reason"}
    error: BaseException = type(kind.__name__, (kind,), plain)()
    return error


@pytest.mark.parametrize(
    "kind", [*LIBRARY, QMPError, EOFError, ConnectionResetError, TimeoutError], ids=lambda k: k.__name__
)
def test_every_error_of_the_library_is_translated(kind: type[BaseException]) -> None:
    """None reaches the rest of ldoms, and what was tried is said with it."""
    with pytest.raises(HostError, match=r"^stop on LDom ldg1: ") as caught, translated("stop on LDom ldg1"):
        raise make(kind)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ExecuteError, "qemu-refused"),
        (TimeoutError, "qemu-silent"),
        (ExecInterruptedError, "qemu-gone"),
        (EOFError, "qemu-gone"),
    ],
)
def test_the_code_says_what_may_have_happened(kind: type[BaseException], code: str) -> None:
    """Refused: nothing. Silent or gone: nobody knows."""
    with pytest.raises(HostError) as caught, translated("x"):
        raise make(kind)
    assert caught.value.code == code


def test_what_is_not_an_error_of_qemu_passes() -> None:
    """A mistake of ours must be seen as one."""
    with pytest.raises(KeyError), translated("x"):
        raise KeyError("x")


async def test_commands_that_nobody_answers_do_not_block_those_out_of_band() -> None:
    """QEMU reads nothing more when eight wait for its main loop: so few are left there, and none is forgotten."""
    monitor, sent, may_answer = Monitor("ldg1"), list[tuple[str, bool]](), asyncio.Event()

    async def execute(command: str, arguments: object = None, oob: bool = False) -> str:
        sent.append((command, oob))
        if not oob:
            await may_answer.wait()
        return command

    monitor._client = cast("Any", SimpleNamespace(execute=execute))
    monitor._was_open = True
    for _ in range(3 * MOST_UNANSWERED):
        with pytest.raises(HostError) as caught:
            await monitor.execute("query-status", limit_s=0.001)
        assert caught.value.code == "qemu-silent"
    assert sent == [("query-status", False)] * MOST_UNANSWERED
    assert await monitor.execute("migrate-pause", out_of_band=True) == "migrate-pause"
    may_answer.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await monitor.execute("query-status") == "query-status"
