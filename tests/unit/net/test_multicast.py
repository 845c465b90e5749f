"""What managers tell each other about MAC addresses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ldoms.net.multicast import Message, MulticastNeighbours, decode, encode
from unit.clock import run

MAC = "00:14:4f:f8:00:01"


@pytest.mark.parametrize("verb", ["ask", "taken"])
def test_a_message_arrives_as_it_was_sent(verb: str) -> None:
    """Both kinds."""
    message = Message("1f", "t4-1", verb, MAC)
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "content",
    [
        {"ldoms": 2, "id": "1f", "host": "t4-1", "ask": MAC},
        {"ldoms": 1, "id": 7, "host": "t4-1", "ask": MAC},
        {"ldoms": 1, "id": "1f", "host": "t4\n1", "ask": MAC},
        {"ldoms": 1, "id": "1f", "host": "x" * 256, "ask": MAC},
        {"ldoms": 1, "id": "1f", "host": "t4-1", "ask": "all"},
        {"ldoms": 1, "id": "1f", "host": "t4-1", "ask": None},
        {"ldoms": 1, "id": "1f", "host": "t4-1"},
        ["ask"],
        None,
    ],
)
def test_what_is_not_ours_says_nothing(content: Any) -> None:
    """Other versions, other programs, other intentions."""
    assert decode(json.dumps(content).encode()) is None


@given(some.binary(max_size=200))
def test_noise_says_nothing(datagram: bytes) -> None:
    """Whatever arrives."""
    assert decode(datagram) is None


def test_deep_nesting_says_nothing() -> None:
    """A datagram can hold sixty thousand brackets."""
    assert decode(b"[" * 60_000) is None


class Wire:
    """Where a manager's datagrams go, without a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.managers: list[MulticastNeighbours] = []
        self.lost = 0
        monkeypatch.setattr(MulticastNeighbours, "_say", lambda manager, verb, mac: self.say(manager, verb, mac))

    def say(self, manager: MulticastNeighbours, verb: str, mac: str) -> None:
        """All hear it, the speaker too."""
        if self.lost > 0:
            self.lost -= 1
            return
        for other in self.managers:
            other.datagram_received(encode(Message(manager._id, manager._host, verb, mac)), ("192.0.2.1", 1))


def manager(host: str) -> MulticastNeighbours:
    """One that has something to speak through."""
    made = MulticastNeighbours(host)
    made._transport = asyncio.DatagramTransport()
    return made


def test_a_lost_question_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice; after that it is too late."""

    async def main() -> None:
        wire = Wire(monkeypatch)
        asks, has = manager("t4-1"), manager("t4-2")
        has._has = MAC.__eq__
        wire.managers = [asks, has]
        wire.lost = 2
        assert await asks.holder_of(MAC) == "t4-2"
        wire.lost = 3
        assert await asks.holder_of(MAC) == ""

    run(main())


def test_two_that_pick_the_same_hear_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same moment, while neither has it yet."""

    async def main() -> None:
        wire = Wire(monkeypatch)
        first, second = manager("t4-1"), manager("t4-2")
        wire.managers = [first, second]
        second._asking[MAC] = asyncio.get_running_loop().create_future()
        assert await first.holder_of(MAC) == "t4-2"

    run(main())


def test_where_nobody_can_be_heard_nobody_is_waited_for() -> None:
    """Each new domain would take as long as three questions."""

    async def main() -> None:
        before = asyncio.get_running_loop().time()
        assert await MulticastNeighbours("t4-1").holder_of(MAC) == ""
        assert asyncio.get_running_loop().time() == before

    run(main())
