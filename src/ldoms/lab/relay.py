"""A link with delay and loss for kernels without ``netem``: packets pass from one tap to another, held back.

Run as ``python -m ldoms.lab.relay TAP TAP DELAY_S LOSS`` inside the switch; it ends on SIGTERM. Packets keep the
header that lets them be up to 64 KiB, so that a link with delay can still be fast; with loss they are ordinary ones,
as losing 64 KiB at a time would be another kind of link.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import struct
import sys
import time
from collections import deque

_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_OFFLOADS = 0x01 | 0x02 | 0x04  # checksum, TCP over IPv4 and IPv6 in large packets (linux/if_tun.h)
_HEADER = 10
_PACKET = 65536 + _HEADER
QUEUE_PACKETS = 20_000
"""That may be on their way in one direction; more are lost, as in a full router."""


def open_tap(name: str, *, large: bool) -> int:
    """Make a tap that lasts as long as this process."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    fcntl.ioctl(tap, _TUNSETVNETHDRSZ, struct.pack("i", _HEADER))
    fcntl.ioctl(tap, _TUNSETOFFLOAD, _OFFLOADS if large else 0)
    return tap


class Way:
    """One direction: packets wait until they are due."""

    def __init__(self, source: int, sink: int, delay_s: float, loss: float) -> None:
        self.source, self._sink, self._delay_s, self._loss = source, sink, delay_s, loss
        self._waiting: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        """Take in all packets that have come."""
        while True:
            try:
                packet = os.read(self.source, _PACKET)
            except BlockingIOError:
                return
            if random.random() >= self._loss and len(self._waiting) < QUEUE_PACKETS:  # noqa: S311
                self._waiting.append((time.monotonic() + self._delay_s, packet))

    def give(self) -> float | None:
        """Send on what is due; seconds until the next packet is, None if none waits."""
        while self._waiting:
            due, packet = self._waiting[0]
            if due > (now := time.monotonic()):
                return due - now
            self._waiting.popleft()
            try:
                os.write(self._sink, packet)
            except (BlockingIOError, OSError):
                continue  # the other end is down or full: lost, as on a real link
        return None


def main() -> None:
    """Carry packets until asked to stop."""
    first, second, delay_s, loss = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    taps = [open_tap(name, large=loss == 0) for name in (first, second)]
    ways = [Way(taps[0], taps[1], delay_s, loss), Way(taps[1], taps[0], delay_s, loss)]
    print("ready", flush=True)
    while True:
        pending = [wait for way in ways if (wait := way.give()) is not None]
        readable, _, _ = select.select(taps, [], [], min(pending, default=1.0))
        for way in ways:
            if way.source in readable:
                way.take()


if __name__ == "__main__":
    main()
