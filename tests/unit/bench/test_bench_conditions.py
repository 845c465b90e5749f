"""What is told of the machine with every figure."""

from __future__ import annotations

from ldoms.bench.conditions import conditions, processor


def test_the_processor_is_named() -> None:
    """Once, however many there are."""
    assert processor("processor\t: 0\nmodel name\t: Any CPU: fast\n\nmodel name\t: other\n") == "Any CPU: fast"
    assert processor("processor\t: 0\n") == "unknown"


def test_the_load_of_the_machine_belongs_to_it() -> None:
    """Three averages."""
    told = conditions()
    assert len(told["load"]) == 3
    assert told["cpus"] >= 1
