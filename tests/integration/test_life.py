"""How guests are stopped, panic and fail, and who may look: with real guests and real users."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldoms.hypervisor.agent import QemuAgent
from support import SOURCE, Hosts, wait_until


@pytest.fixture(scope="module")
def database(hosts: Hosts) -> Iterator[str]:
    """A guest with an agent, that runs."""
    name = hosts.add_guest("postgres")
    try:
        hosts.ldm(SOURCE, "start-domain", name)
        assert hosts.flags(SOURCE, name) == "-t----"
        wait_until(lambda: soft_state(hosts, name), 90, "the agent of the guest does not say what it is")
        yield name
    finally:
        hosts.remove_guest(name)


def soft_state(hosts: Hosts, name: str) -> str:
    view = hosts.view(SOURCE, name)
    return str(view["status"]["softstate"]) if view else ""


def events(hosts: Hosts, name: str) -> list[str]:
    """What has happened to a domain, oldest first."""
    found: list[str] = []
    after = 0
    while some := hosts.lab.client(SOURCE).get("/events", after=after):
        after = some[-1]["sequence"]
        found += [event["kind"] for event in some if event["domain"] == name]
    return found


def test_a_guest_with_an_agent_says_what_it_is(hosts: Hosts, database: str) -> None:
    """In the line SOFTSTATE, which comes first; it is past its firmware."""
    lines = hosts.ldm(SOURCE, "list", "-l", database).splitlines()
    assert lines[2:5] == ["", "SOFTSTATE", f"    {soft_state(hosts, database)}"]
    assert soft_state(hosts, database).startswith("Debian GNU/Linux")
    assert hosts.flags(SOURCE, database) == "-n----"


def test_a_guest_sees_its_identity(hosts: Hosts, database: str) -> None:
    """Its UUID and its host id are those of its machine."""
    view = hosts.view(SOURCE, database)
    assert view is not None
    domain = view["domain"]
    agent = QemuAgent(hosts.lab.root(SOURCE) / f"run/ldoms/domains/{domain['uuid']}/agent.sock", database)

    async def read(name: str) -> str:
        handle = await agent._call("guest-file-open", {"path": f"/sys/class/dmi/id/{name}"})
        found = await agent._call("guest-file-read", {"handle": handle})
        await agent._call("guest-file-close", {"handle": handle})
        return base64.b64decode(found["buf-b64"]).decode().strip()

    assert asyncio.run(read("product_serial")) == domain["hostid"]
    assert asyncio.run(read("product_uuid")) == domain["uuid"]


def test_a_guest_restarts_in_good_order(hosts: Hosts, database: str) -> None:
    """Its users are told; it keeps its QEMU, and its time begins anew."""
    view = hosts.view(SOURCE, database)
    assert view is not None
    (before,) = hosts.qemus(view["domain"]["uuid"]).values()
    done = hosts.run(SOURCE, "ldm", "stop-domain", "-r", "-m", "a new kernel", database, check=True)
    assert (done.stdout, done.stderr) == (f"LDom {database} rebooted\n", "")
    view = hosts.view(SOURCE, database)
    assert view is not None
    assert view["status"]["uptime_s"] < 10
    assert list(hosts.qemus(view["domain"]["uuid"]).values()) == [before]
    assert events(hosts, database)[-1] == "domain-reset"
    wait_until(lambda: soft_state(hosts, database), 90, "the agent of the guest does not come back")


def test_a_guest_is_switched_off_quickly(hosts: Hosts, database: str) -> None:
    """Through its agent; that is no crash."""
    assert hosts.ldm(SOURCE, "stop-domain", "-q", database) == f"LDom {database} stopped\n"
    assert hosts.state(SOURCE, database) == "bound"
    assert events(hosts, database)[-1] == "domain-stopped"


def test_a_guest_is_made_to_panic_and_its_memory_kept(hosts: Hosts, tmp_path: Path) -> None:
    """A file that a debugger reads; the guest tells of its panic, and starts anew as it was told to."""
    name = hosts.standing_guest()
    core = tmp_path / "core"
    assert hosts.ldm(SOURCE, "panic-domain", "--core", str(core), name) == f"LDom {name} panicked\n"
    assert core.read_bytes()[:8] == b"KDUMP   "
    assert core.stat().st_mode & 0o077 == 0, "others can read a guest's memory"
    wait_until(lambda: events(hosts, name)[-1] == "domain-reset", 20, "the guest does not start anew")
    assert events(hosts, name)[-2:] == ["domain-panicked", "domain-reset"]
    again = hosts.run(SOURCE, "ldm", "panic-domain", "--core", str(core), name)
    assert (again.returncode, again.stderr) == (1, f"{core} already exists: name a new file for the core\n")
    wait_until(lambda: hosts.answers(name), 30, "the guest does not come back")


def test_a_guest_that_is_only_just_coming_up_is_stopped(hosts: Hosts) -> None:
    """By a power button that it does not see at first; a press that is lost does not cost its whole time."""
    name = hosts.standing_guest()
    hosts.ldm(SOURCE, "stop-domain", "-f", name)
    hosts.ldm(SOURCE, "start-domain", name)
    began = time.monotonic()
    assert hosts.ldm(SOURCE, "stop-domain", "-h", name) == f"LDom {name} stopped\n"
    assert time.monotonic() - began < 30


def test_a_master_that_fails_takes_its_slave_with_it(hosts: Hosts) -> None:
    """When its QEMU is killed, and not when it is stopped; then both are stopped in their order."""
    master, slave = hosts.standing_guest(), hosts.add_guest()
    try:
        hosts.ldm(SOURCE, "set-domain", "failure-policy=stop", master)
        hosts.ldm(SOURCE, "set-domain", f"master={master}", slave)
        hosts.boot(slave)
        hosts.ldm(SOURCE, "stop-domain", "-f", master)
        assert hosts.state(SOURCE, slave) == "active"
        hosts.boot(master)
        view = hosts.view(SOURCE, master)
        assert view is not None
        hosts.qemus(view["domain"]["uuid"])[SOURCE].kill()
        happened = ["failure-policy-applied", "domain-stopped"]
        wait_until(lambda: events(hosts, slave)[-2:] == happened, 20, "the slave is not stopped")
        assert hosts.state(SOURCE, slave) == "bound"
        started = hosts.ldm(SOURCE, "start-domain", slave, master)
        assert started == f"LDom {master} started\nLDom {slave} started\n"
        stopped = hosts.ldm(SOURCE, "stop-domain", "-f", "-a")
        assert stopped == f"LDom {slave} stopped\nLDom {master} stopped\n"
    finally:
        hosts.remove_guest(slave)
        hosts.ldm(SOURCE, "set-domain", "failure-policy=", master)


@contextlib.contextmanager
def user(hosts: Hosts, name: str, group: str = "") -> Iterator[int]:
    """A new user of a host, and the user's number."""
    if group:
        hosts.run(SOURCE, "groupadd", "--force", "--system", group, check=True)
    hosts.run(SOURCE, "useradd", "--no-create-home", *(["--groups", group] if group else []), name, check=True)
    try:
        yield int(hosts.run(SOURCE, "id", "-u", name, check=True).stdout)
    finally:
        hosts.run(SOURCE, "userdel", name, check=True)


