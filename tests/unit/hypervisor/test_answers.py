"""QEMU's answers and events in our words and units: milliseconds, megabits and pages stop here."""

from __future__ import annotations

import asyncio
import base64
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ldoms.hypervisor import qemu_migration
from ldoms.hypervisor.command_line import LOG_FILE
from ldoms.hypervisor.confinement import Confinement
from ldoms.hypervisor.qemu_guest import QemuGuest
from ldoms.hypervisor.states import GuestEvent, GuestEventKind, MigrationEnd, RunState
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationPlan, Progress

PLAN = MigrationPlan(
    capabilities=("events", "return-path"),
    channels=2,
    cipher="NORMAL",
    compression="zstd",
    max_bandwidth_bytes_s=125_000_000,
    downtime_limit_s=0.0304,
    max_suspend_s=0.3,
)


@pytest.fixture
def guest(tmp_path: Path) -> QemuGuest:
    """A guest whose process and monitor are never asked."""
    process: Any = SimpleNamespace(pid=1, gone=asyncio.Event(), break_connections=lambda: None)
    return QemuGuest("uuid", "ldg1", tmp_path, process, Confinement())


def answering(guest: QemuGuest, answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have its monitor give the same answer to every command."""

    async def execute(command: str, arguments: object = None, **rest: object) -> object:
        return answer

    monkeypatch.setattr(guest, "_monitor", SimpleNamespace(execute=execute))


def test_progress_is_in_seconds_and_bytes() -> None:
    """From milliseconds, millions of bits and pages."""
    answer = {
        "status": "active",
        "total-time": 1500,
        "expected-downtime": 80,
        "downtime": 25,
        "cpu-throttle-percentage": 20,
        "error-desc": "a reason",
        "ram": {
            "dirty-sync-count": 2,
            "transferred": 1000,
            "remaining": 3000,
            "total": 4000,
            "dirty-pages-rate": 10,
            "page-size": 4096,
            "mbps": 8.0,
        },
    }
    assert qemu_migration._progress(answer) == Progress(
        status="active",
        elapsed_s=1.5,
        passes=2,
        transferred_bytes=1000,
        remaining_bytes=3000,
        total_bytes=4000,
        dirty_bytes_s=40960.0,
        bandwidth_bytes_s=1e6,
        expected_downtime_s=0.08,
        downtime_s=0.025,
        throttle_percent=20,
        error="a reason",
    )


def test_a_guest_that_is_only_ready_to_be_held_back_is_not() -> None:
    """What QEMU does meanwhile is the least that it can."""
    assert qemu_migration._progress({"cpu-throttle-percentage": 1}).throttle_percent == 0
    plan = replace(PLAN, capabilities=("auto-converge", "events"))
    ready = qemu_migration._parameters(plan)
    assert (ready["cpu-throttle-initial"], ready["max-cpu-throttle"], ready["throttle-trigger-threshold"]) == (
        1,
        1,
        100,
    )
    assert "max-cpu-throttle" not in qemu_migration._parameters(PLAN)


def test_a_guest_is_held_back_at_once_and_never_by_more(guest: QemuGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameters with which QEMU does so."""
    sent: list[Any] = []

    async def execute(command: str, arguments: object = None, **rest: object) -> object:
        sent.append((command, arguments))
        return {}

    monkeypatch.setattr(guest._migration, "_monitor", SimpleNamespace(execute=execute))
    asyncio.run(guest.throttle(70))
    ((command, arguments),) = sent
    assert command == "migrate-set-parameters"
    assert (arguments["cpu-throttle-increment"], arguments["max-cpu-throttle"]) == (70, 70)
    assert arguments["throttle-trigger-threshold"] == 1


def test_qemu_is_never_told_that_no_suspension_is_allowed() -> None:
    """It would stop the guest at the end of the pass, without a look at what was changed."""
    assert qemu_migration._parameters(replace(PLAN, downtime_limit_s=0.0))["downtime-limit"] == 1


def test_progress_before_a_migration_is_none() -> None:
    """QEMU answers with an empty object then."""
    assert qemu_migration._progress({}) == Progress(status="none")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", RunState.RUNNING),
        ("paused", RunState.PAUSED),
        ("prelaunch", RunState.PAUSED),
        ("inmigrate", RunState.INCOMING),
        ("finish-migrate", RunState.SENT),
        ("postmigrate", RunState.SENT),
        ("shutdown", RunState.SHUT_DOWN),
        ("guest-panicked", RunState.CRASHED),
        ("internal-error", RunState.CRASHED),
        ("io-error", RunState.STALLED),
        ("a-state-of-a-later-qemu", RunState.PAUSED),
    ],
)
async def test_states(guest: QemuGuest, monkeypatch: pytest.MonkeyPatch, status: str, state: RunState) -> None:
    """One that nobody knows is not taken for running."""
    answering(guest, {"status": status}, monkeypatch)
    assert await guest.state() is state


