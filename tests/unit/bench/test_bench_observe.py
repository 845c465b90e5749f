"""What was seen of a domain becomes figures of each second, whoever saw it and wherever the domain was."""

from __future__ import annotations

import json

import pytest

from ldoms.bench.figures import Window
from ldoms.bench.log import Outcome, Transaction
from ldoms.bench.observe.lines import CopyLook, HostLog, HostLook, Sort, clock_offset_s, read_lines, write_line
from ldoms.bench.observe.mpstat import shares, shares_by_cpu
from ldoms.bench.observe.series import (
    clipped,
    copy_series,
    guest_series,
    host_series,
    load_series,
    mean_between,
    probe_series,
)
from ldoms.bench.observe.usage import EMULATOR, MIGRATION, ThreadTime, Usage, kind_of
from ldoms.bench.probe import Ending, Exchange, ProbeRecord
from ldoms.bench.record import Series
from ldoms.model.guest import CpuTimes, GuestCpus
from ldoms.model.migration import Progress


def named(series: list[Series]) -> dict[str, list[tuple[float, float]]]:
    return {one.name: list(zip(one.times, one.values, strict=True)) for one in series}


# Threads


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CPU 0/TCG", "vcpu0"),
        ("CPU 11/KVM", "vcpu11"),
        ("mig/src/main", MIGRATION),
        ("mig/dst/recv_1", MIGRATION),
        ("live_migration", MIGRATION),
        ("multifdsend_0", MIGRATION),
        ("qemu-system-x86", EMULATOR),
        ("worker", EMULATOR),
        ("call_rcu", EMULATOR),
    ],
)
def test_threads_are_known_by_their_names(name: str, kind: str) -> None:
    """Those of QEMU 10, and of those before it."""
    assert kind_of(name) == kind


def test_use_is_added_up_over_threads_that_come_and_go() -> None:
    """What was before the first look does not count; a thread that comes later has done all its work since."""
    usage = Usage()
    usage.look([ThreadTime(1, "qemu-system-x86", 100.0), ThreadTime(2, "CPU 0/KVM", 50.0)])
    assert usage.seconds == {EMULATOR: 0.0, "vcpu0": 0.0}
    usage.look(
        [ThreadTime(1, "qemu-system-x86", 100.5), ThreadTime(2, "CPU 0/KVM", 51.0), ThreadTime(3, "mig/src/main", 0.25)]
    )
    usage.look(
        [ThreadTime(1, "qemu-system-x86", 100.5), ThreadTime(2, "CPU 0/KVM", 52.0), ThreadTime(4, "mig/src/main", 0.5)]
    )
    assert usage.seconds == {EMULATOR: 0.5, "vcpu0": 2.0, MIGRATION: 0.75}


def test_a_qemu_that_starts_later_counts_from_its_start() -> None:
    """As that of the target does."""
    usage = Usage()
    usage.look([])
    usage.look([ThreadTime(7, "qemu-system-x86", 0.75)])
    assert usage.seconds == {EMULATOR: 0.75}


# mpstat


def test_shares_are_those_of_mpstat() -> None:
    """In percent of what the counters have grown by; guests of the guest are not counted twice."""
    before = CpuTimes(0, user_s=10.0, system_s=5.0, idle_s=100.0)
    after = CpuTimes(0, user_s=10.5, system_s=5.25, idle_s=100.125, softirq_s=0.125, guest_s=0.25)
    share = shares(before, after)
    assert share is not None
    assert (share.usr, share.guest, share.sys, share.soft, share.idle) == (25.0, 25.0, 25.0, 12.5, 12.5)
    assert shares(after, after) is None, "nothing has been counted: it did not run at all"


def look(at: float, *cpus: tuple[int, float, float]) -> GuestCpus:
    return GuestCpus(at, tuple(CpuTimes(cpu, user_s=user, system_s=0.0, idle_s=idle) for cpu, user, idle in cpus))


