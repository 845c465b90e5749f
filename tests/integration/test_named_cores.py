"""Cores that were named: a guest that runs moves to them, and has those of the map on the other host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ldoms.lab.lab import HostPlan
from support import ADMINISTRATOR, SOURCE, TARGET, Hosts, make_hosts

PLAN = HostPlan(strands_per_cpu=2, confine=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts of two cores or more, of two strands each; primary has core 0 of t4-1, and core 1 of t4-2."""
    with make_hosts(plan=PLAN) as made:
        made.ldm(SOURCE, "set-core", "cid=0", "primary")
        made.ldm(TARGET, "set-core", "cid=1", "primary")
        yield made


def cores(hosts: Hosts, host: str, domain: str) -> list[str]:
    """The cores and the named ones, as programs read them."""
    listed = hosts.ldm(host, "list", "-o", "core,resmgmt", "-p", domain).splitlines()
    return [line for line in listed if line.startswith(("|cid=", "CONSTRAINT"))]


def test_a_running_guest_has_the_cores_that_are_named(hosts: Hosts) -> None:
    """It gets the virtual CPUs that are missing, runs on just these cores, and moves along to those of the map."""
    name = hosts.add_guest()
    try:
        hosts.boot(name)
        refused = hosts.run(SOURCE, "ldm", "set-core", "cid=0", name)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"LDom {name} cannot get core 0: LDom primary has strands of it")
        hosts.ldm(SOURCE, "set-core", "cid=1", name)
        constraint = "CONSTRAINT|cpu=whole-core|max-cores=unlimited|threading=max-throughput|physical-bindings=core"
        assert cores(hosts, SOURCE, name) == ["|cid=1|cpuset=2,3", f"{constraint}|cid=1"]
        assert "named (1)" in hosts.run(SOURCE, "ldm", "add-core", "1", name).stderr
        stays = hosts.migrate(name)
        assert stays.returncode == 1
        assert f"core 1 was named for LDom {name}, and t4-2 has cores of its own; say which" in stays.stderr
        password = str(hosts.lab.password_file)
        moved = hosts.run(
            SOURCE, "ldm", "migrate-domain", "-p", password, name, "cidmap=1:0", f"{ADMINISTRATOR}@{TARGET}"
        )
        assert (moved.returncode, moved.stderr) == (0, "")
        assert hosts.answers(name)
        assert cores(hosts, TARGET, name) == ["|cid=0|cpuset=0,1", f"{constraint}|cid=0"]
        hosts.ldm(TARGET, "set-core", "cid=", name)
        assert "physical-bindings" not in hosts.ldm(TARGET, "list-bindings", name)
    finally:
        hosts.remove_guest(name)