def test_events_have_the_time_at_which_they_happened(guest: QemuGuest) -> None:
    """By QEMU's own stamp; those that nobody acts on are left out."""
    stamp = {"seconds": 1_700_000_000, "microseconds": 250_000}
    with guest.events() as queue:
        guest._on_event({"event": "VNC_CONNECTED", "timestamp": stamp})
        guest._on_event({"event": "STOP", "timestamp": stamp})
        guest._on_event({"event": "MIGRATION", "timestamp": stamp, "data": {"status": "active"}})
        assert [queue.get_nowait() for _ in range(queue.qsize())] == [
            GuestEvent(GuestEventKind.STOPPED, 1_700_000_000.25, {}),
            GuestEvent(GuestEventKind.MIGRATION, 1_700_000_000.25, {"status": "active"}),
        ]
    guest._on_event({"event": "STOP", "timestamp": stamp})
    assert queue.empty(), "who has left is told nothing"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "nothing"),
        ("a warning\n2026-11-24T03:50:03.123456Z qemu-system-x86_64: -m size=1M: too small\n", "-m size=1M: too small"),
        ("2026-11-24T03:50:03.123456Z terminating on signal 15\n", "terminating on signal 15"),
        ("Could not open the disk\n\n", "Could not open the disk"),
        ("2026-11-24T03:50:03.123456Z qemu-system-x86_64: no such machine\nUse -machine help\n", "no such machine"),
    ],
)
def test_the_last_words_are_the_reason(guest: QemuGuest, log: str, words: str) -> None:
    """The last line by QEMU itself, without its stamp; what follows is only a hint. Without one, the last of all."""
    (guest.directory / LOG_FILE).write_text(log)
    assert guest._last_words() == words


def test_a_log_that_is_not_there_says_nothing(guest: QemuGuest) -> None:
    """The error about the guest is the one that counts."""
    assert guest._last_words() == "nothing"


def test_parameters_are_in_the_units_of_qemu() -> None:
    """The limit in whole milliseconds; what belongs to more than one channel only with that capability."""
    one = {
        "max-bandwidth": 125_000_000,
        "max-postcopy-bandwidth": 125_000_000,
        "downtime-limit": 30,
        "tls-creds": qemu_migration.TLS_OBJECT,
    }
    assert qemu_migration._parameters(PLAN) == qemu_migration._USUAL | one
    several = MigrationPlan(("multifd",), 2, "", "zstd", 0, 0.3, 0.3)
    assert qemu_migration._parameters(several) == qemu_migration._USUAL | {
        "max-bandwidth": 0,
        "downtime-limit": 300,
        "tls-creds": "",
        "multifd-channels": 2,
        "multifd-compression": "zstd",
    }


def test_what_was_tuned_is_in_the_words_of_qemu() -> None:
    """Limits of what each virtual CPU changes are in MiB there; what a plan leaves open is as QEMU has it."""
    tuned = replace(
        PLAN,
        zero_pages="legacy",
        xbzrle_cache_bytes=1 << 20,
        switchover_bandwidth_bytes_s=1 << 30,
        dirty_limit_bytes_s=10 << 20,
    )
    assert (
        qemu_migration._parameters(tuned).items()
        >= {
            "zero-page-detection": "legacy",
            "xbzrle-cache-size": 1 << 20,
            "avail-switchover-bandwidth": 1 << 30,
            "vcpu-dirty-limit": 10,
        }.items()
    )


