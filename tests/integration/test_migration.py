"""Domains that move between two real managers: cold, bound and live, and everything that a person may do meanwhile."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ldoms.bench.figures import Window
from ldoms.bench.probe import line_counters, probe_figures, start_probe
from support import (
    SOURCE,
    TARGET,
    Hosts,
    Watch,
    interrupt,
    kill_command,
    other,
    wait_until,
)


@pytest.fixture
def guest(hosts: Hosts) -> Iterator[str]:
    """A tiny guest on t4-1 whose memory is checked and changed all the time; the next test has it too."""
    name = hosts.standing_guest()
    try:
        yield name
    finally:
        for gate in hosts.gates.glob("*"):
            gate.unlink()
        hosts.settle(name)
        for host in hosts.lab.hosts:
            if host not in hosts.place(name):
                hosts.check_clean(host)


def uuid_of(hosts: Hosts, name: str, host: str = SOURCE) -> str:
    view = hosts.view(host, name)
    assert view is not None
    return str(view["domain"]["uuid"])


def check_alive(hosts: Hosts, name: str, before: tuple[int, int]) -> None:
    """The guest has gone on counting, and its memory is whole."""
    count, errors = hosts.ask(name)
    assert errors == 0, "the guest's memory was damaged"
    assert count > before[0], "the guest did not go on from where it was"


def test_live_there_and_back_ten_times(hosts: Hosts, guest: str) -> None:
    """The guest counts on, its memory stays whole, it never runs twice, and success says nothing."""
    with Watch(hosts, uuid_of(hosts, guest)) as watch:
        place = SOURCE
        for _ in range(10):
            before = hosts.ask(guest)
            done = hosts.migrate(guest, place)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            place = other(place)
            assert hosts.place(guest) == [place]
            assert hosts.state(place, guest) == "active"
            check_alive(hosts, guest, before)
    watch.check()
    assert place == SOURCE


def test_a_clients_connection_lives_on(hosts: Hosts, guest: str, tmp_path: Path) -> None:
    """One TCP connection, never made again, answers before, during and after, and nothing that was asked is lost."""
    probe = start_probe(
        "tcp",
        hosts.lab.guests[guest],
        tmp_path / "probe.jsonl",
        interval_s=0.01,
        seconds=60,
        prefix=hosts.lab.space("client").command([]),
    )
    try:
        probe.wait_until_begun()
        began = time.time()
        assert hosts.migrate(guest).returncode == 0
        time.sleep(1)
        ended = time.time()
    finally:
        probe.stop()
    record = probe.result()
    figures = probe_figures(record, Window(began, ended))
    assert not figures.connection_lost
    assert record.wrong_answers == 0
    assert figures.answers > 20
    counters = [line_counters(one.answer) for one in record.exchanges if one.answer]
    counts = [found["count"] for found in counters]
    assert counts == sorted(counts), "the guest has counted backwards: it was two guests"
    assert hosts.reports()[-1]["stop_resume_s"] < 2


def test_a_bound_domain_moves_bound(hosts: Hosts) -> None:
    """Phases 1, 2 and 5; its machine, MAC addresses and host id move along."""
    name = hosts.add_guest()
    try:
        before = hosts.view(SOURCE, name)
        assert before is not None
        done = hosts.migrate(name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert hosts.place(name) == [TARGET]
        after = hosts.view(TARGET, name)
        assert after is not None
        assert after["status"]["state"] == "bound"
        for key in ("uuid", "mac", "hostid", "networks", "disks", "variables"):
            assert after["domain"][key] == before["domain"][key]
        phases = [phase["name"] for phase in hosts.reports()[-1]["phases"]]
        assert phases == ["check", "prepare", "hand-off"]
        hosts.boot(name, TARGET)
    finally:
        hosts.remove_guest(name)


def test_an_inactive_domain_moves_inactive(hosts: Hosts) -> None:
    """Nothing is checked but its name, and nothing is reserved."""
    hosts.ldm(SOURCE, "add-domain", "cold")
    try:
        done = hosts.migrate("cold", SOURCE)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert hosts.place("cold") == [TARGET]
        assert hosts.state(TARGET, "cold") == "inactive"
    finally:
        hosts.remove_guest("cold")


def test_a_new_name_on_the_target(hosts: Hosts, guest: str) -> None:
    """``HOST:NEWNAME``."""
    words = hosts.migrate_words(guest)
    words[-1] += ":renamed"
    assert hosts.run(SOURCE, *words).returncode == 0
    assert hosts.place("renamed") == [TARGET]
    words = hosts.migrate_words("renamed", TARGET)
    words[-1] += f":{guest}"
    assert hosts.run(TARGET, *words).returncode == 0
    assert hosts.place(guest) == [SOURCE]


def test_certificates_instead_of_a_password(hosts: Hosts, guest: str) -> None:
    """``-c``: both hosts trust each other's certificate, and nobody is asked for anything."""
    done = hosts.run(SOURCE, "ldm", "migrate-domain", "-c", guest, TARGET)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert hosts.place(guest) == [TARGET]


