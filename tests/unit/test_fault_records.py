"""What the fault matrix asks of a guest's disk finds what it is to find: lost, doubled and forked records."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from faults.disk import (
    RECORD_BYTES,
    RECORDS,
    Record,
    check_acknowledged,
    check_chain,
    check_hosts,
    check_left_behind,
    parse,
)

BOOT, LATER = "a" * 36, "b" * 36
PERIOD_NS = 100_000_000


def written(first: int, last: int, host: str = "t4-1", boot: str = BOOT) -> list[Record]:
    """What one guest writes."""
    return [
        Record(count, boot, host, count * PERIOD_NS, (count - 1) * PERIOD_NS if count > 1 else 0)
        for count in range(first, last + 1)
    ]


def image(records: list[Record]) -> bytes:
    """A disk to which those were written, in that order."""
    content = bytearray(RECORDS * RECORD_BYTES)
    for one in records:
        values = (b"LDPULSE", one.count, one.boot.encode(), one.host.encode(), one.made_ns, one.last_made_ns)
        struct.pack_into("<8sQ36s12sQQ", content, one.count % RECORDS * RECORD_BYTES, *values)
    return bytes(content)


@pytest.mark.parametrize("last", [1, 40, RECORDS - 1, RECORDS, 3 * RECORDS + 5])
def test_a_guest_that_has_moved_is_whole(last: int) -> None:
    """Also where it has gone round the disk."""
    half = last // 2
    chain = check_chain(parse(image(written(1, half) + written(half + 1, last, "t4-2"))), BOOT)
    assert [record.count for record in chain] == list(range(max(1, last - RECORDS + 1), last + 1))
    check_hosts(chain, half, "t4-1", "t4-2")
    check_acknowledged(chain, {last})
    check_left_behind(parse(image(written(1, half))), chain)


def fork(chain: list[Record]) -> list[Record]:
    """The same numbers, from another QEMU."""
    return [replace(one, host="t4-2", made_ns=one.made_ns + 7, last_made_ns=one.last_made_ns + 7) for one in chain]


DAMAGE: dict[str, tuple[list[Record], Callable[[tuple[Record, ...]], object], str]] = {
    "lost": (written(1, 20) + written(22, 40), lambda found: check_chain(found, BOOT), "missing before 40: .21."),
    "lost at the end": (
        written(1, 38),
        lambda found: check_acknowledged(check_chain(found, BOOT), {37, 39}),
        "acknowledged, .39. are lost",
    ),
    "run twice": (
        [*written(1, 40), *fork(written(30, 35))],
        lambda found: check_chain(found, BOOT),
        "record 30 .t4-2. was not made by the guest that has made record 29 .t4-1.",
    ),
    "to and fro": (
        [*written(1, 20), *written(21, 25, "t4-2"), *written(26, 30)],
        lambda found: check_hosts(check_chain(found, BOOT), 10, "t4-1", "t4-1"),
        "on t4-1, then on t4-2, then on t4-1; it is on t4-1",
    ),
    "elsewhere": (
        [*written(1, 20), *written(21, 25, "t4-2")],
        lambda found: check_hosts(check_chain(found, BOOT), 10, "t4-1", "t4-1"),
        "then on t4-2; it is on t4-1",
    ),
    "written on behind": (
        written(1, 40),
        lambda found: check_left_behind(found, check_chain(parse(image(written(1, 30))), BOOT)),
        "record 31 on the image left behind is another",
    ),
    "written twice": (
        fork(written(1, 40)),
        lambda found: check_left_behind(found, check_chain(parse(image(written(1, 50))), BOOT)),
        "record 1 on the image left behind is another",
    ),
    "not there": (written(1, 9, boot=LATER), lambda found: check_chain(found, BOOT), "there is no record of boot"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(name: str) -> None:
    """And is said with the number of the record."""
    records, look, complaint = DAMAGE[name]
    with pytest.raises(AssertionError, match=complaint):
        look(parse(image(records)))


def test_a_record_in_the_place_of_another_is_found() -> None:
    """It cannot have been written by the guest."""
    content = bytearray(image(written(1, 3)))
    content[5 * RECORD_BYTES : 6 * RECORD_BYTES] = content[2 * RECORD_BYTES : 3 * RECORD_BYTES]
    with pytest.raises(AssertionError, match="record 2 is in place 5"):
        parse(bytes(content))


def test_what_a_later_start_has_overwritten_is_not_lost() -> None:
    """Nothing else is excused by it."""
    found = parse(image(written(1, 40) + written(1, 10, boot=LATER)))
    places = {record.count % RECORDS for record in found if record.boot == LATER}
    check_acknowledged(check_chain(found, BOOT, places), {3, 40}, places)
    with pytest.raises(AssertionError, match=r"\[41\] are lost"):
        check_acknowledged(check_chain(found, BOOT, places), {3, 41}, places)
    with pytest.raises(AssertionError, match="records are missing before 40"):
        check_chain(found, BOOT)
