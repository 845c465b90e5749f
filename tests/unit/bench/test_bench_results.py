"""What a run says of itself, line by line and at its end, is what its clients noted."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.dom import minidom

import pytest

from ldoms.bench.figures import Window
from ldoms.bench.log import LoadResult, Outcome, PgbenchReport, Progress, Transaction
from ldoms.bench.record import Stretch
from ldoms.bench.workloads import load_record
from ldoms.bench.workloads.commands import duration_s
from ldoms.bench.workloads.live import LiveFigures, Tail, formatted, header
from ldoms.bench.workloads.orderentry import ORDER_ENTRY
from ldoms.bench.workloads.results_xml import results_xml, run_time
from ldoms.bench.workloads.running import read_run
from ldoms.bench.workloads.summary import (
    RunSummary,
    busiest_minute,
    by_kind,
    by_second,
    counted_window,
    printed,
    responses,
)
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import RequestError


def transaction(at: float, kind: str = "OP", ms: float = 10.0, outcome: Outcome = Outcome.ACKNOWLEDGED) -> Transaction:
    return Transaction(0, 1, kind, at, ms / 1000, outcome=outcome)


def test_header_is_charbench_s() -> None:
    """The columns of SwingBench's charbench with -v tpm,tps,users,resp,vresp."""
    swingbench = "Time     TPM      TPS     Users       Response NCR   UCD   BP    OP    PO    BO    SQ    WQ    WA"
    assert header([kind.short for kind in ORDER_ENTRY.kinds]) == swingbench


def test_a_line_of_charbench() -> None:
    """Numbers stand below their headings, as in a published line."""
    figures = LiveFigures(["NCR", "UCD", "BP"], 10, has_pauses=False)
    news = [transaction(1.0, "NCR", 5.0), transaction(1.0, "BP", 1.6), transaction(1.0, "BP", 2.4)]
    line = figures.line(Progress(1.0, 317.0, 0.033), news, aborted=1)
    assert formatted(line, "12:50:46") == "12:50:46 317      317     [9/10]      33       5     0     2"


def test_tpm_is_a_rolling_minute() -> None:
    """It climbs for a minute, and then forgets what is older; a kind keeps the mean that it had last."""
    figures = LiveFigures(["OP"], 10, has_pauses=False)
    figures.line(Progress(1.0, 1000.0, 0.001), [transaction(1.0, "OP", 7.0)], 0)
    lines = [figures.line(Progress(1.0 + second, 10.0, 0.002), [], 0) for second in range(1, 61)]
    assert [lines[0].tpm, lines[58].tpm, lines[59].tpm] == [1010, 1590, 600]
    assert lines[59].by_kind_ms == {"OP": 7.0}
    stalled = figures.line(Progress(62.0, 0.0, 0.0), [], 0)
    assert (stalled.tps, stalled.response_ms) == (0, 0.0)


def test_response_without_the_pauses() -> None:
    """Where clients sleep in their scripts, the mean comes from the log, from which the sleep was taken."""
    figures = LiveFigures(["OP"], 10, has_pauses=True)
    assert figures.line(Progress(1.0, 10.0, 0.350), [transaction(1.0, "OP", 4.0)], 0).response_ms == 4.0


def test_tail_reads_each_line_once(tmp_path: Path) -> None:
    """Also when a block ends in the middle of a line."""
    log, errors = tmp_path / "transactions.1", tmp_path / "pgbench.err"
    tail = Tail(["NCR", "OP"])
    log.write_text("0 1 797 1 1795422179 96158\n1 1 211")
    assert [one.kind for one in tail.transactions([log])] == ["OP"]
    with log.open("a") as more:
        more.write("78 0 1795422179 122810\n")
    assert [(one.kind, one.latency_s) for one in tail.transactions([log])] == [("NCR", 0.021178)]
    errors.write_text(
        "progress: 1.0 s, 96.0 tps, lat 4.1 ms stddev 1.0, 0 failed\npgbench: error: client 3 aborted in command 4 "
        "(SQL) of script 0; perhaps the backend died while processing\nprogress: 2.0 s, 9"
    )
    assert [one.tps for one in tail.reports(errors)] == [96.0]
    assert tail.aborted == 1
    assert tail.reports(errors) == ()