def test_without_encryption(hosts: Hosts, guest: str) -> None:
    """It can be switched off, and the report says so."""
    before = hosts.ask(guest)
    assert hosts.migrate(guest, SOURCE, "--no-encryption").returncode == 0
    check_alive(hosts, guest, before)
    plan = hosts.reports()[-1]["plan"]
    assert plan["cipher"] == ""
    assert plan["channels"] == 1


def test_a_dry_run_reports_every_planted_failure(hosts: Hosts, guest: str) -> None:
    """All that fails on both hosts, one line each with its remedy, then the closing line; nothing moves."""
    assert hosts.migrate(guest, SOURCE, "-n").returncode == 0
    hosts.ldm(TARGET, "remove-vsw", "primary-vsw0")
    hosts.ldm(TARGET, "remove-vcc", "primary-vcc0")
    hosts.ldm(TARGET, "add-vcpu", "8", "primary")
    hosts.ldm(TARGET, "add-domain", guest)
    try:
        done = hosts.migrate(guest, SOURCE, "-n")
        assert done.returncode == 1
        assert done.stdout == ""
        *reasons, last = done.stderr.splitlines()
        assert last == f"Domain Migration of LDom {guest} would fail if attempted"
        for expected in (
            f"LDom {guest} already exists on {TARGET}; give the domain another name there: ldm migrate-domain",
            f"LDom {guest} has 1 virtual CPUs, and 0 strands are free on {TARGET}; free some there",
            f"virtual switch primary-vsw0 of network vnet0 does not exist on {TARGET}; add it there: ldm add-vsw",
            f"{TARGET} has no virtual console concentrator; add one there: ldm add-vcc",
        ):
            assert any(reason.startswith(expected) for reason in reasons), f"not reported: {expected}\n{done.stderr}"
        assert len(reasons) == 4
        assert hosts.place(guest) == [SOURCE, TARGET]  # the one there is only a name
    finally:
        hosts.ldm(TARGET, "remove-domain", guest)
        hosts.ldm(TARGET, "remove-vcpu", "8", "primary")
        hosts.ldm(TARGET, "add-vsw", "net-dev=net0", "primary-vsw0", "primary")
        hosts.ldm(TARGET, "add-vcc", "port-range=5000-5100", "primary-vcc0", "primary")


def test_a_dry_run_says_what_the_move_takes(hosts: Hosts, guest: str) -> None:
    """Its range, made twice as wide for a machine that does other things too, has what the move takes."""
    done = hosts.migrate(guest, SOURCE, "-n", "--json")
    assert done.returncode == 0, done.stderr
    forecast = json.loads(done.stdout)["forecast"]
    assert forecast["converges"]
    assert forecast["basis"]["link"]["source"] == "probe"
    assert len(forecast["basis"]["dirty_rates"]) == 3
    assert 0 < forecast["basis"]["memory"]["nonzero_bytes"] < forecast["basis"]["memory"]["total_bytes"]
    for host in hosts.lab.hosts:
        assert not list((hosts.lab.root(host) / "run/ldoms/domains").glob("trial-*")), "a trial has left something"
    assert hosts.migrate(guest).returncode == 0
    report = hosts.reports()[-1]
    assert report["forecast"]["basis"]["link"]["source"] == "earlier-probe"
    for name, fact in (
        ("total_s", report["ended_at"] - report["started_at"]),
        ("suspension_s", report["stop_resume_s"]),
        ("bytes", report["transferred_bytes"]),
    ):
        expected = forecast[name]
        assert expected["low"] / 2 <= fact <= expected["high"] * 2, f"{name}: {fact}, and {expected} was forecast"


