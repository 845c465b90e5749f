"""The program of a probe: ``python -m ldoms.bench.asking``. It writes the record that `ldoms.bench.probe` reads."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from ldoms.bench.probe import CONNECT_TIMEOUT_S, DEFAULT_INTERVAL_S, LATE_S, Ending

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_RECEIVE_BYTES = 4096


class _Recorder:
    """Writes the record, and knows when to stop. Its clock cannot jump, and agrees with the system's at the start."""

    def __init__(self, file: TextIO, seconds: float) -> None:
        self._file = file
        self._offset = time.time() - time.monotonic()
        self._end = self.now() + seconds
        self._stopped = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def now(self) -> float:
        return time.monotonic() + self._offset

    def is_over(self) -> bool:
        return self._stopped or self.now() >= self._end

    def write(self, **values: object) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def begin(self, probe: str, target: str, interval_s: float) -> None:
        self.write(probe=probe, target=target, interval_s=interval_s, began_at=self.now())

    def end(self, error: str = "") -> None:
        ending = Ending.LOST if error else Ending.STOPPED if self._stopped else Ending.TIME
        self.write(ended_at=self.now(), ending=ending, error=error)

    def ticks(self, interval_s: float) -> Iterator[int]:
        """Numbers from 1, one per interval, the first at once; without catching up after a pause."""
        due = time.monotonic()
        seq = 0
        while not self.is_over():
            seq += 1
            yield seq
            due = max(due + interval_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True


def _ask_lines(host: str, port: int, interval_s: float, recorder: _Recorder) -> bool:
    """The line probe; False when the connection was lost."""
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as connection:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        recorder.begin("tcp", f"{host}:{port}", interval_s)
        unread = b""
        for seq in recorder.ticks(interval_s):
            sent_at = recorder.now()
            try:
                connection.sendall(f"{seq}\n".encode())
                unread = _receive_line(connection, unread, recorder)
            except OSError as error:
                recorder.write(seq=seq, sent_at=sent_at, answered_at=None)
                recorder.end(str(error) or type(error).__name__)
                return False
            if b"\n" not in unread:
                recorder.write(seq=seq, sent_at=sent_at, answered_at=None)
                break
            line, _, unread = unread.partition(b"\n")
            recorder.write(seq=seq, sent_at=sent_at, answered_at=recorder.now(), answer=line.decode(errors="replace"))
    recorder.end()
    return True


def _receive_line(connection: socket.socket, unread: bytes, recorder: _Recorder) -> bytes:
    """Receive until there is an end of a line, or it is time to stop."""
    while b"\n" not in unread and not recorder.is_over():
        # A signal is seen within the time-out: select goes on after one.
        if select.select([connection], [], [], 0.1)[0]:
            received = connection.recv(_RECEIVE_BYTES)
            if not received:
                raise ConnectionResetError("the other side has closed the connection")
            unread += received
    return unread


def _ask_connections(host: str, port: int, interval_s: float, recorder: _Recorder) -> bool:
    """The connection probe: a new connection at each tick, whatever has become of those before."""
    address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with selectors.DefaultSelector() as waiting:
        recorder.begin("connect", f"{host}:{port}", interval_s)
        due = time.monotonic()
        for seq in itertools.count(1):
            if recorder.is_over():
                break
            connection = socket.socket(address[0], socket.SOCK_STREAM)
            connection.setblocking(False)
            waiting.register(connection, selectors.EVENT_WRITE, (seq, recorder.now()))
            connection.connect_ex(address[4])
            due = max(due + interval_s, time.monotonic())
            while (left_s := due - time.monotonic()) > 0 and not recorder.is_over():
                # Not longer: one that is stopped is to end soon.
                _note_connections(waiting, min(left_s, 0.1), recorder)
        for key in list(waiting.get_map().values()):
            _note_connection(waiting, key, None, recorder)
    recorder.end()
    return True


def _note_connections(waiting: selectors.BaseSelector, limit_s: float, recorder: _Recorder) -> None:
    """Wait for connections that are made or refused, and give up those that are late."""
    for key, _ in waiting.select(limit_s):
        connection = key.fileobj
        assert isinstance(connection, socket.socket)
        refused = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        _note_connection(waiting, key, None if refused else recorder.now(), recorder)
    for key in list(waiting.get_map().values()):
        if recorder.now() - key.data[1] > LATE_S:
            _note_connection(waiting, key, None, recorder)


def _note_connection(
    waiting: selectors.BaseSelector, key: selectors.SelectorKey, answered_at: float | None, recorder: _Recorder
) -> None:
    seq, sent_at = key.data
    recorder.write(seq=seq, sent_at=sent_at, answered_at=answered_at)
    waiting.unregister(key.fileobj)
    assert isinstance(key.fileobj, socket.socket)
    key.fileobj.close()


def _ask_echoes(host: str, interval_s: float, recorder: _Recorder) -> bool:
    """The echo probe."""
    token = secrets.token_bytes(8)
    asked: dict[int, float] = {}
    with _icmp_socket() as echoes:
        echoes.connect((host, 0))
        echoes.setblocking(False)
        recorder.begin("icmp", host, interval_s)
        due = time.monotonic()
        for seq in itertools.count(1):
            if recorder.is_over():
                break
            asked[seq] = recorder.now()
            # A link that is cut may say so at once: no answer will come, and the record shows that.
            with suppress(OSError):
                echoes.send(echo_request(os.getpid() & 0xFFFF, seq, token))
            due = max(due + interval_s, time.monotonic())
            for answered in _answers_until(due, echoes, token):
                if answered in asked:
                    recorder.write(seq=answered, sent_at=asked.pop(answered), answered_at=recorder.now())
    for seq, sent_at in asked.items():
        recorder.write(seq=seq, sent_at=sent_at, answered_at=None)
    recorder.end()
    return True


def _answers_until(due: float, echoes: socket.socket, token: bytes) -> Iterator[int]:
    """The numbers of answers as they come in, until a moment of the monotonic clock."""
    while (left_s := due - time.monotonic()) > 0:
        if not select.select([echoes], [], [], left_s)[0]:
            return
        with suppress(OSError):
            yield echo_number(echoes.recv(_RECEIVE_BYTES), token)


def _icmp_socket() -> socket.socket:
    """A datagram socket where ``net.ipv4.ping_group_range`` lets us have one, else a raw one, which needs root."""
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    except PermissionError:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def echo_request(identifier: int, seq: int, token: bytes) -> bytes:
    """An ICMP echo request (RFC 792) that carries its full number and the mark of this probe."""
    body = token + struct.pack("!Q", seq)
    unchecked = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, seq & 0xFFFF) + body
    return struct.pack("!BBHHH", _ECHO_REQUEST, 0, _checksum(unchecked), identifier, seq & 0xFFFF) + body