def test_figures_of_a_window() -> None:
    """Warm-up and failures do not count as transactions; seconds are counted from the begin."""
    everything = [
        transaction(100.01, "NCR"),
        transaction(102.5, "OP", 20),
        transaction(102.9, "OP", 40),
        transaction(103.2, "OP", outcome=Outcome.FAILED),
        transaction(105.1, "BP", 5),
    ]
    window = counted_window(everything, 2.0)
    assert (window.begin, window.end) == pytest.approx((102.0, 105.1), abs=1e-5)
    orders, products = by_kind(everything, window, ORDER_ENTRY.kinds, {"OP": 40, "BP": 50})[::-1]
    assert (orders.short, orders.transactions, orders.failed, orders.responses and orders.responses.mean_ms) == (
        "OP",
        2,
        1,
        30.0,
    )
    assert (products.short, products.transactions) == ("BP", 1)
    seconds = by_second(everything, window)
    assert [(one.transactions, one.tpm, one.max_ms) for one in seconds] == [(2, 2, 40.0), (0, 2, None), (0, 2, None)]
    assert counted_window([], 5).seconds == 0
    assert by_second([], Window(0, 0)) == ()
    assert responses([]) is None


def test_busiest_minute() -> None:
    """Sixty seconds anywhere, not those of a clock."""
    times = [0, 30, 59, 61, 70, 89.9, 200]
    assert busiest_minute([transaction(at) for at in times]) == 5
    assert busiest_minute([]) == 0


@pytest.fixture
def summary() -> RunSummary:
    everything = [transaction(100 + number / 50, "OP" if number % 2 else "NCR", number % 100) for number in range(3000)]
    window = counted_window(everything, 0)
    return RunSummary(
        workload="orderentry",
        title="OrderEntry",
        server="host='h'",
        server_version="15.1",
        settings={"users": "4"},
        scale={"customers": 5},
        run=1001,
        began_at=window.begin,
        ended_at=window.end,
        users=4,
        think_ms={"min_ms": 0, "max_ms": 1, "intermin_ms": 2, "intermax_ms": 3},
        transactions=3000,
        failed=3,
        tps=50.0,
        max_tpm=2999,
        connections_lost=0,
        clients_aborted=0,
        messages=(),
        is_complete=True,
        interrupted=False,
        generator_percent={"pgbench": 2.0, "monitor": 0.5},
        responses=responses(everything),
        kinds=by_kind(everything, window, ORDER_ENTRY.kinds, {"NCR": 1, "OP": 1, "BP": 1}),
        seconds=by_second(everything, window),
        script_kinds=("NCR", "OP", "BP"),
    )


def test_xml_is_what_a_program_of_swingbench_s_author_reads(summary: RunSummary) -> None:
    """As it takes the rate, the highest rate, and the mean of each transaction by its id."""
    document = minidom.parseString(results_xml(summary))

    def text(parent: minidom.Document | minidom.Element, name: str) -> str:
        return str(parent.getElementsByTagName(name)[0].firstChild.data)  # type: ignore[union-attr]

    assert text(document, "AverageTransactionsPerSecond") == "50.00"
    assert text(document, "MaximumTransactionRate") == "2999"
    results = {
        one.attributes["id"].value: text(one, "AverageResponse") for one in document.getElementsByTagName("Result")
    }
    assert results == {"Customer Registration": "49.000", "Browse Products": "0", "Order Products": "50.000"}


