"""Connecting to a QEMU that is not ready yet."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from ldoms.hypervisor.qmp import Monitor
from ldoms.model.errors import HostError

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}, "capabilities": ["oob"]}}


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As much of QEMU as a connection needs."""
    writer.write(json.dumps(GREETING).encode() + b"\r\n")
    while text := await reader.read(4096):
        request = json.loads(text)
        answer = {"return": {}} | ({"id": request["id"]} if "id" in request else {})
        writer.write(json.dumps(answer).encode() + b"\r\n")
    writer.close()


async def test_a_socket_that_is_made_before_anybody_listens(tmp_path: Path) -> None:
    """QEMU binds its socket a moment before it listens: a connection refused then is tried again."""
    path = tmp_path / "qmp.sock"
    monitor = Monitor("ldg1")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        connecting = asyncio.create_task(monitor.connect(path, asyncio.Event()))
        await asyncio.sleep(0.1)
        assert not connecting.done()
        server = await asyncio.start_unix_server(greet, sock=listener)
        try:
            async with asyncio.timeout(5):
                assert await connecting
            assert monitor.is_open
        finally:
            await monitor.close()
            server.close()


async def test_a_qemu_that_ends_before_it_listens(tmp_path: Path) -> None:
    """Then nobody waits for it."""
    gone = asyncio.Event()
    connecting = asyncio.create_task(Monitor("ldg1").connect(tmp_path / "qmp.sock", gone))
    await asyncio.sleep(0.05)
    gone.set()
    async with asyncio.timeout(5):
        assert not await connecting


async def test_a_qemu_that_never_listens(tmp_path: Path) -> None:
    """The error says whose QEMU it is, and has the code of a silent one."""
    with pytest.raises(HostError, match="the QEMU of LDom ldg1 does not answer") as caught:
        await Monitor("ldg1").connect(tmp_path / "qmp.sock", asyncio.Event(), 0.1)
    assert caught.value.code == "qemu-silent"
