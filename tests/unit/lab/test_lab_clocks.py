"""How the control domains of a lab serve time."""

from __future__ import annotations

from pathlib import Path

from ldoms.lab.clocks import configuration
from ldoms.lab.lab import HostPlan, Lab


def test_a_server_keeps_to_itself() -> None:
    """It answers the clients' network alone, and its files are the lab's: hosts share /run with the machine."""
    lines = configuration(Path("/labs/one/t4-1/time"), "10.77.0.0/24").splitlines()
    assert "allow 10.77.0.0/24" in lines
    assert "bindcmdaddress /" in lines
    assert "pidfile /labs/one/t4-1/time/chronyd.pid" in lines
    assert not any(line.startswith(("server", "pool", "rtcsync", "makestep")) for line in lines)


def test_every_control_domain_is_a_server() -> None:
    """At addresses that no guest is given."""
    lab = Lab("one", "/labs/one", ("t4-1", "t4-2", "t4-3"), HostPlan(), {})
    assert lab.time_servers == ("10.77.0.201", "10.77.0.202", "10.77.0.203")
