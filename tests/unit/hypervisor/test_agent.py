"""The guest agent: what is asked, how answers are told apart, and what a silent one means. No socket is opened."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ldoms.hypervisor.agent import ANSWER_S, QemuAgent
from ldoms.hypervisor.states import GuestVcpu, PowerWish
from ldoms.model.errors import HostError
from ldoms.model.guest import CpuTimes, TimeService
from unit.clock import run

Handler = Callable[[dict[str, Any]], "dict[str, Any] | None"]


class FakeSocket:
    """The host's end of an agent's socket: both its reader and its writer. `handler` answers, None = not at all."""

    def __init__(self, handler: Handler, stale: bytes = b"") -> None:
        self.reader = asyncio.StreamReader()
        self.asked: list[dict[str, Any]] = []
        self.is_closed = False
        self._handler, self._stale = handler, stale
        self._written = b""

    def write(self, data: bytes) -> None:
        self._written += data
        while b"\n" in self._written:
            line, _, self._written = self._written.partition(b"\n")
            self._take(line)

    def _take(self, line: bytes) -> None:
        request = json.loads(line.lstrip(b"\xff"))
        if request["execute"] == "guest-sync-delimited":
            assert line.startswith(b"\xff"), "without it the agent may still be in the middle of an older request"
            answer = {"return": request["arguments"]["id"]}
            self.reader.feed_data(self._stale + b"\xff" + json.dumps(answer).encode() + b"\n")
            return
        self.asked.append(request)
        if (reply := self._handler(request)) is not None:
            self.reader.feed_data(json.dumps(reply).encode() + b"\n")

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def ask(
    monkeypatch: pytest.MonkeyPatch, question: Callable[[QemuAgent], Any], handler: Handler, stale: bytes = b""
) -> tuple[Any, FakeSocket]:
    """What becomes of a question, and the socket that it went through; time jumps."""
    sockets: list[FakeSocket] = []

    async def connect(path: Path) -> tuple[asyncio.StreamReader, FakeSocket]:
        assert path == Path("/run/agent.sock")
        sockets.append(FakeSocket(handler, stale))
        return sockets[-1].reader, sockets[-1]

    async def main() -> Any:
        return await question(QemuAgent(Path("/run/agent.sock"), "ldg1"))

    monkeypatch.setattr(asyncio, "open_unix_connection", connect)
    try:
        return run(main()), sockets[-1]
    finally:
        assert all(socket.is_closed for socket in sockets), "the agent's socket takes one client: it must be let go"


def silent(request: dict[str, Any]) -> None:
    """An agent that hangs."""


def test_the_clock_is_asked_in_nanoseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And told in seconds."""
    answer, socket = ask(
        monkeypatch, lambda agent: agent.clock(), lambda request: {"return": 1_700_000_000_250_000_000}
    )
    assert answer == pytest.approx(1_700_000_000.25, abs=1e-6)
    assert [request["execute"] for request in socket.asked] == ["guest-get-time"]


def test_the_clock_is_set_in_nanoseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an integer, which the agent insists on."""
    _, socket = ask(monkeypatch, lambda agent: agent.set_clock(1_700_000_000.5), lambda request: {"return": {}})
    assert socket.asked == [{"execute": "guest-set-time", "arguments": {"time": 1_700_000_000_500_000_000}}]


def test_virtual_cpus_are_asked_for_and_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the guest cannot take offline, or of which the agent does not say so, is fixed."""
    told = [
        {"logical-id": 1, "online": False, "can-offline": True},
        {"logical-id": 0, "online": True, "can-offline": False},
        {"logical-id": 2, "online": True},
    ]
    answer, _ = ask(monkeypatch, lambda agent: agent.vcpus(), lambda request: {"return": told})
    assert answer == (GuestVcpu(0, True, True), GuestVcpu(1, False, False), GuestVcpu(2, True, True))
    _, socket = ask(monkeypatch, lambda agent: agent.set_vcpus([1, 2], online=False), lambda request: {"return": 2})
    wanted = [{"logical-id": 1, "online": False}, {"logical-id": 2, "online": False}]
    assert socket.asked == [{"execute": "guest-set-vcpus", "arguments": {"vcpus": wanted}}]