def test_another_image_under_the_same_name_is_noticed(hosts: Hosts) -> None:
    """The names agree on both hosts, the storage does not."""
    name = hosts.add_guest("postgres")
    volume = f"{name}-root@primary-vds0"
    twin = hosts.lab.shared / f"{name}-twin.qcow2"
    try:
        twin.write_bytes((hosts.lab.shared / f"{name}-root.qcow2").read_bytes())
        hosts.ldm(TARGET, "remove-vdsdev", volume)
        hosts.ldm(TARGET, "add-vdsdev", str(twin), volume)
        done = hosts.migrate(name, SOURCE, "-n")
        assert done.returncode == 1
        assert f"volume {volume} is not the same image on both hosts" in done.stderr
    finally:
        hosts.remove_guest(name)
        twin.unlink()


def test_a_wrong_password_is_refused_slowly_and_told_to_nobody(hosts: Hosts, guest: str, tmp_path: Path) -> None:
    """One clear line, the closing line, and the password in no log."""
    file = tmp_path / "wrong"
    file.write_text("open sesame\n")
    file.chmod(0o400)
    done = hosts.run(SOURCE, "ldm", "migrate-domain", "-p", str(file), guest, f"ldmadmin@{TARGET}")
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first.startswith("Authentication failed: user name or password is wrong (user ldmadmin)")
    assert last == f"Domain Migration of LDom {guest} failed"
    for host in hosts.lab.hosts:
        assert "open sesame" not in (hosts.lab.root(host) / "ldmd.log").read_text()
    assert "login-failed" in (hosts.lab.root(TARGET) / "ldmd.log").read_text()
    assert hosts.place(guest) == [SOURCE]


def test_a_user_without_the_role_is_refused(hosts: Hosts, guest: str, tmp_path: Path) -> None:
    """A user whose password is right, but who is not in the group ldoms."""
    hosts.run(TARGET, "useradd", "--no-create-home", "plain", check=True)
    hosts.run(TARGET, "chpasswd", text="plain:plain\n", check=True)
    file = tmp_path / "pfile"
    file.write_text("plain\n")
    file.chmod(0o400)
    done = hosts.run(SOURCE, "ldm", "migrate-domain", "-p", str(file), guest, f"plain@{TARGET}")
    assert done.returncode == 1
    assert "Authorization failed: plain may not change the domains of this host" in done.stderr


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o604])
def test_a_password_file_that_others_can_read_is_refused(hosts: Hosts, guest: str, tmp_path: Path, mode: int) -> None:
    """Before anything is asked of anybody."""
    file = tmp_path / "pfile"
    file.write_text("secret\n")
    file.chmod(mode)
    done = hosts.run(SOURCE, "ldm", "migrate-domain", "-p", str(file), guest, TARGET)
    assert done.returncode == 1
    assert f"the password file {file} can be read by others than its owner: run 'chmod 400 {file}'" in done.stderr


def test_a_missing_password_file_is_named(hosts: Hosts, guest: str, tmp_path: Path) -> None:
    """What was wrong, with which file."""
    done = hosts.run(SOURCE, "ldm", "migrate-domain", "-p", str(tmp_path / "none"), guest, TARGET)
    assert f"the password file {tmp_path / 'none'} cannot be read: No such file or directory" in done.stderr


def test_an_unknown_host_key_is_refused(hosts: Hosts, guest: str) -> None:
    """Without a terminal nobody is asked, and nothing is sent; trusting it with a wrong fingerprint does not work."""
    fingerprint = next(
        line.split()[1] for line in hosts.ldm(SOURCE, "list-trust").splitlines() if line.startswith(TARGET)
    )
    hosts.ldm(SOURCE, "remove-trust", TARGET)
    try:
        done = hosts.migrate(guest)
        assert done.returncode == 1
        assert f"the certificate of host {TARGET} is not known" in done.stderr
        wrong = hosts.run(SOURCE, "ldm", "add-trust", "--fingerprint", "SHA256:00", TARGET)
        assert wrong.returncode == 1
        assert fingerprint in wrong.stderr
    finally:
        hosts.ldm(SOURCE, "add-trust", "--fingerprint", fingerprint, TARGET)
    assert hosts.migrate(guest).returncode == 0


