"""What comes of a measured migration: the suspension by three clocks, findings in words, lines for a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.bench import move
from ldoms.bench.experiment import RunOptions, probed_stretches, run_experiment, suspension_ms
from ldoms.bench.figures import Window, window_figures
from ldoms.bench.findings import findings, went_well
from ldoms.bench.log import Transaction
from ldoms.bench.move import Move, shifted
from ldoms.bench.observe.hosts import Place
from ldoms.bench.probe import Ending, Exchange, ProbeRecord
from ldoms.bench.record import (
    CheckItem,
    Conditions,
    DatabaseReport,
    GuestClockRecord,
    LoadRecord,
    RunRecord,
    Series,
    Stretch,
    stretches_of,
)
from ldoms.bench.summary import summary
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationPlan, MigrationReport, Outcome, PassRecord, PhaseRecord
from ldoms.model.phases import Phase

MIB = 1 << 20
PLAN = MigrationPlan(("return-path",), 2, "NORMAL", "none", 0, 0.3, 0.3)
REPORT = MigrationReport(
    id="m",
    domain="ldg1",
    target_name="ldg1",
    uuid="u",
    source="t4-1",
    target="t4-2",
    user="ldmadmin",
    active=True,
    outcome=Outcome.DONE,
    started_at=120.0,
    ended_at=126.0,
    stopped_at=124.0,
    resumed_at=124.054,
    phases=(PhaseRecord(Phase.CHECK, 120.0, 1.0), PhaseRecord(Phase.COPY, 121.0, 3.0)),
    passes=(PassRecord(1, 2.0, 400 * MIB, 5 * MIB), PassRecord(2, 0.1, 5 * MIB, 0)),
    plan=PLAN,
    downtime_s=0.036,
    stop_resume_s=0.054,
    transferred_bytes=405 * MIB,
)


def asked(name: str, answers: list[float], ending: Ending = Ending.STOPPED) -> ProbeRecord:
    exchanges = tuple(Exchange(number, at - 0.001, at) for number, at in enumerate(answers, 1))
    return ProbeRecord(name, "10.0.0.5", 0.1, answers[0], answers[-1], ending, exchanges)


def every(step: float, begin: float, end: float) -> list[float]:
    return [begin + step * number for number in range(round((end - begin) / step) + 1)]


ANSWERS = [*every(0.1, 100.0, 124.0), *every(0.1, 124.21, 160.0)]


def record(**changes: object) -> RunRecord:
    measured = Window(100.0, 160.0)
    stretches = stretches_of(measured, REPORT)
    steps = {Stretch.BEFORE: 0.05, Stretch.DURING: 0.1, Stretch.AFTER: 0.049}
    windows = {
        stretch: window_figures(
            [Transaction(0, 1, "BP", at, 0.02) for at in every(steps[stretch], window.begin, window.end - 0.01)], window
        )
        for stretch, window in stretches.items()
    }
    probes = {"sql": asked("sql", ANSWERS)}
    made = RunRecord(
        id="run",
        measured=measured,
        conditions=Conditions("Xeon", 2, 2048, "10.0.2", "kvm", 0.4),
        migration=REPORT,
        suspension_ms=suspension_ms(REPORT, probes),
        load=LoadRecord("orderentry", {"users": "50"}, windows),
        series=(
            Series("guest-cpu-all", "idle", "%", (110.0, 122.0, 123.0), (50.0, 20.0, 30.0)),
            Series("guest-cpu-all", "usr", "%", (110.0, 122.0, 123.0), (40.0, 60.0, 50.0)),
            Series("host-cpu", "t4-1 migration", "%", (122.0, 123.0), (99.0, 97.0)),
            Series("host-cpu", "t4-2 emulator", "%", (122.0, 123.0), (30.0, 40.0)),
            Series("migration", "sent", "bytes/s", (122.0, 123.0), (118.0 * MIB, 100.0 * MIB)),
            Series("migration", "changed by the guest", "bytes/s", (122.0, 123.0), (0.0, 22.0 * MIB)),
        ),
        probes={name: probed_stretches(one, stretches) for name, one in probes.items()},
        checks=(CheckItem("order totals", True, "100 orders"),),
        runs_on="t4-2",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def found(one: RunRecord, begin: str) -> str:
    """The finding that begins so; empty if there is none."""
    return next((sentence for sentence in findings(one) if sentence.startswith(begin)), "")


# The suspension


def test_the_suspension_by_three_clocks() -> None:
    """The client's is the time without an answer that the suspension lies in, whatever else was slow."""
    answers = [at for at in ANSWERS if not 110.0 < at < 112.0]
    found = suspension_ms(REPORT, {"ping": asked("ping", every(0.1, 100, 160)), "sql": asked("sql", answers)})
    assert found == {"qemu": 36.0, "stop_resume": 54.0, "client": pytest.approx(210.0)}