def test_the_times_of_virtual_cpus_are_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number; what a kernel does not count is nothing."""
    told = [
        {"type": "linux", "cpu": 1, "user": 10, "system": 20, "idle": 30},
        {"type": "linux", "cpu": 0, "user": 1500, "nice": 250, "system": 2500, "idle": 3500, "iowait": 4, "irq": 5}
        | {"softirq": 6, "steal": 7000, "guest": 8, "guestnice": 9},
    ]
    answer, socket = ask(monkeypatch, lambda agent: agent.cpu_times(), lambda request: {"return": told})
    assert [request["execute"] for request in socket.asked] == ["guest-get-cpustats"]
    assert answer == (
        CpuTimes(0, 1.5, 2.5, 3.5, 0.25, 0.004, 0.005, 0.006, 7.0, 0.008, 0.009),
        CpuTimes(1, 0.01, 0.02, 0.03),
    )


@pytest.mark.parametrize(
    "stale",
    [b'{"return": 17}\n', b'\xff{"return": 4294967296}\n', b'{"ret\xff{"error": {"desc": "parse error"}}\n'],
    ids=["an answer", "another synchronisation", "half an answer"],
)
def test_answers_to_somebody_else_are_passed_over(monkeypatch: pytest.MonkeyPatch, stale: bytes) -> None:
    """A manager that was killed may have left its answers on the line."""
    answer, _ = ask(monkeypatch, lambda agent: agent.clock(), lambda request: {"return": 2_000_000_000}, stale)
    assert answer == 2.0


def test_a_refusal_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own words."""
    refusal = {"error": {"class": "GenericError", "desc": "hwclock failed"}}
    with pytest.raises(HostError, match="guest-set-time in LDom ldg1: the guest agent says: hwclock failed") as caught:
        ask(monkeypatch, lambda agent: agent.set_clock(0.0), lambda request: refusal)
    assert caught.value.code == "agent-refused"


def test_a_silent_agent_is_given_up_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration does not wait for it longer than that."""

    async def measure(agent: QemuAgent) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(HostError, match="does not answer within 3 s") as caught:
            await agent.clock()
        assert caught.value.code == "no-agent"
        return loop.time() - began

    waited, _ = ask(monkeypatch, measure, silent)
    assert waited == pytest.approx(ANSWER_S)


def test_ping_says_whether_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And raises nothing."""
    assert ask(monkeypatch, lambda agent: agent.ping(), lambda request: {"return": {}})[0]
    assert not ask(monkeypatch, lambda agent: agent.ping(), silent)[0]


def test_shutting_down_waits_for_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent gives none to this one when all is well."""
    _, socket = ask(monkeypatch, lambda agent: agent.shut_down(), silent)
    assert socket.asked == [{"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}}]
    _, socket = ask(monkeypatch, lambda agent: agent.shut_down(PowerWish.RESTART), silent)
    assert socket.asked == [{"execute": "guest-shutdown", "arguments": {"mode": "reboot"}}]


def test_users_are_told_by_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the text on its standard input, never as part of a command; it is looked at how wall has ended."""
    statuses = iter([{"exited": False}, {"exited": True, "exitcode": 0}])

    def handler(request: dict[str, Any]) -> dict[str, Any]:
        return {"return": {"pid": 7} if request["execute"] == "guest-exec" else next(statuses)}

    ask(monkeypatch, lambda agent: agent.tell("down; soon $(x)"), handler)
    started = []

    def broken(request: dict[str, Any]) -> dict[str, Any]:
        started.append(request)
        return {"return": {"pid": 7} if request["execute"] == "guest-exec" else {"exited": True, "exitcode": 1}}

    with pytest.raises(HostError, match="wall has failed in LDom ldg1"):
        ask(monkeypatch, lambda agent: agent.tell("down; soon $(x)"), broken)
    arguments = started[0]["arguments"]
    assert (arguments["path"], base64.b64decode(arguments["input-data"])) == ("wall", b"down; soon $(x)\n")