def test_an_impostor_is_refused(hosts: Hosts, guest: str) -> None:
    """A host that shows another certificate than the trusted one gets no password."""
    trust = hosts.lab.root(SOURCE) / f"var/lib/ldoms/trust/{TARGET}.pem"
    right = trust.read_text()
    trust.write_text((hosts.lab.root(SOURCE) / "var/lib/ldoms/host.crt").read_text())
    try:
        done = hosts.migrate(guest)
        assert done.returncode == 1
        assert f"host {TARGET} does not show the certificate that is trusted under that name" in done.stderr
    finally:
        trust.write_text(right)


def test_an_unreachable_host_is_named(hosts: Hosts, guest: str) -> None:
    """The words that LDoms scripts know."""
    hosts.kill_manager(TARGET)
    try:
        done = hosts.migrate(guest)
        assert done.returncode == 1
        assert f"Failed to establish connection with ldmd on target: {TARGET}" in done.stderr
        assert hosts.state(SOURCE, guest) == "active"
    finally:
        hosts.start_manager(TARGET)


def test_both_hosts_show_the_migration_while_it_lasts(hosts: Hosts, guest: str) -> None:
    """STATUS section, flags, and the refusal of changes that names the operation; then nothing of it."""
    hosts.close_gate("source-suspend")
    command = hosts.start(SOURCE, *hosts.migrate_words(guest))
    hosts.wait_at_gate("source-suspend")
    lines = hosts.ldm(SOURCE, "list", "-o", "status", guest).splitlines()
    assert lines[:3] == ["NAME", guest, ""]
    assert lines[3] == "STATUS"
    assert lines[4] == "    OPERATION    PROGRESS    TARGET"
    assert lines[5].split()[0] == "migration"
    assert lines[5].split()[1].endswith("%")
    assert lines[5].split()[2] == TARGET
    parsed = hosts.ldm(SOURCE, "list", "-o", "status", "-p", guest).splitlines()
    assert parsed[0] == "VERSION 1.11"
    assert parsed[2] == "STATUS"
    assert parsed[3].startswith("|op=migration|progress=")
    assert f"|error=no|target={TARGET}" in parsed[3]
    assert "    OPERATION    PROGRESS    SOURCE" in hosts.ldm(TARGET, "list", "-o", "status", guest)
    assert hosts.flags(SOURCE, guest) == "-n---s"
    assert hosts.flags(TARGET, guest) == "-----t"
    assert hosts.state(TARGET, guest) == "bound"
    for host in (SOURCE, TARGET):
        for words in (("set-variable", "a=b", guest), ("stop-domain", "-f", guest), ("set-vcpu", "2", guest)):
            refused = hosts.run(host, "ldm", *words)
            assert refused.returncode == 1
            assert "migrate-domain" in refused.stderr, f"{words} on {host}: {refused.stderr}"
    hosts.open_gate("source-suspend")
    assert command.wait(60) == 0
    assert "STATUS" not in hosts.ldm(TARGET, "list", "-o", "status", guest)
    gone = hosts.run(SOURCE, "ldm", "list", "-o", "status", guest)
    assert gone.returncode == 1
    assert "not found" in gone.stderr


GATES = ["source-check", "source-prepare", "target-prepare", "source-copy", "source-suspend"]


@pytest.mark.parametrize("gate", GATES)
def test_a_cancel_in_any_phase(hosts: Hosts, guest: str, gate: str) -> None:
    """`cancel-operation migration` returns when all is as before; `ldm migrate-domain` says so and fails."""
    before = hosts.ask(guest)
    hosts.close_gate(gate)
    command = hosts.start(SOURCE, *hosts.migrate_words(guest))
    hosts.wait_at_gate(gate)
    cancel = hosts.start(SOURCE, "ldm", "cancel-operation", "migration", guest)
    time.sleep(0.3)
    hosts.open_gate(gate)
    assert cancel.wait(60) == 0, cancel.stderr and cancel.stderr.read()
    assert command.wait(60) == 1
    assert command.stderr is not None
    assert command.stderr.read().splitlines() == [
        f"the migration of LDom {guest} was cancelled",
        f"Domain Migration of LDom {guest} failed",
    ]
    assert hosts.place(guest) == [SOURCE]
    assert hosts.state(SOURCE, guest) == "active"
    check_alive(hosts, guest, before)
    assert hosts.reports()[-1]["outcome"] == "cancelled" or gate == "source-check"