# The program is read before root's rights are given up: a checkout may be closed to others, the socket must not be.
AS_USER = (
    "import os, sys; from ldoms.cli import main, table; os.setuid(int(sys.argv[1])); sys.exit(main.run(sys.argv[2:]))"
)


def test_a_reviewer_looks_and_changes_nothing(hosts: Hosts) -> None:
    """A real user of the host, on the local socket; another one may not even look."""

    def ldm_as(number: int, *words: str) -> subprocess.CompletedProcess[str]:
        return hosts.run(SOURCE, sys.executable, "-c", AS_USER, str(number), *words)

    with user(hosts, "rita", "ldoms-review") as rita, user(hosts, "plain") as plain:
        listed = ldm_as(rita, "list")
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "primary" in listed.stdout
        refused = ldm_as(rita, "add-domain", "x")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("Authorization failed: rita may not change the domains of this host;")
        assert hosts.view(SOURCE, "x") is None
        closed = ldm_as(plain, "list")
        assert closed.returncode == 1
        assert closed.stderr.startswith("Authorization failed: plain may not look at the domains of this host;")


def test_firmware_boots_from_the_network_that_is_named(hosts: Hosts) -> None:
    """By iPXE, which asks a DHCP server for what to boot, through the guest's own interface."""
    name = "netboot1"
    log = hosts.lab.root(SOURCE) / f"var/lib/ldoms/consoles/{name}/console-log"
    hosts.ldm(SOURCE, "add-domain", name)
    try:
        for words in ("set-vcpu 1", "set-memory 128M", "add-vnet vnet0 primary-vsw0", "set-variable boot-device=net"):
            hosts.ldm(SOURCE, *words.split(), name)
        hosts.ldm(SOURCE, "bind-domain", name)
        hosts.ldm(SOURCE, "start-domain", name)
        view = hosts.view(SOURCE, name)
        assert view is not None
        tries = f"Configuring (net0 {view['domain']['networks'][0]['mac']})"
        wait_until(lambda: log.exists() and tries.encode() in log.read_bytes(), 60, "the firmware tries no network")
        wait_until(lambda: has_sent(hosts, name), 20, "nothing comes out of its interface")
    finally:
        hosts.remove_guest(name)


def has_sent(hosts: Hosts, name: str) -> bool:
    """Whether a guest has sent anything through its first interface."""
    listed = hosts.ldm(SOURCE, "list-netstat", "-p", "-c", "1", name)
    return re.search(r"^\|name=vnet0\|.*\|obytes=[1-9]", listed, re.MULTILINE) is not None