TRACKING = "0A4D00C9,10.77.0.201,9,1764041000.123456789,0.000012,0.00002,0.0001,1.5,0.0,0.2,0.001,0.002,4.0,Normal\n"
FRESH = "00000000,,0,0.000000000,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n"
MISSING = {
    "error": {"class": "GenericError", "desc": 'Failed to execute child process "x" (No such file or directory)'}
}


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        ({"chronyc": (0, TRACKING)}, TimeService("chrony", synchronised=True, source="10.77.0.201")),
        ({"chronyc": (0, FRESH)}, TimeService("chrony", synchronised=False)),
        ({"timedatectl": (0, "yes\n")}, TimeService("systemd", synchronised=True)),
        ({"timedatectl": (0, "no\n")}, TimeService("systemd", synchronised=False)),
        ({"chronyc": (1, "506 Cannot talk to daemon\n")}, TimeService("chrony", synchronised=False)),
        ({"chronyc": (1, ""), "timedatectl": (0, "yes\n")}, TimeService("systemd", synchronised=True)),
        ({"chronyc": (0, "nonsense"), "timedatectl": (0, "perhaps\n")}, None),
        ({"chronyc": (0, "")}, None),
        ({}, None),
    ],
)
def test_who_keeps_the_clock(
    monkeypatch: pytest.MonkeyPatch, programs: dict[str, tuple[int, str]], expected: TimeService | None
) -> None:
    """chrony is asked first, then whatever keeps the kernel's clock; an agent that may run nothing says nothing."""
    running = ""

    def handler(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal running
        if request["execute"] == "guest-exec":
            running = request["arguments"]["path"]
            return {"return": {"pid": 7}} if running in programs else MISSING
        status, output = programs[running]
        data = base64.b64encode(output.encode()).decode()
        return {"return": {"exited": True, "exitcode": status} | ({"out-data": data} if output else {})}

    answer, _ = ask(monkeypatch, lambda agent: agent.time_service(), handler)
    assert answer == expected


def test_a_silent_agent_is_not_asked_twice_about_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would only take longer."""
    with pytest.raises(HostError, match="does not answer"):
        ask(monkeypatch, lambda agent: agent.time_service(), silent)


def test_switching_off_writes_file_systems_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Linux's own switch; an agent that may not run programs says so."""
    _, socket = ask(monkeypatch, lambda agent: agent.switch_off(), lambda request: {"return": {"pid": 7}})
    (request,) = socket.asked
    script = request["arguments"]["arg"][1]
    assert script.index("sync") < script.index("echo u") < script.index("echo o")
    with pytest.raises(HostError, match="has been disabled"):
        ask(monkeypatch, lambda agent: agent.switch_off(), lambda request: {"error": {"desc": "has been disabled"}})


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (
            {"pretty-name": "Debian GNU/Linux 12 (bookworm)", "name": "Debian GNU/Linux"},
            "Debian GNU/Linux 12 (bookworm)",
        ),
        ({"name": "FreeBSD"}, "FreeBSD"),
        ({"id": "mswindows"}, "mswindows"),
    ],
)
def test_the_system_is_called_by_its_best_name(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, str], name: str
) -> None:
    """Which of them a guest has depends on its system."""
    assert ask(monkeypatch, lambda agent: agent.system(), lambda request: {"return": answer})[0] == name
    with pytest.raises(HostError):
        ask(monkeypatch, lambda agent: agent.system(), lambda request: {"return": {}})


@pytest.mark.parametrize("answer", [b"", b"not json\n", b'{"return": '], ids=["nothing", "nonsense", "half"])
def test_an_agent_that_breaks_off_is_an_error_of_this_host(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """Not one of the JSON library or of the socket."""

    async def connect(path: Path) -> tuple[asyncio.StreamReader, FakeSocket]:
        socket = FakeSocket(silent)
        socket.write = lambda data: None  # type: ignore[method-assign]
        socket.reader.feed_data(b"\xff" + answer)
        socket.reader.feed_eof()
        return socket.reader, socket

    monkeypatch.setattr(asyncio, "open_unix_connection", connect)
    with pytest.raises(HostError, match="the guest agent of LDom ldg1 cannot be reached") as caught:
        run(QemuAgent(Path("/run/agent.sock"), "ldg1").clock())
    assert caught.value.code == "no-agent"


@pytest.mark.parametrize("answer", [[], 7, {"return": [7]}, {"return": {"a": 1}}, {"error": 7}, {}])
@pytest.mark.parametrize("question", ["clock", "vcpus", "system", "tell"])
def test_an_answer_that_makes_no_sense_is_an_error_of_this_host(
    monkeypatch: pytest.MonkeyPatch, question: str, answer: object
) -> None:
    """Whoever has the guest can have its agent say anything."""
    arguments = ("hello",) if question == "tell" else ()
    with pytest.raises(HostError):
        ask(monkeypatch, lambda agent: getattr(agent, question)(*arguments), lambda request: answer)  # type: ignore[arg-type, return-value]


def test_an_agent_that_talks_without_end_is_an_error_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up when it has said more than any answer has."""

    async def connect(path: Path) -> tuple[asyncio.StreamReader, FakeSocket]:
        socket = FakeSocket(silent)
        socket.write = lambda data: None  # type: ignore[method-assign]
        socket.reader.feed_data(b"x" * (1 << 20))
        return socket.reader, socket

    monkeypatch.setattr(asyncio, "open_unix_connection", connect)
    with pytest.raises(HostError):
        run(QemuAgent(Path("/run/agent.sock"), "ldg1").clock())
