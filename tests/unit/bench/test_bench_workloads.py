"""Scripts fit the functions of their workload, mixes are those that are documented, and think times can be undone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ldoms.bench.log import parse_log
from ldoms.bench.workloads import WORKLOADS, ThinkTimes, default_weights, find_workload
from ldoms.bench.workloads.orderentry import ORDER_ENTRY
from ldoms.bench.workloads.stored import StoredWorkload
from ldoms.bench.workloads.thinking import hash_murmur2
from ldoms.model.errors import RequestError

each_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)


def bodies(workload: StoredWorkload) -> dict[str, str]:
    """The text of each function by its name."""
    text = (workload.directory / "functions.sql").read_text()
    return {part.partition("(")[0]: part for part in text.split(f"create function {workload.schema}.")[1:]}


def test_mix_of_orderentry_is_swingbench_s() -> None:
    """The weights are shares of 125, and the three queries are there, but off."""
    assert default_weights(ORDER_ENTRY) == {"NCR": 15, "UCD": 10, "BP": 50, "OP": 40, "PO": 5, "BO": 5}
    assert {kind.short: kind.weight for kind in ORDER_ENTRY.kinds if not kind.is_on} == {"SQ": 2, "WQ": 2, "WA": 2}


@each_workload
def test_names_are_told_apart(workload: StoredWorkload) -> None:
    """Short names, titles and functions of a workload are all different, and it is found by its name."""
    for names in ({kind.short for kind in workload.kinds}, {kind.title for kind in workload.kinds}):
        assert len(names) == len(workload.kinds)
    assert {kind.function for kind in workload.kinds} <= set(bodies(workload))
    assert find_workload(workload.name.upper()) is workload


@each_workload
def test_each_script_counts_on_before_its_one_statement(workload: StoredWorkload) -> None:
    """The number in the ledger agrees with pgbench's only if each script counts once and sends one statement."""
    everything = {kind.short: 1 for kind in workload.kinds}
    for script in workload.scripts(everything, ThinkTimes(1, 2, 3, 4)):
        lines = script.text.splitlines()
        assert lines[0] == "\\set seq :seq + 1"
        assert [line for line in lines if not line.startswith("\\")] == [lines[-1]]
        assert sum("\\set seq " in line for line in lines) == 1
        used = set(re.findall(r":(\w+)", lines[-1]))
        assert used <= {"run", "client_id", *re.findall(r"\\set (\w+)", script.text)}


@each_workload
def test_each_function_writes_one_row_of_its_own_kind(workload: StoredWorkload) -> None:
    """Every function of a workload with a ledger inserts into it once, with its own kind; others change nothing."""
    for kind in workload.kinds:
        body = bodies(workload)[kind.function]
        rows = re.findall(rf"insert into {workload.schema}\.ledger .*?'(\w+)'", body, re.DOTALL)
        assert rows == ([kind.short] if workload.has_ledger else []), kind
        if not workload.has_ledger:
            assert not re.search(r"\b(insert|update|delete)\b", body), kind


def test_kind_without_weight_is_left_out() -> None:
    """A mix may have some of the kinds only, but not none, and no others."""
    assert [script.kind for script in ORDER_ENTRY.scripts({"OP": 1, "BP": 0})] == ["OP"]
    with pytest.raises(RequestError, match="no transaction of OrderEntry is on"):
        ORDER_ENTRY.scripts({"OP": 0})
    with pytest.raises(RequestError, match="no transaction XX, only NCR, UCD"):
        ORDER_ENTRY.scripts({"OP": 1, "XX": 2})


def test_unknown_workload() -> None:
    """The message has the names of those there are."""
    with pytest.raises(RequestError, match="no workload 'oe': there are orderentry"):
        find_workload("oe")


def test_sizes() -> None:
    """A size that is not given is the default; one of another workload, or out of range, is refused."""
    assert ORDER_ENTRY.sizes({"customers": 7}) == {"customers": 7, "warehouses": 100}
    assert ORDER_ENTRY.scaled(0.0001) == {"customers": 1, "warehouses": 1}
    assert ORDER_ENTRY.scaled(100) == {"customers": 500_000, "warehouses": 1_000}
    with pytest.raises(RequestError, match="warehouses of OrderEntry must be from 1 to 1,000, not 1,001"):
        ORDER_ENTRY.sizes({"warehouses": 1001})
    with pytest.raises(RequestError, match="no size 'sales', only customers, warehouses"):
        ORDER_ENTRY.sizes({"sales": 1})


@pytest.mark.parametrize(
    ("value", "hashed"),
    [
        (0, 8217090173679840641),
        (1, -8089716718896805586),
        (42, -3251795447530343920),
        (-7, -2376560325806870531),
        (49_000_270, -463822683146360776),
        (2**40 + 5, -3763096966728530554),
    ],
)
def test_hash_is_pgbench_s(value: int, hashed: int) -> None:
    """Values that pgbench 15 gave for ``debug(hash_murmur2(value, 0))``."""
    assert hash_murmur2(value) == hashed


def test_think_time_is_taken_out_of_the_time_measured() -> None:
    """What a client slept before its transaction is no part of what it waited for the answer."""
    think = ThinkTimes(intermin_ms=100, intermax_ms=200)
    slept = [think.pause_s(client, seq) for client in range(50) for seq in range(1, 200)]
    assert 0.1 <= min(slept) < 0.101
    assert 0.199 < max(slept) <= 0.2
    assert 0.149 < sum(slept) / len(slept) < 0.151
    took_us = round(think.pause_s(3, 7) * 1e6) + 5000
    (one,) = parse_log(f"3 7 {took_us} 0 1795422179 96158\n", ["BP"], think.pause_s)
    assert one.latency_s == pytest.approx(0.005)


@pytest.mark.parametrize("wrong", [(-1, 0), (5, 4), (0, 3_600_001)])
def test_think_times_out_of_order(wrong: tuple[int, int]) -> None:
    """Least and most must be ascending, and of a size that a person can mean."""
    with pytest.raises(RequestError, match="think times min and max"):
        ThinkTimes(*wrong)
    with pytest.raises(RequestError, match="think times intermin and intermax"):
        ThinkTimes(0, 0, *wrong)


def test_reference_has_every_transaction_size_and_check() -> None:
    """The page of the reference says what the code says, row by row."""
    page = (Path(__file__).parents[3] / "docs/reference/workloads.md").read_text()
    for workload in WORKLOADS:
        section = page.split(f"### {workload.name}\n")[1].split("\n## ")[0].split("\n### ")[0]
        documented = re.findall(r"\| `(\w+)` \| ([^|]+) \| (\d+) \| (yes|no) \|", section)
        assert documented == [
            (kind.short, kind.title, str(kind.weight), "yes" if kind.is_on else "no") for kind in workload.kinds
        ]
        sizes = re.findall(rf"\| `{workload.name}` \| `(\w+)` \| ([\d,]+) \| ([\d,]*) ?\|", page)
        assert sizes == [
            (name, f"{value:,}", f"{workload.most[name]:,}" if name in workload.most else "")
            for name, value in workload.scales.items()
        ]
        checks = re.findall(rf"\| `{workload.name}` \| ([^`|]+) \| [^|]+ \|\n", page)
        assert [name for cell in checks for name in cell.split(", ")] == [check.name for check in workload.checks]
