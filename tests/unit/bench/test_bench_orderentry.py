"""OrderEntry's scripts fit its functions, and its mix is SwingBench's."""

from __future__ import annotations

import re
from pathlib import Path

from ldoms.bench import orderentry
from ldoms.bench.orderentry import FUNCTIONS, WEIGHTS, Kind

FUNCTIONS_SQL = Path(orderentry.__file__).with_name("functions.sql").read_text()


def test_mix_is_swingbench_s() -> None:
    """Every kind has a function and its weight; the weights are shares of 125."""
    assert set(FUNCTIONS) == set(WEIGHTS) == set(Kind)
    assert sum(WEIGHTS.values()) == 125
    assert [(script.kind, script.weight) for script in orderentry.scripts()] == [
        ("NCR", 15),
        ("UCD", 10),
        ("BP", 50),
        ("OP", 40),
        ("PO", 5),
        ("BO", 5),
    ]


def test_kind_without_weight_is_left_out() -> None:
    """A mix may have some of the kinds only."""
    assert [script.kind for script in orderentry.scripts({Kind.OP: 1, Kind.BP: 0})] == ["OP"]


def test_each_script_counts_on_before_its_one_statement() -> None:
    """The number in the ledger agrees with pgbench's only if each script counts once and sends one statement."""
    for script in orderentry.scripts():
        lines = script.text.splitlines()
        assert lines[0] == "\\set seq :seq + 1"
        assert [line for line in lines if not line.startswith("\\set")] == [lines[-1]]
        assert sum("\\set seq " in line for line in lines) == 1


def test_each_function_writes_one_row_of_its_own_kind() -> None:
    """Every function inserts into the ledger once, with its own kind."""
    bodies = {text.partition("(")[0]: text for text in FUNCTIONS_SQL.split("create function oe.")[1:]}
    for kind, function in FUNCTIONS.items():
        rows = re.findall(r"insert into oe\.ledger .*?'(\w+)'\)", bodies[function])
        assert rows == [kind.value], function