def test_who_can_tell_is_asked_in_turn() -> None:
    """Where no database is asked, it is ping; where nobody is, nothing is claimed; nor where it did not stop."""
    assert suspension_ms(REPORT, {"ping": asked("ping", ANSWERS)})["client"] == pytest.approx(210.0)
    assert suspension_ms(REPORT, {})["client"] is None
    failed = replace(REPORT, stopped_at=0.0, resumed_at=0.0, downtime_s=None, stop_resume_s=None)
    assert suspension_ms(failed, {"sql": asked("sql", ANSWERS)}) == {"qemu": None, "stop_resume": None, "client": None}


def test_a_probe_that_began_late_has_no_figures_of_before() -> None:
    """And those of the other stretches."""
    late = probed_stretches(asked("sql", every(0.1, 121.0, 160.0)), stretches_of(Window(100.0, 160.0), REPORT))
    assert set(late) == {Stretch.DURING, Stretch.AFTER}


def test_a_migration_that_has_not_ended_goes_on_to_the_end() -> None:
    """So that no stretch is of a negative length."""
    stretches = stretches_of(Window(100.0, 160.0), replace(REPORT, ended_at=0.0, outcome=Outcome.UNDECIDED))
    assert stretches[Stretch.DURING] == Window(120.0, 160.0)
    assert stretches[Stretch.AFTER].seconds == 0


# Findings


def test_findings_of_a_move_that_went_well() -> None:
    """Each in a sentence with its figures."""
    one = record()
    assert went_well(one)
    assert found(one, "ldg1 moved") == (
        "ldg1 moved from t4-1 to t4-2 in 6.0 s, of which memory was copied for 3.0 s: 405 MiB in 2 passes."
    )
    assert found(one, "No connection") == "No connection was lost, and every check of the data holds: order totals."
    assert found(one, "The guest stood") == (
        "The guest stood still for 36 ms by QEMU's clock, 54 ms from stop to resumption by the clocks of the hosts,"
        " 210 ms without an answer for a client of the database (at most 100 ms before the move)."
    )
    assert found(one, "That") == "That keeps the promise of 300 ms."
    assert found(one, "Throughput") == (
        "Throughput was 20.0 transactions/s before the move, 10.0 during it (-50 %), 20.4 after it (no difference that"
        " counts)."
    )
    assert found(one, "The guest's CPUs") == (
        "The guest's CPUs were 50 % busy before the move (USR 40 %), 75 % busy while memory was copied (USR 55 %)."
    )
    assert found(one, "Up to") == "Up to 118 MiB/s were sent, while the guest changed up to 22 MiB/s."
    assert found(one, "What sends") == (
        "What sends memory t4-1 used 98 % of a CPU: more channels and more CPUs there would help."
    )
    assert not found(one, "QEMU emulated")
    assert not found(one, "The machine")


def test_what_was_lost_is_said_first() -> None:
    """And the run has not gone well."""
    torn = record(checks=(CheckItem("order totals", False, "3 of 100 orders are wrong"),))
    assert findings(torn)[1] == "The check 'order totals' does not hold: 3 of 100 orders are wrong."
    cut = record(load=replace(record().load, connections_lost=2))
    assert findings(cut)[1] == "Connections of the load that were lost: 2."
    stretches = stretches_of(Window(100.0, 160.0), REPORT)
    hung_up = record(probes={"sql": probed_stretches(asked("sql", ANSWERS, Ending.LOST), stretches)})
    assert findings(hung_up)[1] == "The connection of the client that looked on was lost."
    twice = record(runs_on="t4-1 and t4-2")
    assert findings(twice)[1] == "ldg1 was to run on t4-2 afterwards, and runs on t4-1 and t4-2."
    assert not any(went_well(one) for one in (torn, cut, hung_up, twice))
    assert not any(found(one, "No connection") for one in (torn, cut, hung_up))


def test_a_domain_that_did_not_move_says_why() -> None:
    """It was to stay where it was."""
    report = replace(REPORT, outcome=Outcome.FAILED, cause="the target is full", resumed_at=0.0, stop_resume_s=None)
    failed = record(migration=report, runs_on="t4-1")
    assert findings(failed)[0] == "ldg1 did not move (failed): the target is full."
    assert not found(failed, "ldg1 was to run")
    assert not found(failed, "The guest stood")
    assert not went_well(failed)