def test_looks_from_both_hosts_make_one_line() -> None:
    """In the order of time: the counters move with the guest."""
    looks = [look(12.0, (0, 1.5, 1.5)), look(10.0, (0, 0.0, 1.0)), look(11.0, (0, 0.5, 1.5))]
    assert [(at, share.usr) for at, share in shares_by_cpu(looks)[0]] == [(11.0, 50.0), (12.0, 100.0)]


def test_a_cpu_that_comes_or_a_guest_that_boots_begins_anew() -> None:
    """Without a figure made of counters that do not belong together."""
    looks = [look(1.0, (0, 5.0, 5.0)), look(2.0, (0, 6.0, 5.0), (1, 0.5, 0.0)), look(3.0, (0, 0.5, 0.5), (1, 1.0, 0.5))]
    found = shares_by_cpu(looks)
    assert [at for at, _ in found[0]] == [2.0]
    assert [(at, share.usr) for at, share in found[1]] == [(3.0, 50.0)]


def test_the_guest_as_mpstat_shows_it() -> None:
    """USR for each CPU, and the mean of all."""
    series = guest_series([look(1.0, (0, 0.0, 0.0), (1, 0.0, 0.0)), look(2.0, (0, 0.5, 0.5), (1, 1.0, 0.0))])
    lines = named(series)
    assert lines["cpu0 usr"] == [(2.0, 50.0)]
    assert lines["cpu1 usr"] == [(2.0, 100.0)]
    assert lines["usr"] == [(2.0, 75.0)]
    assert lines["idle"] == [(2.0, 25.0)]
    assert guest_series([]) == []


# Hosts and copies


def test_threads_in_percent_of_a_cpu() -> None:
    """The migration's from where it began; a machine that two hosts share is shown once."""
    source = HostLog(
        "t4-1",
        booted_at=1.0,
        looks=(
            HostLook(10.0, {"vcpu0": 0.0, EMULATOR: 0.0}, 100.0),
            HostLook(11.0, {"vcpu0": 0.5, EMULATOR: 0.25}, 101.0),
            HostLook(13.0, {"vcpu0": 1.5, EMULATOR: 0.25, MIGRATION: 0.5}, 104.0),
        ),
    )
    target = HostLog("t4-2", booted_at=1.0, looks=(HostLook(10.0, {}, 100.0), HostLook(11.0, {}, 101.0)))
    lines = named(host_series([source, target]))
    assert lines == {
        "t4-1 vcpu0": [(11.0, 50.0), (13.0, 50.0)],
        "t4-1 migration": [(13.0, 25.0)],
        "t4-1 emulator": [(11.0, 25.0), (13.0, 0.0)],
        "t4-1 all": [(11.0, 100.0), (13.0, 150.0)],
    }


def test_a_copy_second_by_second() -> None:
    """Several looks of one second become one; neither before nor after the copy is there anything."""

    def at(moment: float, sent: int, left: int, changed: float, throttle: int = 0) -> CopyLook:
        progress = Progress("active", transferred_bytes=sent, remaining_bytes=left, dirty_bytes_s=changed)
        return CopyLook(moment, "copy", Progress(**{**_fields(progress), "throttle_percent": throttle}))

    looks = [CopyLook(9.0, "check", None), at(10.0, 0, 900, 0.0), at(10.5, 50, 850, 0.0), at(11.5, 150, 800, 20.0, 30)]
    looks.append(CopyLook(13.0, "suspend", looks[-1].progress))
    lines = named(copy_series(looks))
    assert lines["sent"] == [(10.5, 100.0), (11.5, 100.0)]
    assert lines["changed by the guest"] == [(10.0, 0.0), (10.5, 0.0), (11.5, 20.0)]
    assert lines["left to send"][-1] == (11.5, 800.0)
    assert lines["held back"][-1] == (11.5, 30.0)
    assert copy_series(looks[:1]) == []


def _fields(progress: Progress) -> dict[str, object]:
    return {name: getattr(progress, name) for name in Progress.__dataclass_fields__}


