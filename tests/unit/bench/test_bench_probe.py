"""What probes have written is read and summed up: the gap, when it was, what is usual, what was lost."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest

from ldoms.bench.asking import echo_number, echo_request
from ldoms.bench.figures import Window
from ldoms.bench.log import LoadResult, PgbenchReport, Transaction
from ldoms.bench.probe import (
    Ending,
    Exchange,
    ProbeRecord,
    joined,
    line_counters,
    line_number,
    parse_record,
    probe_figures,
    sql_record,
)
from ldoms.model.codec import to_wire

# Of the line probe, 20 ms between questions.
RECORD = """\
{"probe": "tcp", "target": "127.0.0.1:7", "interval_s": 0.02, "pid": 4711, "began_at": 1795422000.0}
{"seq": 1, "sent_at": 1795422000.001, "answered_at": 1795422000.002, "answer": "1 count=10 errors=0"}
{"seq": 2, "sent_at": 1795422000.021, "answered_at": 1795422000.022, "answer": "2 count=12 errors=0"}
{"seq": 3, "sent_at": 1795422000.041, "answered_at": 1795422000.342, "answer": "3 count=13 errors=0"}
{"seq": 4, "sent_at": 1795422000.343, "answered_at": 1795422000.344, "answer": "4 count=15 errors=0"}
{"ended_at": 1795422000.36, "ending": "stopped", "error": ""}
"""
TOKEN = b"12345678"


def record(exchanges: list[Exchange], ended_at: float, ending: Ending = Ending.STOPPED) -> ProbeRecord:
    return ProbeRecord("icmp", "10.0.0.1", 0.1, 0.0, ended_at, ending, tuple(exchanges))


def test_record_is_read() -> None:
    """Every exchange comes back, and how the probe ended."""
    found = parse_record(RECORD)
    assert (found.probe, found.target, found.ending, found.ended_at) == (
        "tcp",
        "127.0.0.1:7",
        Ending.STOPPED,
        1795422000.36,
    )
    assert found.exchanges[2] == Exchange(3, 1795422000.041, 1795422000.342, "3 count=13 errors=0")
    assert found.wrong_answers == 0


def test_planted_pause_is_found() -> None:
    """A pause is the longest gap, from the last answer before it to the first after it."""
    figures = probe_figures(parse_record(RECORD), Window(1795422000.0, 1795422001.0))
    assert figures.longest_gap.at == pytest.approx(1795422000.022)
    assert figures.longest_gap.seconds == pytest.approx(0.320)
    assert (figures.answers, figures.lost, figures.connection_lost) == (4, 0, False)
    assert figures.median_gap_s == pytest.approx(0.016, abs=1e-6)
    assert figures.window.end == 1795422000.36
    assert json.loads(json.dumps(to_wire(figures)))["longest_gap"]["seconds"] == pytest.approx(0.320)


def test_record_of_a_killed_probe() -> None:
    """A probe that was killed has what it had written, up to its last whole line."""
    found = parse_record("".join(RECORD.splitlines(keepends=True)[:4]) + '{"seq": 4, "sen')
    assert found.ending is Ending.KILLED
    assert found.ended_at == 1795422000.342
    assert len(found.exchanges) == 3


@pytest.mark.parametrize("text", ["", '{"probe": "tcp"', '{"other": 1}\n', "no JSON\n"])
def test_what_is_no_record(text: str) -> None:
    """A file that is empty, has not begun or is something else is refused."""
    with pytest.raises(ValueError, match=r".+"):
        parse_record(text)


def test_answers_lost() -> None:
    """Unanswered questions are lost, except the last ones, whose answers may have been on their way."""
    exchanges = [Exchange(seq, seq / 10, None if seq in (3, 4, 28) else seq / 10 + 0.01) for seq in range(1, 30)]
    figures = probe_figures(record(exchanges, ended_at=3.0), Window(0.0, 3.0))
    assert figures.lost == 2
    assert figures.longest_gap.at == pytest.approx(0.21)
    assert figures.longest_gap.seconds == pytest.approx(0.3)
    assert figures.median_gap_s == pytest.approx(0.1)
    assert probe_figures(record(exchanges, ended_at=3.0), Window(1.0, 2.0)).lost == 0


def test_lost_connection_leaves_a_gap_to_the_end_of_the_window() -> None:
    """After a lost connection a client sees nothing more; after a stop nothing was asked."""
    exchanges = [Exchange(1, 0.1, 0.2), Exchange(2, 0.3, None)]
    lost = probe_figures(record(exchanges, 0.4, Ending.LOST), Window(0.0, 5.0))
    assert (lost.lost, lost.connection_lost) == (1, True)
    assert lost.longest_gap.seconds == pytest.approx(4.8)
    stopped = probe_figures(record(exchanges, 0.4), Window(0.0, 5.0))
    assert (stopped.lost, stopped.connection_lost) == (0, False)
    assert stopped.longest_gap.seconds == pytest.approx(0.2)


def test_what_several_probes_saw_is_one_record() -> None:
    """Of one that asks seldom and one that asks often for a while: the gaps between all answers count."""
    seldom = record([Exchange(1, 0.0, 0.1), Exchange(2, 1.0, 1.5), Exchange(3, 2.0, 2.1)], 3.0)
    often = record([Exchange(1, 1.1, 1.2), Exchange(2, 1.2, 1.4)], 1.6)
    both = joined([seldom, often])
    assert (both.began_at, both.ended_at, both.ending) == (0.0, 3.0, Ending.STOPPED)
    assert [one.sent_at for one in both.exchanges] == [0.0, 1.0, 1.1, 1.2, 2.0]
    assert probe_figures(both, Window(1.2, 1.5)).longest_gap.seconds == pytest.approx(0.2)
    assert joined([seldom]) == seldom


def test_one_lost_connection_is_not_hidden_by_another_probe() -> None:
    """Whichever of them it was."""
    lost = replace(record([Exchange(1, 0.1, 0.2)], 0.4, Ending.LOST), error="reset")
    both = joined([record([Exchange(1, 0.0, 0.1)], 3.0), lost])
    assert (both.ending, both.error) == (Ending.LOST, "reset")


def test_window_without_a_probe() -> None:
    """There are no figures for a time in which nothing was asked."""
    with pytest.raises(ValueError, match="did not run"):
        probe_figures(record([Exchange(1, 0.1, 0.2)], 0.4), Window(1.0, 2.0))


def test_wrong_answer() -> None:
    """An answer to another question is counted."""
    exchanges = [Exchange(1, 0.1, 0.2, "1 count=1"), Exchange(2, 0.3, 0.4, "1 count=1"), Exchange(3, 0.5, 0.6, "x")]
    assert record(exchanges, 1.0).wrong_answers == 2


def test_line_of_the_guest() -> None:
    """The guest's line gives the question's number and its counters."""
    assert line_number("17 count=3203 errors=0") == 17
    assert line_number("") == line_number("count=1") == -1
    assert line_counters("17 count=3203 errors=0") == {"count": 3203, "errors": 0}


def result(lost: bool = False, complete: bool = True) -> LoadResult:
    transactions = tuple(Transaction(0, seq, "probe", 10 + seq * 0.006, latency_s=0.006) for seq in range(1, 101))
    report = PgbenchReport(100, aborted_clients=(0,) if lost else (), lost_clients=(0,) if lost else ())
    return LoadResult(transactions, report, complete)


def test_sql_probe() -> None:
    """pgbench's log of one client is a record like the others, without the pause in the round trip."""
    found = sql_record(result(), target="db", interval_s=0.005)
    assert (found.ending, len(found.exchanges)) == (Ending.TIME, 100)
    figures = probe_figures(found, Window(10.1, 10.5))
    assert figures.median_gap_s == pytest.approx(0.006)
    assert figures.median_round_trip_s == pytest.approx(0.001)
    assert (figures.lost, figures.connection_lost) == (0, False)