async def test_an_older_qemu_is_not_told_what_it_does_not_have(
    guest: QemuGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the plan needs it: then QEMU is asked, and refuses."""
    known = {"max-bandwidth": 0, "downtime-limit": 0, "tls-creds": ""}
    monkeypatch.setattr(guest._migration, "_monitor", ForgetfulMonitor(known, set()))
    usual, tuned = (qemu_migration._parameters(plan) for plan in (PLAN, replace(PLAN, zero_pages="none")))
    limit = "max-postcopy-bandwidth"
    assert set(await guest._migration._known(usual)) == {*known, limit}
    assert set(await guest._migration._known(tuned)) == {*known, limit, "zero-page-detection"}


class ForgetfulMonitor:
    """A QEMU that takes every setting; what it says it has kept is up to the test."""

    def __init__(self, kept: dict[str, object], on: set[str]) -> None:
        self._kept, self._on = kept, on

    async def execute(self, command: str, arguments: object = None, **rest: object) -> object:
        if command == "query-migrate-parameters":
            return self._kept
        if command == "query-migrate-capabilities":
            names = {"events", "return-path", "multifd"}
            return [{"capability": name, "state": name in self._on} for name in sorted(names)]
        return {}


@pytest.mark.parametrize(
    ("kept", "on", "complaint"),
    [
        ({"downtime-limit": 300}, set(PLAN.capabilities), "settings downtime-limit"),
        ({}, {"events"}, "settings return-path"),
        ({}, {*PLAN.capabilities, "multifd"}, "settings multifd"),
    ],
    ids=["a parameter", "a capability that is off", "a capability that is on"],
)
async def test_what_qemu_did_not_keep_is_named(
    guest: QemuGuest, monkeypatch: pytest.MonkeyPatch, kept: dict[str, object], on: set[str], complaint: str
) -> None:
    """Ends that differ would hang for ever instead of failing."""
    wanted = qemu_migration._parameters(PLAN)
    monkeypatch.setattr(guest._migration, "_monitor", ForgetfulMonitor(wanted | kept, on))
    with pytest.raises(HostError, match=complaint) as caught:
        await guest._migration._read_back(PLAN, wanted)
    assert caught.value.code == "qemu-refused"
    monkeypatch.setattr(guest._migration, "_monitor", ForgetfulMonitor(wanted, set(PLAN.capabilities)))
    await guest._migration._read_back(PLAN, wanted)


@pytest.mark.parametrize(("end", "kept"), [(MigrationEnd.SEND, False), (MigrationEnd.RECEIVE, True)])
async def test_the_key_is_on_the_disk_no_longer_than_qemu_reads_it(
    guest: QemuGuest, monkeypatch: pytest.MonkeyPatch, end: MigrationEnd, kept: bool
) -> None:
    """The source once, the target for each channel; nobody else can, and QEMU's command has only the place of it."""
    key, file = "5e" * 32, guest.directory / "keys" / "keys.psk"
    seen: list[Mapping[str, object]] = []

    async def execute(command: str, arguments: Mapping[str, object], **rest: object) -> None:
        if command == "object-add":
            assert file.read_text() == f"ldoms:{key}\n"
            assert [stat.S_IMODE(path.stat().st_mode) for path in (file.parent, file)] == [0o700, 0o600]
            seen.append(arguments)

    monkeypatch.setattr(guest._migration, "_monitor", SimpleNamespace(execute=execute))
    await guest._migration._add_key(end, "NORMAL", key)
    assert [(one["dir"], key in str(one)) for one in seen] == [(str(file.parent), False)]
    assert file.exists() == kept
    guest._migration._forget_key()
    assert not file.parent.exists()


async def test_a_receiving_qemu_finds_a_group_instead_of_making_one(
    guest: QemuGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making one takes up to a second, for a key exchange that is not used: it is there before QEMU is told."""
    found: list[list[str]] = []

    async def execute(command: str, arguments: Mapping[str, object], **rest: object) -> None:
        found.append((Path(str(arguments["dir"])) / "dh-params.pem").read_text().splitlines())

    monkeypatch.setattr(guest._migration, "_monitor", SimpleNamespace(execute=execute))
    await guest._migration._add_key(MigrationEnd.RECEIVE, "NORMAL", "5e" * 32)
    ((first, *lines, last),) = found
    assert (first, last) == ("-----BEGIN DH PARAMETERS-----", "-----END DH PARAMETERS-----")
    sequence = base64.b64decode("".join(lines))
    # PKCS 3: a prime of 257 bytes, its sign included, and the generator 2. RFC 7919, appendix A.1, begins the prime so.
    assert sequence[:8].hex() == "3082010802820101"
    assert sequence[8:25].hex() == "00ffffffffffffffffadf85458a2bb4a9a"
    assert sequence[-3:].hex() == "020102"
    assert len(sequence) == 4 + 4 + 257 + 3