def test_a_broken_promise_a_throttle_a_clock_and_a_busy_machine() -> None:
    """What is not always there."""
    report = replace(REPORT, stop_resume_s=0.5, throttle_percent=40)
    one = record(
        migration=report,
        guest_clock=GuestClockRecord(0.010, -0.035, 0.002),
        database=DatabaseReport((), (), {Stretch.DURING: 554.0}),
        conditions=Conditions("Xeon", 2, 2048, "10.0.2", "tcg", 8.0),
    )
    assert found(one, "That") == "That breaks the promise of 300 ms."
    assert (
        found(one, "Up to 40 %") == "Up to 40 % of the guest's CPU time was held back, so that the copy came to an end."
    )
    assert found(one, "The guest's clock") == (
        "The guest's clock was +10 ms off before the move and -35 ms after it: -45 ms (measured to 2 ms)."
    )
    assert found(one, "The database") == (
        "The database made 554 block changes/s during the move, and the guest changed up to 22 MiB/s of its memory."
    )
    assert found(one, "QEMU emulated")
    assert found(one, "The machine was busy")


def test_nothing_is_claimed_that_was_not_measured() -> None:
    """A domain with no load, no probes and nobody who looked."""
    bare = record(load=LoadRecord("", {}), series=(), probes={}, checks=(), suspension_ms={})
    assert len(findings(bare)) == 2, findings(bare)
    assert went_well(bare)


# The terminal


def test_the_summary_has_all_that_was_measured() -> None:
    """Phases, three clocks, the load and the probes by stretch, checks, findings."""
    text = "\n".join(summary(replace(record(), findings=("A finding.",))))
    for line in (
        "  check                  1.000 s",
        "  total                  6.000 s",
        "Suspension               36 ms by QEMU",
        "                        210 ms without an answer, seen from outside",
        "  before              20.0 tps     20 ms     20 ms     20 ms     20 ms",
        "  sql                   100 ms    210 ms    100 ms",
        "Check                order totals: holds (100 orders)",
        "ldg1 runs on         t4-2",
        "- A finding.",
    ):
        assert line in text, text
    unknown = "\n".join(summary(record(suspension_ms={}, load=LoadRecord("", {}), probes={})))
    assert "unknown by QEMU" in unknown
    assert "Load" not in unknown
    quiet = replace(record().load.windows[Stretch.DURING], latency=None)
    assert "no transaction" in "\n".join(summary(record(load=LoadRecord("x", {}, {Stretch.DURING: quiet}))))


# The move


def test_a_domain_that_is_not_there_is_missed_before_anything_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No directory of a run is made, and no load is started."""

    def refuse(words: list[str], **more: object) -> str:
        raise HostError(f"{words[-4:-1]} failed: LDom ldg9 was not found", code="program-failed")

    monkeypatch.setattr(move, "run_program", refuse)
    with pytest.raises(HostError, match="ldg9 was not found"):
        run_experiment(RunOptions(Move("ldg9", "t4-2", Place("t4-1")), tmp_path / "runs"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "name"),
    [("t4-2", "ldg1"), ("tracy@t4-2", "ldg1"), ("t4-2:new", "new"), ("tracy@t4-2:new", "new"), ("[fe80::1]", "ldg1")],
)
def test_what_the_domain_is_called_on_the_target(to: str, name: str) -> None:
    """As ldm migrate-domain takes it."""
    assert Move("ldg1", to, Place("t4-1")).new_name == name


def test_words_that_go_through_ssh_are_read_by_a_shell_once_more() -> None:
    """Others are not."""
    assert Place("t4-2", ("ssh", "root@t4-2")).words("ldm", "list", "a b") == [
        "ssh",
        "root@t4-2",
        "ldm",
        "list",
        "'a b'",
    ]
    assert Place("t4-2", ("nsenter", "--")).words("ldm", "a b") == ["nsenter", "--", "ldm", "a b"]
    assert Place("here").words("ldm", "list")[0].endswith("/ldm")


def test_a_report_by_another_clock() -> None:
    """All moments move together; one that is not known stays so."""
    moved = shifted(replace(REPORT, stopped_at=0.0), 10.0)
    assert (moved.started_at, moved.ended_at, moved.stopped_at, moved.resumed_at) == (110.0, 116.0, 0.0, 114.054)
    assert [phase.started_at for phase in moved.phases] == [110.0, 111.0]
    assert moved.total_s == REPORT.total_s
