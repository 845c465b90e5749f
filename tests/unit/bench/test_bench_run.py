"""What is typed to measure a migration, and what is refused in a sentence before anything begins."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ldoms.bench import counters, run
from ldoms.bench.counters import Counters
from ldoms.bench.database import Snapshot
from ldoms.bench.loads import WorkloadLoad
from ldoms.bench.observation_cost import ratio_summary
from ldoms.bench.record import Series
from ldoms.bench.server import Server
from ldoms.bench.workloads import ThinkTimes
from ldoms.model.errors import HostError, RequestError
from ldoms.model.migration import ClockReading, MigrationReport, Outcome


def load_of(*words: str) -> WorkloadLoad:
    return run.workload_of(parsed(*words), Server("192.0.2.1"), Path("pgbench"), 0.0, ())


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_run(parser.add_subparsers())
    return parser.parse_args(["run", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --domain and --to, or --lab"),
        (["--domain", "ldg1"], "give --domain and --to, or --lab"),
        (["--domain", "ldg1", "--to", "t4-2", "--workload", "orderentry"], "a workload needs a database: give --dsn"),
        (["--lab", "--workload", "orderentry", "--command", "true"], "are two loads: give one"),
        (["--lab", "--dsn", "host=x"], "--lab makes a domain of its own"),
        (["--domain", "ldg1", "--to", "t4-2", "--dsn", "nonsense"], "this is not a connection string"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With status 1, one sentence, and nothing left behind."""
    assert run.main_run(parsed(*words, "--build", str(tmp_path))) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("ldoms-bench run: ")
    assert said in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["0", "-1", "x", "nan", "inf"])