# Load and probes


def test_a_load_second_by_second() -> None:
    """Only what was acknowledged; a second without any has a throughput, and no latency."""
    ended = [(100.2, 0.01), (100.4, 0.03), (102.9, 0.5)]
    transactions = [Transaction(0, number, "BP", at, took) for number, (at, took) in enumerate(ended)]
    transactions.append(Transaction(0, 9, "BP", 101.5, outcome=Outcome.FAILED))
    lines = named(load_series(transactions, Window(99.5, 103.5)))
    assert lines["transactions"] == [(101.0, 2.0), (102.0, 0.0), (103.0, 1.0)]
    assert lines["50 %"] == [(101.0, 10.0), (103.0, 500.0)]
    assert lines["max"] == [(101.0, 30.0), (103.0, 500.0)]


def test_the_longest_wait_of_each_second() -> None:
    """One that spans seconds counts in all of them, as the client had no answer in any."""
    answers = (10.1, 10.4, 10.9, 12.6, 12.9, 13.2)
    exchanges = tuple(Exchange(number, at - 0.01, at) for number, at in enumerate(answers, 1))
    record = ProbeRecord("sql", "guest", 0.1, 10.0, 13.5, Ending.STOPPED, exchanges)
    (series,) = probe_series({"sql": record}, Window(10.0, 13.0))
    assert series.times == (11.0, 12.0, 13.0)
    assert series.values == pytest.approx((1700.0, 1700.0, 1700.0))
    assert probe_series({"sql": record}, Window(20.0, 30.0)) == []


def test_what_lies_in_a_window() -> None:
    """A value is of the second that ends there, so one just after the end belongs to it."""
    series = Series("x", "y", "%", (9.0, 10.0, 11.0, 11.5, 13.0), (1.0, 2.0, 3.0, 4.0, 5.0))
    (kept,) = clipped([series, Series("x", "z", "%", (1.0,), (1.0,))], Window(10.0, 11.0))
    assert kept.times == (10.0, 11.0, 11.5)
    assert mean_between(series, Window(10.0, 11.5)) == 2.5
    assert mean_between(series, Window(20.0, 30.0)) is None


# What a host writes


def test_what_a_host_writes_is_read_by_our_clock() -> None:
    """Whole lines only; each note once."""
    lines = [
        json.dumps({"sort": "begin", "at": 105.0, "booted_at": 7.0, "versions": {"kernel": "6.1"}}),
        write_line(Sort.HOST, HostLook(106.0, {"vcpu0": 0.5}, 3.0)),
        write_line(Sort.GUEST, look(106.5, (0, 1.0, 1.0))),
        write_line(Sort.COPY, CopyLook(107.0, "copy", Progress("active", transferred_bytes=5))),
        json.dumps({"sort": "note", "at": 107.0, "text": "no agent"}),
        json.dumps({"sort": "note", "at": 108.0, "text": "no agent"}),
        '{"sort": "of a later version", "at": 109.0}',
        '{"sort": "host", "at": 110.0, "thr',
    ]
    log = read_lines("t4-2", lines, 5.0)
    assert (log.began_at, log.booted_at, log.versions, log.notes) == (100.0, 7.0, {"kernel": "6.1"}, ("no agent",))
    assert [one.at for one in (*log.looks, *log.guests, *log.copies)] == [101.0, 101.5, 102.0]
    assert log.copies[0].progress == Progress("active", transferred_bytes=5)


def test_the_clock_of_a_host_shows_in_its_fastest_line() -> None:
    """No line comes before it was written."""
    arrivals = [(100.5, '{"at": 102.0}'), (101.1, '{"at": 103.0}'), (102.0, "no line"), (103.7, '{"at": 104.0}')]
    assert clock_offset_s(arrivals) == pytest.approx(1.9)
    assert clock_offset_s([(100.5, '{"at": 98.0}')]) == pytest.approx(-2.5)
    assert clock_offset_s([]) == 0.0
