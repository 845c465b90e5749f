"""The link between the hosts of a lab becomes what it is asked to be, whatever it was before."""

from __future__ import annotations

import sys

import pytest

from ldoms.lab.links import Shape
from support import Hosts

ROUND_TRIP = """
import socket, time
def once():
    begin = time.monotonic()
    socket.create_connection(("10.78.0.2", 6482), 5).close()
    return time.monotonic() - begin
print(min(once() for _ in range(5)))
"""

SHAPES = (
    Shape(rate_bit_s=200_000_000),
    Shape(rate_bit_s=200_000_000, delay_s=0.01),
    Shape(delay_s=0.01),
    Shape(rate_bit_s=1_000_000_000, loss=0.01),
    Shape(rate_bit_s=50_000_000),
    Shape(),
)


def rates(hosts: Hosts) -> list[str]:
    """What limits the rate on the hosts' ends and on the switch's, as `tc` tells it."""
    told = [hosts.lab.space(host).run(["tc", "qdisc", "show", "dev", "link0"]) for host in hosts.lab.hosts]
    told += [hosts.lab.space("switch").run(["tc", "qdisc", "show", "dev", f"{host}-link"]) for host in hosts.lab.hosts]
    return told


def round_trip_s(hosts: Hosts) -> float:
    """The shortest time that a connection between the hosts takes."""
    return float(hosts.lab.space("t4-1").run([sys.executable, "-c", ROUND_TRIP]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_link_has_the_shape_that_it_was_given_last(hosts: Hosts, shape: Shape) -> None:
    """Rate and delay are there if they were asked for, and gone if not: one after the other on the same link."""
    hosts.shape(shape)
    if shape.rate_bit_s:
        wanted = f"rate {shape.rate_bit_s // 1_000_000}Mbit".replace("1000Mbit", "1Gbit")
        assert all(wanted in told for told in rates(hosts)), rates(hosts)
    else:
        assert not any("rate" in told for told in rates(hosts)), rates(hosts)
    shortest = round_trip_s(hosts)
    assert (shortest >= 2 * shape.delay_s) if shape.delay_s else (shortest < 0.01), f"{shortest * 1000:.1f} ms"