def test_sql_probe_that_lost_its_connection() -> None:
    """The question that was under way is lost, and the silence after it is a gap."""
    figures = probe_figures(sql_record(result(lost=True), target="db"), Window(10.1, 12.0))
    assert (figures.lost, figures.connection_lost) == (1, True)
    assert figures.longest_gap.seconds == pytest.approx(1.4)


def test_sql_probe_that_was_killed() -> None:
    """Without the end of the log the record ends with its last line, and says so."""
    assert sql_record(result(complete=False), target="db").ending is Ending.KILLED


def test_echo_request_and_reply() -> None:
    """A reply gives its full number, with and without an IP header; its checksum adds up to all ones."""
    packet = echo_request(0xBEEF, 70_000, TOKEN)
    total = sum(struct.unpack("!12H", packet))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    reply = b"\0" + packet[1:]
    assert echo_number(reply, TOKEN) == 70_000
    assert echo_number(b"\x45" + bytes(19) + reply, TOKEN) == 70_000


@pytest.mark.parametrize(
    "packet", [b"", b"\0" * 24, echo_request(1, 2, TOKEN), b"\0" + echo_request(1, 2, b"z" * 8)[1:]]
)
def test_what_is_no_reply(packet: bytes) -> None:
    """Requests, replies to others and fragments are no answers."""
    assert echo_number(packet, TOKEN) == 0
