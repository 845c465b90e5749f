"""What pgbench writes is read as it was meant, and summed up without tricks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ldoms.bench.figures import (
    Gap,
    Percentiles,
    Window,
    gaps,
    longest_gap,
    percentile,
    percentiles,
    tps_by_second,
    window_figures,
)
from ldoms.bench.log import Outcome, Transaction, parse_log, parse_progress, parse_report, read_logs
from ldoms.bench.pgbench import LoadOptions, Script, find_pgbench, pgbench_words, start_load
from ldoms.bench.server import Server
from ldoms.model.codec import to_wire
from ldoms.model.errors import AlreadyExists, HostError

# Of pgbench 15, four clients in two threads, with --rate.
FIRST_THREAD = """\
0 1 797 0 1795422179 96158 104
1 1 21178 1 1795422179 122810 105
0 2 21072 1 1795422179 123083 353
1 2 40710 1 1795422179 143269 20273
"""
SECOND_THREAD = """\
2 1 21674 1 1795422179 93560 110
3 1 21227 1 1795422179 184783 192
"""
# One client, without a rate, whose first script fails now and then with SQLSTATE 40001.
WITH_FAILURES = """\
0 4 378 0 1795422214 458780
0 5 failed 0 1795422214 463002
0 6 failed 0 1795422214 560575
0 7 482 1 1795422214 656308
0 8 skipped 1 1795422214 656400
"""
SUMMARY = """\
pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: multiple scripts
scaling factor: 1
query mode: prepared
number of clients: 4
number of threads: 2
maximum number of tries: 1
duration: 60 s
number of transactions actually processed: 311
number of failed transactions: 7 (2.201%)
latency average = 19.778 ms
latency stddev = 7.662 ms
rate limit schedule lag: avg 1.744 (max 20.273) ms
initial connection time = 8.816 ms
tps = 93.673316 (without initial connection time)
SQL script 1: a.sql
 - weight: 1 (targets 10.0% of total)
 - 36 transactions (11.6% of total, tps = 10.843213)
 - number of failed transactions: 0 (0.000%)
"""
CRASH = """\
progress: 1.0 s, 24.9 tps, lat 0.508 ms stddev 0.129, 0 failed, lag 0.185 ms
WARNING:  terminating connection due to immediate shutdown command
pgbench: error: client 2 aborted in command 1 (SQL) of script 0; perhaps the backend died while processing
WARNING:  terminating connection due to immediate shutdown command
pgbench: error: pgbench: error: client 1 aborted in command 1 (SQL) of script 0; perhaps the backend died while \
processing
client 0 script 0 aborted in command 1 query 0: FATAL:  terminating connection due to administrator command
pgbench: error: client 3 script 1 aborted in command 4 query 0: ERROR:  column reference "last_name" is ambiguous
LINE 3:         where lower(c.last_name) = last_name
pgbench: error: Run was aborted; the above results are incomplete.
"""


def committed(*times: float) -> list[Transaction]:
    return [Transaction(0, seq, "BP", at, latency_s=0.01) for seq, at in enumerate(times, 1)]


def test_log_line_with_rate() -> None:
    """A line gives client, number, kind, end, latency from the due time, and the lag in it, all in seconds."""
    first, *_, last = parse_log(FIRST_THREAD, ["NCR", "BP"])
    assert first == Transaction(0, 1, "NCR", 1795422179.096158, 0.000797, 0.000104)
    assert (last.client, last.seq, last.kind) == (1, 2, "BP")
    assert last.service_s == pytest.approx(0.040710 - 0.020273)


def test_log_line_without_rate_and_with_failures() -> None:
    """Transactions that were not acknowledged keep their number, and have no time."""
    outcomes = [(one.seq, one.outcome, one.latency_s, one.lag_s) for one in parse_log(WITH_FAILURES, ["f", "g"])]
    assert outcomes == [
        (4, Outcome.ACKNOWLEDGED, 0.000378, 0.0),
        (5, Outcome.FAILED, 0.0, 0.0),
        (6, Outcome.FAILED, 0.0, 0.0),
        (7, Outcome.ACKNOWLEDGED, 0.000482, 0.0),
        (8, Outcome.SKIPPED, 0.0, 0.0),
    ]


def test_log_that_was_cut_off() -> None:
    """Of a log whose writer was killed, the whole lines count."""
    assert len(parse_log(FIRST_THREAD + "2 3 20", ["NCR", "BP"])) == 4
    assert parse_log("2 3 20", ["NCR"]) == []


def test_logs_of_threads_are_merged(tmp_path: Path) -> None:
    """One run in two files comes out in the order in which transactions ended."""
    (tmp_path / "transactions.77").write_text(FIRST_THREAD)
    (tmp_path / "transactions.77.1").write_text(SECOND_THREAD)
    found = read_logs(sorted(tmp_path.iterdir()), ["NCR", "BP"])
    assert [(one.client, one.seq) for one in found] == [(2, 1), (0, 1), (1, 1), (0, 2), (1, 2), (3, 1)]


def test_summary() -> None:
    """The summary's own figures are found, not those of one script."""
    report = parse_report(SUMMARY, "")
    assert (report.processed, report.failed) == (311, 7)
    assert report.tps == pytest.approx(93.673316)
    assert report.connecting_s == pytest.approx(0.008816)
    assert (report.aborted_clients, report.lost_clients, report.messages) == ((), (), ())