def test_ctrl_c_cancels(hosts: Hosts, guest: str) -> None:
    """The guest stays, and the command waits until everything is undone."""
    before = hosts.ask(guest)
    hosts.close_gate("source-suspend")
    command = hosts.start(SOURCE, *hosts.migrate_words(guest))
    hosts.wait_at_gate("source-suspend")
    interrupt(command)
    time.sleep(0.3)
    hosts.open_gate("source-suspend")
    assert command.wait(60) == 1
    assert hosts.place(guest) == [SOURCE]
    check_alive(hosts, guest, before)


def test_the_target_cannot_cancel(hosts: Hosts, guest: str) -> None:
    """The source leads: the refusal says where to go."""
    hosts.close_gate("source-suspend")
    command = hosts.start(SOURCE, *hosts.migrate_words(guest))
    hosts.wait_at_gate("source-suspend")
    refused = hosts.run(TARGET, "ldm", "cancel-operation", "migration", guest)
    assert refused.returncode == 1
    assert f"on {SOURCE}" in refused.stderr
    hosts.open_gate("source-suspend")
    assert command.wait(60) == 0


def test_a_killed_command_leaves_the_migration_alone(hosts: Hosts, guest: str) -> None:
    """SIGKILL of `ldm`, or a lost terminal: the managers go on."""
    hosts.close_gate("source-suspend")
    command = hosts.start(SOURCE, *hosts.migrate_words(guest))
    hosts.wait_at_gate("source-suspend")
    kill_command(command)
    hosts.open_gate("source-suspend")
    wait_until(lambda: hosts.place(guest) == [TARGET], 60, "the migration did not go on")


def test_two_domains_at_once_and_crossing(hosts: Hosts, guest: str) -> None:
    """One there and one back at the same time, then both together."""
    second = hosts.add_guest(host=TARGET, pulse_fill=32, pulse_size=8, pulse_rate=4)
    hosts.boot(second, TARGET)
    try:
        before = {name: hosts.ask(name) for name in (guest, second)}
        crossing = [
            hosts.start(SOURCE, *hosts.migrate_words(guest, SOURCE)),
            hosts.start(TARGET, *hosts.migrate_words(second, TARGET)),
        ]
        assert [command.wait(60) for command in crossing] == [0, 0]
        assert (hosts.place(guest), hosts.place(second)) == ([TARGET], [SOURCE])
        assert hosts.migrate(second, SOURCE).returncode == 0
        together = [hosts.start(TARGET, *hosts.migrate_words(name, TARGET)) for name in (guest, second)]
        assert [command.wait(60) for command in together] == [0, 0]
        for name in (guest, second):
            assert hosts.place(name) == [SOURCE]
            check_alive(hosts, name, before[name])
    finally:
        hosts.remove_guest(second)


def test_the_report_tells_what_happened(hosts: Hosts, guest: str) -> None:
    """In full on both hosts, as text, for programs and as JSON."""
    assert hosts.migrate(guest).returncode == 0
    report = hosts.reports()[-1]
    assert [phase["name"] for phase in report["phases"]] == ["check", "prepare", "copy", "suspend", "hand-off"]
    assert report["outcome"] == "done"
    assert report["passes"]
    assert report["transferred_bytes"] > 32 << 20
    assert 0 < report["downtime_s"] < 2
    assert 0 < report["stop_resume_s"] < 2
    assert abs(report["clock"]["offset_s"]) < 0.05, "both hosts have the same clock"
    assert report["plan"]["channels"] == 1
    text = hosts.ldm(SOURCE, "list-history", report["id"][:8])
    assert f"LDom {guest}, {SOURCE} -> {TARGET}, by root: done" in text
    wait_until(lambda: hosts.reports(TARGET)[-1]["phases"], 30, "the target has no full report")
    assert hosts.reports(TARGET)[-1]["id"] == report["id"]
    parsed = hosts.ldm(SOURCE, "list-history", "-o", "migration", "-p").splitlines()
    assert parsed[0] == "VERSION 1.11"
    assert parsed[-1].startswith(f"MIGRATION|id={report['id']}|domain={guest}|")


