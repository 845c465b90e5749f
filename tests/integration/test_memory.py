"""Memory of a guest that runs: a real kernel takes it and gives it back, before, after and between migrations."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support import COMMAND_S, SOURCE, TARGET, Hosts, interrupt, make_hosts, wait_until

FIRST_MIB = 512
"""The kernel keeps account of what is added in what it was started with: 16 MiB for each GiB."""
ADDED_MIB = 2560
LONG = ("--max-suspend", "30s")
"""Without KVM, a guest to which memory was added stands still for the whole copy."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts."""
    with make_hosts() as made:
        yield made


@pytest.fixture(scope="module")
def domain(hosts: Hosts) -> Iterator[str]:
    """A tiny guest that runs, whose memory is checked and changed all the time."""
    name = hosts.add_guest(pulse_fill=32, pulse_size=8, pulse_rate=4)
    try:
        hosts.ldm(SOURCE, "set-memory", f"{FIRST_MIB}M", name)
        hosts.boot(name)
        yield name
    finally:
        hosts.remove_guest(name)


@pytest.fixture
def name(hosts: Hosts, domain: str) -> Iterator[str]:
    """The same, on t4-1, with the memory that it was started with."""
    yield domain
    if hosts.place(domain) == [TARGET]:
        assert hosts.migrate(domain, TARGET, *LONG).returncode == 0
    wait_until(lambda: progress(hosts, domain) is None, COMMAND_S, "the change of memory does not end")
    hosts.ldm(SOURCE, "set-memory", f"{FIRST_MIB}M", domain)
    assert hosts.ask(domain)[1] == 0, "the guest's memory was damaged"


def memory(hosts: Hosts, name: str, host: str = SOURCE) -> int:
    """MiB of memory that a domain is bound to."""
    view = hosts.view(host, name)
    assert view is not None
    return sum(int(block["size_mib"]) for block in view["domain"]["bindings"]["memory"])


def progress(hosts: Hosts, name: str) -> int | None:
    """Percent of the change that is under way, or None."""
    view = hosts.view(SOURCE, name)
    assert view is not None
    found = view["status"]["memory_progress"]
    return None if found is None else int(found)


def held(hosts: Hosts, name: str, host: str) -> int:
    """MiB of a host's memory that are kept for a domain."""
    blocks = hosts.lab.client(host).get("/host")["memory"]
    return sum(int(block["size_mib"]) for block in blocks if block["holder"] == name)


def test_there_and_back(hosts: Hosts, name: str) -> None:
    """The guest's kernel has what it was given, here and there, and what it gives back is the host's again."""
    first = FIRST_MIB
    before = hosts.ask_memory(name)
    assert hosts.ldm(SOURCE, "add-memory", "1G", name) == ""
    wait_until(lambda: hosts.ask_memory(name) == before + 1024, 10, "the kernel does not have what was added")
    assert "0x100000000" in hosts.ldm(SOURCE, "list", "-o", "memory", name), "it lies above 4 GiB"

    done = hosts.migrate(name, SOURCE, *LONG)
    assert (done.returncode, done.stderr) == (0, "")
    assert (memory(hosts, name, TARGET), held(hosts, name, TARGET), held(hosts, name, SOURCE)) == (
        first + 1024,
        first + 1024,
        0,
    )
    assert hosts.ask_memory(name) == before + 1024
    hosts.ldm(TARGET, "add-memory", "512M", name)
    wait_until(lambda: hosts.ask_memory(name) == before + 1536, 10, "the kernel does not have what was added there")
    hosts.ldm(TARGET, "set-memory", f"{first + 256}M", name)
    assert held(hosts, name, TARGET) == first + 256
    assert hosts.ask_memory(name) == before + 256

    assert hosts.migrate(name, TARGET, *LONG).returncode == 0
    hosts.ldm(SOURCE, "remove-memory", "256M", name)
    assert (hosts.ask_memory(name), held(hosts, name, SOURCE)) == (before, first)


def test_the_suspension_is_no_longer_than_was_promised(hosts: Hosts, name: str) -> None:
    """A promise that nothing can keep is refused; one that is not kept ends the move, and the guest goes on."""
    hosts.ldm(SOURCE, "add-memory", "256M", name)
    refused = hosts.run(SOURCE, *hosts.migrate_words(name, SOURCE, "-n", "--max-suspend", "100ms"))
    assert refused.returncode == 1
    assert f"LDom {name} has 256M that was added while it ran" in refused.stderr
    assert f"ldm remove-memory 256M {name}" in refused.stderr
    given_up = hosts.migrate(name, SOURCE, "--max-suspend", "1s", "--max-bandwidth", "10M")
    assert given_up.returncode == 3
    assert "not all of its memory has been sent, and 1000 ms are allowed" in given_up.stderr
    assert hosts.place(name) == [SOURCE]
    assert hosts.ask(name)[1] == 0


def test_what_cannot_be_is_refused(hosts: Hosts, name: str) -> None:
    """In words that say what can."""
    odd = hosts.run(SOURCE, "ldm", "add-memory", "100M", name)
    assert odd.returncode == 1
    assert f"Instead, run ldm set-mem {FIRST_MIB}M {name}" in odd.stderr
    hosts.ldm(SOURCE, "add-memory", "--auto-adj", "100M", name)
    assert memory(hosts, name) == FIRST_MIB + 256
    too_far = hosts.run(SOURCE, "ldm", "remove-memory", "512M", name)
    assert too_far.returncode == 1
    assert f"at most 256M of its {FIRST_MIB + 256}M can be removed" in too_far.stderr


def test_ctrl_c(hosts: Hosts, name: str) -> None:
    """What was given back until then stays with the host, in whole steps; both amounts are told."""
    first = FIRST_MIB
    hosts.ldm(SOURCE, "add-memory", f"{ADDED_MIB}M", name)
    removal = hosts.start(SOURCE, "ldm", "remove-memory", f"{ADDED_MIB}M", name)
    listed = "OPERATION    PROGRESS\n    memdr "
    wait_until(lambda: listed in hosts.ldm(SOURCE, "list", "-o", "status", name), 20, "it is not listed")
    assert hosts.flags(SOURCE, name)[2] == "r"
    wait_until(lambda: (progress(hosts, name) or 0) >= 10, 20, "nothing is given back")
    interrupt(removal)
    _, said = removal.communicate(timeout=COMMAND_S)
    assert removal.returncode == 1
    told = re.search(rf"only (\d+)M of the {ADDED_MIB}M that were asked for were removed", said)
    assert told, said
    rest = first + ADDED_MIB - int(told[1])
    assert first < rest < first + ADDED_MIB
    assert (memory(hosts, name), held(hosts, name, SOURCE), (rest - first) % 256) == (rest, rest, 0)


def test_a_restart_of_the_manager(hosts: Hosts, name: str) -> None:
    """In the middle of it: the change goes on, and the command that waits for it never notices."""
    first = FIRST_MIB
    hosts.ldm(SOURCE, "add-memory", f"{ADDED_MIB}M", name)
    removal = hosts.start(SOURCE, "ldm", "remove-memory", f"{ADDED_MIB}M", name)
    wait_until(lambda: (progress(hosts, name) or 0) >= 10, 20, "nothing is given back")
    hosts.kill_manager(SOURCE)
    hosts.start_manager(SOURCE)
    assert removal.communicate(timeout=COMMAND_S) == ("", "")
    assert removal.returncode == 0
    assert (memory(hosts, name), held(hosts, name, SOURCE)) == (first, first)
    assert progress(hosts, name) is None
