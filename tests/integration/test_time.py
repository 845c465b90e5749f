"""A guest's clock: the control domains of the lab serve the time, and the guest follows them, wherever it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ldoms.bench.clock import ask_clock
from ldoms.bench.server import Server
from ldoms.hypervisor.agent import QemuAgent
from ldoms.lab import images
from ldoms.lab import lab as labs
from ldoms.model.errors import HostError
from ldoms.model.guest import TimeService
from support import SOURCE, TARGET, Hosts, make_hosts, wait_until

BOOT_S, SYNCHRONISED_S, OTHER_SERVER_S = 90, 60, 120


@pytest.fixture(scope="module")
def pair() -> Iterator[Hosts]:
    """Two hosts, of which one loses its power."""
    images.build("postgres")
    with make_hosts() as hosts:
        yield hosts


def keeper(hosts: Hosts, name: str, host: str = SOURCE) -> TimeService | None:
    """What keeps the guest's clock on a host, as its agent says; None while that does not answer."""
    view = hosts.view(host, name)
    assert view is not None
    socket = hosts.lab.root(host) / "run/ldoms/domains" / view["domain"]["uuid"] / "agent.sock"
    try:
        return asyncio.run(QemuAgent(socket, name).time_service())
    except HostError:
        return None


def follows(known: TimeService | None, *servers: str) -> bool:
    """Whether a clock is synchronised with one of these."""
    return known is not None and known.synchronised and known.source in servers


def test_the_guest_follows_the_control_domains_wherever_it_runs(pair: Hosts) -> None:
    """It is synchronised before the move, the check and the report say so, and it follows the other host's after it.

    The first host loses its power then: only the control domain that the guest runs on is left to follow.
    """
    name = pair.add_guest("postgres")
    first, second = pair.lab.time_servers
    try:
        pair.ldm(SOURCE, "start-domain", name)
        wait_until(lambda: keeper(pair, name), BOOT_S, "the guest's agent does not answer")
        wait_until(lambda: follows(keeper(pair, name), first, second), SYNCHRONISED_S, "the guest finds no time server")
        # What was wrong when it booted is slewed away.
        server = Server(pair.lab.guests[name], database="postgres")
        wait_until(lambda: abs(_error_s(pair, server)) < 0.05, SYNCHRONISED_S, "the guest's clock stays wrong")
        assert pair.migrate(name).returncode == 0
        assert pair.place(name) == [TARGET]
        wait_until(lambda: pair.reports()[-1]["guest_clock"], 30, "the guest's clock was not looked at")
        report = pair.reports()[-1]
        assert report["guest_time"]["service"]["program"] == "chrony"
        assert report["guest_time"]["service"]["synchronised"] is True
        assert report["guest_time"]["service"]["source"] in (first, second)
        assert "guest-clock" not in {finding["rule"] for finding in report["findings"]}
        labs.power_off(pair.lab, SOURCE)
        wait_until(
            lambda: follows(keeper(pair, name, TARGET), second), OTHER_SERVER_S, "the guest does not follow its host"
        )
        wait_until(lambda: abs(_error_s(pair, server)) < 0.1, SYNCHRONISED_S, "the guest's clock stays wrong")
    finally:
        if labs.manager_process(pair.lab, SOURCE) is None:
            labs.power_on(pair.lab, SOURCE)
        pair.remove_guest(name)


def test_the_check_warns_of_a_guest_that_follows_nobody(pair: Hosts) -> None:
    """Its servers do not answer; that is no reason not to move it."""
    name = pair.add_guest("postgres", **{"ldoms.ntp": "10.77.0.253"})
    try:
        pair.ldm(SOURCE, "start-domain", name)
        wait_until(lambda: keeper(pair, name), BOOT_S, "the guest's agent does not answer")
        done = pair.migrate(name)
        assert done.returncode == 0, done.stderr
        (finding,) = [one for one in pair.reports()[-1]["findings"] if one["rule"] == "guest-clock"]
        assert finding["severity"] == "warning"
        assert "not synchronised, as chrony in it says" in finding["message"]
    finally:
        pair.remove_guest(name)


def _error_s(hosts: Hosts, server: Server) -> float:
    """The guest's clock against this machine's, as a client sees it; the lab's hosts have this machine's."""
    reading = ask_clock(server, prefix=hosts.lab.space("client").command([]))
    assert 0 < reading.uncertainty_s < 1
    return reading.offset_s
