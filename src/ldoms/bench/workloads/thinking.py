"""How long users think, and taking it out again of what they waited.

Between two transactions a client of pgbench sleeps at the beginning of its script, so pgbench counts that as part
of the transaction. The time is not drawn at random but follows from the client and the number of the transaction, by
a function that pgbench and this file both know: what was slept can be taken from what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from ldoms.model.errors import RequestError

MOST_MS = 3_600_000
_MASK = (1 << 64) - 1
_MULTIPLIER = 0xC6A4A7935BD1E995
_MULTIPLIER_TIMES_8 = 0x35253C9ADE8F4CA8
_SHIFT = 47
_CLIENT_STEP = 1_000_003


@dataclass(frozen=True, slots=True)
class ThinkTimes:
    """Thinking in milliseconds, each time between a least and a most, evenly spread; named as in SwingBench.

    Attributes:
        min_ms, max_ms: between the steps within a transaction. The function in the database sleeps, as SwingBench's
            server-side functions do, so this is part of the response that is measured.
        intermin_ms, intermax_ms: before each transaction. No part of its response.
    """

    min_ms: int = 0
    max_ms: int = 0
    intermin_ms: int = 0
    intermax_ms: int = 0

    def __post_init__(self) -> None:
        for least, most, name in (
            (self.min_ms, self.max_ms, "min and max"),
            (self.intermin_ms, self.intermax_ms, "intermin and intermax"),
        ):
            if not 0 <= least <= most <= MOST_MS:
                raise RequestError(
                    f"the think times {name} are {least} and {most} ms: they must be ascending, from 0 to {MOST_MS}",
                    code="bad-think-time",
                )

    @property
    def pauses(self) -> bool:
        """Whether there is any thinking between transactions."""
        return self.intermax_ms > 0

    @property
    def script(self) -> str:
        """The lines with which a script of pgbench begins, after its client has counted `seq` on; may be none."""
        if not self.pauses:
            return ""
        choices = self.intermax_ms - self.intermin_ms + 1
        return (
            f"\\set pause {self.intermin_ms} + abs(hash_murmur2(:client_id * {_CLIENT_STEP} + :seq, 0)) % {choices}\n"
            "\\sleep :pause ms\n"
        )

    def pause_s(self, client: int, seq: int) -> float:
        """What `script` makes a client sleep before its transaction number `seq`."""
        if not self.pauses:
            return 0.0
        choices = self.intermax_ms - self.intermin_ms + 1
        return (self.intermin_ms + abs(hash_murmur2(client * _CLIENT_STEP + seq)) % choices) / 1000


def hash_murmur2(value: int, seed: int = 0) -> int:
    """The function of that name in pgbench: MurmurHash2 (Austin Appleby) of one signed 64-bit number."""
    key = (value & _MASK) * _MULTIPLIER & _MASK
    key = (key ^ (key >> _SHIFT)) * _MULTIPLIER & _MASK
    result = ((seed & _MASK) ^ _MULTIPLIER_TIMES_8 ^ key) * _MULTIPLIER & _MASK
    result = (result ^ (result >> _SHIFT)) * _MULTIPLIER & _MASK
    result ^= result >> _SHIFT
    return result - (1 << 64) if result >> 63 else result