def test_a_guest_that_is_faster_than_the_link_stays(hosts: Hosts) -> None:
    """It changes memory faster than the link carries it: it can still be cancelled, and lives."""
    name = hosts.add_guest(pulse_fill=8, pulse_size=24, pulse_rate=200)
    hosts.boot(name)
    try:
        before = hosts.ask(name)
        command = hosts.start(SOURCE, *hosts.migrate_words(name, SOURCE, "--max-bandwidth", "20M"))
        wait_until(lambda: "STATUS" in hosts.ldm(SOURCE, "list", "-o", "status", name), 30, "it does not begin")
        time.sleep(8)
        assert command.poll() is None, "it cannot have come to an end"
        hosts.ldm(SOURCE, "cancel-operation", "migration", name)
        assert command.wait(30) == 1
        check_alive(hosts, name, before)
    finally:
        hosts.remove_guest(name)


def test_a_copy_that_is_held_slow_is_released(hosts: Hosts) -> None:
    """Its limit is taken away on the way, and it ends; the report tells what was changed."""
    name = hosts.add_guest(pulse_fill=8, pulse_size=24, pulse_rate=40)
    hosts.boot(name)
    try:
        before = hosts.ask(name)
        command = hosts.start(SOURCE, *hosts.migrate_words(name, SOURCE, "--max-bandwidth", "16M", "--on-stall=abort"))
        wait_until(lambda: hosts.progress(SOURCE, name) > 0, 30, "it does not begin")
        time.sleep(2)
        assert command.poll() is None, "it cannot have come to an end"
        done = hosts.run(TARGET, "ldm", "set-migration", name, "max-bandwidth=0")
        assert done.returncode == 1
        assert f"is led by its source: run 'ldm set-migration' on {SOURCE}" in done.stderr
        hosts.ldm(SOURCE, "set-migration", name, "max-bandwidth=0", "max-suspend=2s")
        assert command.wait(60) == 0, command.communicate()
        assert hosts.place(name) == [TARGET]
        check_alive(hosts, name, before)
        report = hosts.reports()[-1]
        changes = [(change["name"], change["before"], change["after"]) for change in report["changes"]]
        assert changes == [("max_bandwidth_bytes_s", 16 << 20, 0), ("max_suspend_s", 3.0, 2.0)]
        assert report["plan"]["max_suspend_s"] == 2.0
        assert "max-bandwidth from 16.0 MiB/s to 0.0 MiB/s by " in hosts.ldm(SOURCE, "list-history", report["id"][:8])
        done = hosts.run(TARGET, "ldm", "set-migration", name, "max-time=1m")
        assert done.returncode == 1
        assert done.stderr == f"no migration of LDom {name} is under way\n"
    finally:
        hosts.remove_guest(name)


def test_how_memory_is_copied_is_set_by_hand(hosts: Hosts, guest: str) -> None:
    """Compressed there, differences back; what excludes each other is refused by a dry run, and nothing has moved."""
    refused = hosts.migrate(guest, SOURCE, "-n", "--tune", "compression=zstd,xbzrle=64M", "--tune", "dirty-limit=9M")
    assert refused.returncode == 1
    assert "xbzrle and compression=zstd exclude each other" in refused.stderr
    assert "dirty-limit needs KVM and its dirty ring" in refused.stderr
    assert "would fail if attempted" in refused.stderr
    before = hosts.ask(guest)
    for place, tuning, compression in (
        (SOURCE, "compression=zstd,zero-pages=legacy", "zstd"),
        (TARGET, "xbzrle=16M,throttle=50:70", "none"),
    ):
        done = hosts.migrate(guest, place, "--tune", tuning)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert hosts.reports(place)[-1]["plan"]["compression"] == compression
    check_alive(hosts, guest, before)


def test_nothing_secret_is_in_a_log_or_a_process_list(hosts: Hosts, guest: str) -> None:
    """Neither the password of the administrator, nor a key."""
    password = hosts.lab.password_file.read_text().strip()
    hosts.close_gate("source-copy")
    command = hosts.start(SOURCE, *hosts.migrate_words(guest))
    hosts.wait_at_gate("source-copy")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            assert password not in " ".join(process.cmdline())
    hosts.open_gate("source-copy")
    assert command.wait(60) == 0
    for host in hosts.lab.hosts:
        assert password not in (hosts.lab.root(host) / "ldmd.log").read_text()