def test_a_time_must_be_one(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither nothing nor for ever."""
    with pytest.raises(SystemExit):
        parsed("--lab", f"--before={word}")
    assert "invalid number value" in capsys.readouterr().err


def test_the_mix_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """A kind and its share, in any case of letters."""
    assert parsed("--lab", "--weight", "bp=80", "--weight", "NCR=0").weight == [("BP", 80), ("NCR", 0)]
    for wrong in ("BP", "BP=x", "=3", "BP=-1"):
        with pytest.raises(SystemExit):
            parsed("--lab", f"--weight={wrong}")
        assert f"'{wrong}' is not NAME=NUMBER" in capsys.readouterr().err


def test_the_move_as_it_is_typed() -> None:
    """Options of ldm go on to it; what runs a command elsewhere goes in front of it."""
    words = ["--domain", "ldg1", "--to", "tracy@t4-2:new", "-p", "pfile", "--with", "--max-suspend 500ms"]
    move = run.move_of(parsed(*words, "--on-source", "ldoms-lab exec t4-1 --", "--on-target", "ssh root@t4-2"))
    assert (move.domain, move.to, move.new_name) == ("ldg1", "tracy@t4-2:new", "new")
    assert move.options == ("--max-suspend", "500ms", "-p", "pfile")
    assert move.source.name == "t4-1"
    assert move.source.words("ldm", "list") == ["ldoms-lab", "exec", "t4-1", "--", "ldm", "list"]
    assert move.target is not None
    assert (move.target.name, move.target.prefix) == ("t4-2", ("ssh", "root@t4-2"))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("ssh -i /root/key -o LogLevel=ERROR root@t4-1 env LDM_SOCKET=/run/x PATH=/opt/bin", "t4-1"),
        ("ssh t4-1", "t4-1"),
        ("/usr/local/bin/there", "source"),
    ],
)
def test_the_source_has_a_name_whatever_runs_commands_there(command: str, name: str) -> None:
    """What it sees goes into files of that name, until it has told its own."""
    assert run.move_of(parsed("--domain", "ldg1", "--to", "t4-2", "--on-source", command)).source.name == name


def test_a_move_from_this_very_host() -> None:
    """Whose target cannot be looked at."""
    move = run.move_of(parsed("--domain", "ldg1", "--to", "t4-2", "-c"))
    assert (move.options, move.target, move.source.prefix) == (("-c",), None, ())
    assert move.places == (move.source,)


@pytest.mark.parametrize(
    ("address", "is_one"), [("127.0.0.1", True), ("::1", True), ("10.0.0.5", False), ("db", False)]
)
def test_a_tunnel_is_not_the_guest(address: str, is_one: bool) -> None:
    """To ping it would say nothing."""
    assert run.is_loopback(address) is is_one


# The counters of the database

MIGRATION = MigrationReport("m", "d", "d", "u", "t4-1", "t4-2", "root", True, Outcome.DONE, 2.0)


def snapshot(at: float) -> Snapshot:
    return Snapshot(at, 0.1, 150000, {}, {})


def test_a_server_that_gives_no_counters_costs_the_report_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, said once, and the measurement goes on."""
    asked = []

    def refuse(server: Server, *, prefix: object) -> Snapshot:
        asked.append(server)
        raise HostError("the server cannot be reached", code="no-server")

    monkeypatch.setattr(counters, "take_snapshot", refuse)
    monkeypatch.setattr(counters, "try_clock", lambda server, prefix: None)
    taken = Counters(Server("db"))
    for _ in range(4):
        taken.take()
    assert taken.report(MIGRATION, ()) is None
    assert (len(asked), taken.notes) == (1, ["the counters of the database: the server cannot be reached"])


def test_counters_are_compared_stretch_by_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four looks make three stretches; without a server there is nothing."""
    moments = iter((1.0, 2.0, 3.0, 4.0))
    given: list[tuple[object, object]] = []
    changed = Series("migration", "changed by the guest", "bytes/s", (2.5,), (1e6,))
    monkeypatch.setattr(counters, "take_snapshot", lambda server, prefix: snapshot(next(moments)))
    clocks = iter([ClockReading(0.1 * number, 0.01) for number in range(4)])
    monkeypatch.setattr(counters, "try_clock", lambda server, prefix: next(clocks))

    def note(server: Server, pairs: object, *, prefix: object, migration: object, dirty_rate: object) -> None:
        assert migration is MIGRATION
        given.append((pairs, dirty_rate))

    monkeypatch.setattr(counters, "database_report", note)
    taken = Counters(Server("db"))
    for _ in range(4):
        taken.take()
    taken.report(MIGRATION, (Series("throughput", "transactions", "1/s", (2.5,), (30.0,)), changed))
    ((pairs, dirty_rate),) = given
    assert dirty_rate is changed
    assert isinstance(pairs, dict)
    assert {stretch.value: (one.taken_at, two.taken_at) for stretch, (one, two) in pairs.items()} == {
        "before": (1.0, 2.0),
        "during": (2.0, 3.0),
        "after": (3.0, 4.0),
    }
    clock = taken.clock(MIGRATION)
    assert clock is not None
    assert (clock.before_s, clock.after_s) == (pytest.approx(0.1), pytest.approx(0.3)), "just before the move, and last"
    nobody = Counters(None)
    nobody.take()
    assert nobody.clock(MIGRATION) is None
    assert (nobody.report(MIGRATION, ()), nobody.notes) == (None, [])


def test_ratios_are_shown_with_their_spread() -> None:
    """Median and quartiles are of the values measured, or between two of them."""
    assert ratio_summary([1.1, 0.9, 1.0, 0.8, 1.2]) == {
        "median": 1.0,
        "quarter": 0.9,
        "three_quarters": 1.1,
        "min": 0.8,
        "max": 1.2,
    }


def test_the_mix_comes_from_a_file_and_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    """Shares, think times and users, as for the workload alone."""
    mix = tmp_path / "mix"
    mix.write_text("users = 8\n[weights]\nBP = 7\nNCR = 0\n[think]\nintermin = 9\n")
    made = load_of("--lab", "--mix", str(mix), "--weight", "bp=80")
    assert made.weights is not None
    assert (made.weights["BP"], "NCR" in made.weights, made.options.clients) == (80, False, 8)
    assert made.think == ThinkTimes(intermin_ms=9, intermax_ms=9)
    assert load_of("--lab", "--mix", str(mix), "--users", "3").options.clients == 3
    assert load_of("--lab").think is None
    assert load_of("--lab").options.clients == 50
    mix.write_text("[weights]\nnone = 1\n")
    with pytest.raises(RequestError, match="has no transaction none, only"):
        load_of("--lab", "--mix", str(mix))