def echo_number(packet: bytes, token: bytes) -> int:
    """The number of the request that a packet answers, with or without its IP header; 0 = it is not an answer."""
    if packet and packet[0] >> 4 == 4:
        packet = packet[(packet[0] & 0x0F) * 4 :]
    if len(packet) < 24 or packet[0] != _ECHO_REPLY or packet[8:16] != token:
        return 0
    number: int = struct.unpack("!Q", packet[16:24])[0]
    return number


def _checksum(packet: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a probe: exit status 0, 1 when its connection was lost, 2 when it could not begin."""
    parser = argparse.ArgumentParser(prog="python -m ldoms.bench.asking", description="Ask again and again.")
    parser.add_argument("probe", choices=["connect", "icmp", "tcp"])
    parser.add_argument("host")
    parser.add_argument("--port", type=int, default=7, help="for connect and tcp (%(default)s)")
    parser.add_argument("--interval", type=float, default=DEFAULT_INTERVAL_S, help="seconds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="end after so long (%(default)s)")
    parser.add_argument("--record", type=Path, required=True, help="file that is written, JSON lines")
    options = parser.parse_args(arguments)
    with options.record.open("w") as file:
        recorder = _Recorder(file, options.seconds)
        try:
            if options.probe == "icmp":
                went_well = _ask_echoes(options.host, options.interval, recorder)
            elif options.probe == "connect":
                went_well = _ask_connections(options.host, options.port, options.interval, recorder)
            else:
                went_well = _ask_lines(options.host, options.port, options.interval, recorder)
        except OSError as error:
            print(f"{options.probe} probe of {options.host}: {error}", file=sys.stderr)
            return 2
    return 0 if went_well else 1


if __name__ == "__main__":
    sys.exit(main())