def test_xml_is_what_a_program_reads_that_goes_line_by_line(summary: RunSummary) -> None:
    """One element on each line, whole numbers where it wants them, and the count after the times."""
    found: dict[str, list[str]] = {}
    order = []
    for line in results_xml(summary).decode().splitlines():
        for name, pattern in (
            ("TotalCompletedTransactions", r"(\d+)"),
            ("TotalFailedTransactions", r"(\d+)"),
            ("TotalRunTime", r"([\d:]+)"),
            ("CommitStatements", r"(\d+)"),
            ("RollbackStatements", r"(\d+)"),
            ("AverageResponse", r"([\d\.]+)"),
            ("MinimumResponse", r"([\d\.]+)"),
            ("MaximumResponse", r"([\d\.]+)"),
            ("TransactionCount", r"(\d+)"),
        ):
            if f"<{name}>" in line:
                matched = re.search(f"<{name}>{pattern}</{name}>", line)
                assert matched, line
                found.setdefault(name, []).append(matched[1])
                order.append(name)
    assert found["TotalCompletedTransactions"] == ["3000"]
    assert found["TotalFailedTransactions"] == ["3"]
    assert found["TotalRunTime"] == ["0:01:00"]
    assert found["TransactionCount"] == ["1500", "0", "1500"]
    assert order[-4:] == ["AverageResponse", "MinimumResponse", "MaximumResponse", "TransactionCount"]


def test_run_time() -> None:
    """Hours, minutes and seconds, as SwingBench writes them."""
    assert [run_time(seconds) for seconds in (0.4, 59.6, 3725)] == ["0:00:00", "0:01:00", "1:02:05"]


def test_summary_for_people(summary: RunSummary) -> None:
    """Everything of it is in the lines, and a kind without a transaction has no times."""
    lines = printed(summary)
    assert lines[0].startswith("3,000 transactions in 60.0 s: 50.0 TPS, at most 2,999 in a minute; 3 failed")
    assert any(line.startswith("BP   Browse Products") and line.endswith("-") for line in lines)
    assert lines[-1] == "Load generator: 2.5 % of one core (pgbench 2.0, this program 0.5)"


def test_run_is_read_back(summary: RunSummary, tmp_path: Path) -> None:
    """The results file is the summary, and the clients' logs are beside it."""
    assert from_wire(RunSummary, json.loads(json.dumps(to_wire(summary)))) == summary
    with pytest.raises(RequestError, match="no run of a workload"):
        read_run(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(RequestError, match="not the result of a workload"):
        read_run(tmp_path)
    think = {"min_ms": 0, "max_ms": 0, "intermin_ms": 1000, "intermax_ms": 1000}
    (tmp_path / "results.json").write_text(json.dumps(to_wire(replace(summary, think_ms=think))))
    load = tmp_path / "load"
    load.mkdir()
    (load / "transactions.7").write_text("0 1 1005000 1 1795422179 96158\n")
    (load / "pgbench.out").write_text("number of transactions actually processed: 1\n")
    (load / "pgbench.err").write_text("")
    read, result = read_run(tmp_path)
    assert read.run == 1001
    assert result.is_complete
    assert [(one.kind, round(one.latency_s, 6)) for one in result.transactions] == [("OP", 0.005)]


def test_load_of_a_measured_migration() -> None:
    """Figures in all and by kind for each stretch; what did not run has none."""
    everything = (
        transaction(1.0, "OP", 10),
        transaction(1.5, "BP", 20),
        transaction(5.0, "OP", 30),
        transaction(5.1, "OP", outcome=Outcome.FAILED),
    )
    result = LoadResult(everything, PgbenchReport(3, lost_clients=(2,)), is_complete=True)
    stretches = {Stretch.BEFORE: Window(0, 4), Stretch.DURING: Window(4, 6), Stretch.AFTER: Window(6, 6)}
    record = load_record(ORDER_ENTRY, {"users": "2"}, result, stretches)
    assert (record.name, record.connections_lost) == ("orderentry", 1)
    assert {stretch: figures.transactions for stretch, figures in record.windows.items()} == {
        Stretch.BEFORE: 2,
        Stretch.DURING: 1,
    }
    products, orders = record.kinds[Stretch.DURING]
    assert (products.kind, products.transactions, products.max_s) == ("BP", 0, None)
    assert (orders.kind, orders.transactions, orders.failed, orders.mean_s) == ("OP", 1, 1, 0.03)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1:02", 3720), ("0:01.30", 90), ("0:01:30", 90)],
)
def test_durations(text: str, seconds: int) -> None:
    """Ours, and SwingBench's hh:mm.ss."""
    assert duration_s(text) == seconds
