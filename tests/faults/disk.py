"""What a guest has written to its disk, looked at from outside: numbered records, each with the host it was made on.

The guest (``guest/pulse.c``) writes one before every heartbeat and says over the network which is the last that is
known to be on the disk. Its QEMU tells it at every record on which host it runs (`tell_hosts`); nothing else in a
guest differs between the two QEMUs of a migration. Each record has the time at which it was made, to the nanosecond,
and that of the one before it: where two guests go on from the same memory, one of the two chains is broken on the disk.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ldoms.lab.lab import CLIENT
from support import Hosts, kill_command, wait_until

RECORDS = 8192
"""In turn; at ten a second they last for longer than a cell."""
RECORD_BYTES = 512
RING_BYTES = RECORDS * RECORD_BYTES
_RECORD = struct.Struct("<8sQ36s12sQQ")
_QEMU = "qemu-system-x86_64"
_WRAPPER = """#!/bin/sh
case " $* " in
*" -uuid "*) exec {real} "$@" -fw_cfg name=opt/ldoms.lab/host,string={host} ;;
esac
exec {real} "$@"
"""
_WITNESS = """
import socket, sys, time
while True:
    try:
        with socket.create_connection((sys.argv[1], 7), timeout=1) as connection:
            connection.sendall(b"\\n")
            print(connection.makefile().readline(), end="", flush=True)
    except OSError:
        pass
    time.sleep(0.1)
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One write of the guest.

    Attributes:
        boot: which start of the guest it is from.
        host: on which it was made.
        made_ns, last_made_ns: when it was, and the one before it, by the guest's clock.
    """

    count: int
    boot: str
    host: str
    made_ns: int
    last_made_ns: int


def parse(image: bytes) -> tuple[Record, ...]:
    """What is on a disk, by place."""
    found = []
    for at in range(0, min(len(image), RING_BYTES), RECORD_BYTES):
        magic, count, boot, host, made_ns, last_made_ns = _RECORD.unpack_from(image, at)
        if magic == b"LDPULSE\0":
            assert count % RECORDS == at // RECORD_BYTES, f"record {count} is in place {at // RECORD_BYTES}"
            found.append(Record(count, boot.decode(), host.rstrip(b"\0").decode(), made_ns, last_made_ns))
    return tuple(found)


def check_chain(records: Sequence[Record], boot: str, overwritten: Collection[int] = ()) -> tuple[Record, ...]:
    """Of one start of the guest nothing is missing, and each record follows from the one before; all of it, in order.

    Args:
        records: of a disk.
        boot: the start.
        overwritten: places that a later start has written to.

    Raises:
        AssertionError: something is missing, or two guests have written.
    """
    chain = tuple(sorted((record for record in records if record.boot == boot), key=lambda record: record.count))
    assert chain, f"there is no record of boot {boot}"
    last = chain[-1].count
    there = {record.count for record in chain}
    wanted = range(max(1, last - RECORDS + 1), last + 1)
    missing = [count for count in wanted if count not in there and count % RECORDS not in overwritten]
    assert not missing, f"records are missing before {last}: {missing[:10]}"
    for one, two in pairwise(chain):
        assert two.count > one.count + 1 or two.last_made_ns == one.made_ns, (
            f"record {two.count} ({two.host}) was not made by the guest that has made record {one.count} ({one.host})"
        )
    return chain


def check_hosts(chain: Sequence[Record], after: int, source: str, now: str) -> None:
    """Since that record the guest has moved at most once, and is where it is said to be.

    Raises:
        AssertionError: it was on two hosts by turns, or on another one.
    """
    hosts = [record.host for record in chain if record.count > after]
    moves = [two for one, two in pairwise([source, *hosts]) if two != one]
    assert moves in ([], [now]), f"the guest was on {source}, then on {', then on '.join(moves)}; it is on {now}"


def check_acknowledged(
    chain: Sequence[Record], acknowledged: Collection[int], overwritten: Collection[int] = ()
) -> None:
    """What the guest has said to be on the disk is there.

    Raises:
        AssertionError: something was lost.
    """
    there = {record.count for record in chain}
    lost = sorted(count for count in acknowledged if count not in there and count % RECORDS not in overwritten)
    assert not lost, f"of {len(acknowledged)} records that the guest has acknowledged, {lost[:10]} are lost"


def check_left_behind(left: Sequence[Record], chain: Sequence[Record]) -> None:
    """The image that a guest has left has nothing that its new one has not.

    Raises:
        AssertionError: the guest has written to both.
    """
    by_count = {record.count: record for record in chain}
    oldest, boot = chain[0].count, chain[0].boot
    for record in left:
        if record.boot == boot and record.count >= oldest:
            assert by_count.get(record.count) == record, f"record {record.count} on the image left behind is another"


@dataclass
class Witness:
    """Asks a guest all the time which of its records are on the disk."""

    _file: Path

    @property
    def said(self) -> tuple[tuple[str, int], ...]:
        """Every answer so far: which start of the guest, and which record."""
        answers = re.findall(r" durable=(\d+) boot=(\S+)\n", self._file.read_text())
        return tuple((boot, int(count)) for count, boot in answers)

    def of(self, boot: str) -> set[int]:
        """The records of one start of the guest that it has acknowledged."""
        return {count for known, count in self.said if known == boot and count}


@contextmanager
def witness(hosts: Hosts, guest: str) -> Iterator[Witness]:
    """Ask, from when the guest has answered."""
    path = hosts.lab.path / "acknowledged"
    with path.open("w") as file:
        words = hosts.command(CLIENT, sys.executable, "-c", _WITNESS, hosts.lab.guests[guest])
        process = subprocess.Popen(words, stdout=file, start_new_session=True)
    try:
        found = Witness(path)
        wait_until(lambda: found.said and found.said[-1][1], 30, "the guest acknowledges nothing")
        yield found
    finally:
        kill_command(process)
        process.wait()
        path.unlink()


def tell_hosts(hosts: Hosts) -> None:
    """Have each host's QEMU tell its guest where it runs; for those that are started from now on."""
    for host in hosts.lab.hosts:
        space = hosts.lab.space(host)
        binary = space.run(["sh", "-c", f"command -v {_QEMU}"]).strip()
        directory = hosts.lab.path / f"qemu-{host}"
        directory.mkdir()
        real, wrapper = directory / _QEMU, directory / "wrapper"
        real.touch()
        wrapper.write_text(_WRAPPER.format(real=real, host=host))
        wrapper.chmod(0o755)
        space.run(["mount", "--bind", binary, str(real)])
        space.run(["mount", "--bind", str(wrapper), binary])