def test_clients_that_gave_up() -> None:
    """Lost connections are told from errors of the server, also where two threads wrote into one line."""
    report = parse_report("", CRASH)
    assert report.processed is None
    assert report.aborted_clients == (0, 1, 2, 3)
    assert report.lost_clients == (0, 1, 2)
    assert "ambiguous" in report.messages[3]


def test_progress_lines() -> None:
    """Progress is read from amid errors; a second without an answer has no latency."""
    silent = "progress: 3.0 s, 0.0 tps, lat 0.000 ms stddev 0.000, 0 failed, lag 0.000 ms\n"
    older = "progress: 4.0 s, 12.5 tps, lat NaN ms stddev NaN\n"
    first, second, third = parse_progress(CRASH + silent + older)
    assert (first.elapsed_s, first.tps) == (1.0, 24.9)
    assert first.latency_s == pytest.approx(0.000508)
    assert (second.tps, second.latency_s) == (0.0, 0.0)
    assert (third.elapsed_s, third.tps, third.latency_s, third.failed) == (4.0, 12.5, 0.0, 0)


def test_percentile_is_a_measured_value() -> None:
    """By nearest rank, a percentile is one of the values; of one value, all are that."""
    assert [percentile(range(1, 101), percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentiles([3.0]) == Percentiles(3.0, 3.0, 3.0, 3.0)
    assert percentiles([4.0, 1.0, 3.0, 2.0]) == Percentiles(2.0, 4.0, 4.0, 4.0)
    assert percentiles([]) is None


def test_gap_that_reaches_out_of_the_window_is_whole() -> None:
    """An interruption that began before the window is reported as long as it was."""
    times = [1.0, 2.0, 5.0, 6.0, 9.5]
    assert longest_gap(times, Window(3.0, 6.5)) == Gap(6.0, 3.5)
    assert gaps(times, Window(3.0, 4.0)) == [Gap(2.0, 3.0)]


def test_gaps_at_the_ends_of_a_run() -> None:
    """Without an answer before or after, the window's own ends take its place; no answer is one long gap."""
    assert gaps([4.0], Window(1.0, 6.0)) == [Gap(1.0, 3.0), Gap(4.0, 2.0)]
    assert gaps([], Window(1.0, 6.0)) == [Gap(1.0, 5.0)]
    assert gaps([2.0, 3.0], Window(2.0, 3.0)) == [Gap(2.0, 1.0)]
    assert gaps([2.0], Window(5.0, 7.0)) == [Gap(2.0, 5.0)]


def test_tps_by_second() -> None:
    """Seconds without a commit are there as zero, and nothing from outside the window is counted."""
    transactions = committed(9.9, 10.0, 10.5, 10.999, 12.1, 13.6)
    assert tps_by_second(transactions, Window(10.0, 13.5)) == (3, 0, 1)


def test_window_figures() -> None:
    """A window counts its own commits and failures; latency and service time differ by the lag."""
    transactions = [
        *committed(1.0, 1.5, 2.0),
        Transaction(1, 1, "OP", 1.7, latency_s=0.5, lag_s=0.3),
        Transaction(1, 2, "OP", 1.8, outcome=Outcome.FAILED),
    ]
    figures = window_figures(transactions, Window(1.0, 2.0))
    assert (figures.transactions, figures.failed, figures.tps) == (3, 1, 3.0)
    assert figures.latency is not None
    assert figures.service is not None
    assert figures.latency.max_s == 0.5
    assert figures.service.max_s == pytest.approx(0.2)
    assert figures.longest_gap == Gap(1.0, 0.5)
    assert json.loads(json.dumps(to_wire(figures)))["latency"]["max_s"] == 0.5


def test_window_without_a_commit() -> None:
    """A window in which nothing happened has figures too: zero, none, and one gap."""
    figures = window_figures(committed(0.0, 9.0), Window(2.0, 4.0))
    assert (figures.transactions, figures.tps, figures.latency, figures.service) == (0, 0.0, None, None)
    assert figures.longest_gap == Gap(0.0, 9.0)


def test_connection_words_are_quoted() -> None:
    """Values cannot become other settings, and a silent server is given up in the time asked for."""
    words = Server("10.0.0.5", database="it's", silence_limit_s=40).connection_words
    assert "host='10.0.0.5'" in words
    assert r"dbname='it\'s'" in words
    assert "keepalives_idle='20' keepalives_interval='5' keepalives_count='4' tcp_user_timeout='40000'" in words


def test_pgbench_words() -> None:
    """The command has weights, the log, the seed and the variables; a rate only if one is asked for."""
    options = LoadOptions(clients=1, threads=2, seconds=9, seed=5)
    scripts = [(Path("/d/BP.sql"), 50)]
    words = pgbench_words(Path("/p/pgbench"), Server("h"), scripts, options, Path("/d/log"), {"seq": 0})
    assert words[0] == "/p/pgbench"
    assert {"--client=1", "--jobs=1", "--time=9", "--random-seed=5", "--log", "--log-prefix=/d/log"} < set(words)
    assert {"--define=seq=0", "--file=/d/BP.sql@50", "--protocol=prepared"} < set(words)
    assert not any(word.startswith("--rate") for word in words)
    limited = LoadOptions(rate_per_s=40.0)
    assert "--rate=40" in pgbench_words(Path("p"), Server("h"), scripts, limited, Path("l"), {})


def test_directory_of_another_run_is_refused(tmp_path: Path) -> None:
    """Logs of two runs cannot mix: a directory that is in use is refused before anything starts."""
    (tmp_path / "transactions.1").touch()
    with pytest.raises(AlreadyExists, match="not empty"):
        start_load(Path("/nowhere/pgbench"), Server("h"), [Script("a", "")], LoadOptions(), tmp_path)


def test_program_that_is_not_there(tmp_path: Path) -> None:
    """A missing program is an error of this host that names it."""
    with pytest.raises(HostError, match="/nowhere/pgbench cannot be started"):
        start_load(Path("/nowhere/pgbench"), Server("h"), [Script("a", "")], LoadOptions(), tmp_path / "run")


def program(path: Path, status: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_pgbench_is_tried_before_it_is_taken(tmp_path: Path) -> None:
    """The newest that works is taken: first of the server packages, then PATH, then the cache."""
    packages, on_path, cache = tmp_path / "packages", tmp_path / "bin", tmp_path / "cache"
    newest = program(packages / "17/bin/pgbench", 0)
    older = program(packages / "9/bin/pgbench", 0)
    wrapper = program(on_path / "pgbench", 0)
    cached = program(cache / "tools/pgbench", 0)
    for expected in (newest, older, wrapper, cached):
        assert find_pgbench(cache, server_programs=packages, search_path=str(on_path)) == expected
        program(expected, 1)
    with pytest.raises(HostError) as caught:
        find_pgbench(cache, server_programs=packages, search_path=str(on_path))
    assert caught.value.code == "no-pgbench"
