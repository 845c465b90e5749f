"""A mix is what its file and its options say, and whoever writes something else is told what was wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldoms.bench.workloads.mix import Mix, mixed_weights, read_mix
from ldoms.bench.workloads.orderentry import ORDER_ENTRY
from ldoms.model.errors import RequestError

SWINGBENCH = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<SwingBenchConfiguration xmlns="http://www.dominicgiles.com/swingbench/config">
  <Load>
    <NumberOfUsers>16</NumberOfUsers>
    <MinDelay>0</MinDelay><MaxDelay>10</MaxDelay>
    <InterMinDelay>200</InterMinDelay><InterMaxDelay>500</InterMaxDelay>
    <TransactionList>
      <Transaction><Id>Customer Registration</Id><ShortName>NCR</ShortName><Weight>15</Weight><Enabled>false</Enabled>
      </Transaction>
      <Transaction><Id>Order Products</Id><ShortName>OP</ShortName><Weight>99</Weight><Enabled>true</Enabled>
      </Transaction>
    </TransactionList>
  </Load>
</SwingBenchConfiguration>
"""


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mix"
    path.write_text(text)
    return path


def test_toml(tmp_path: Path) -> None:
    """Weights change what they name, think times have SwingBench's names."""
    mix = read_mix(file(tmp_path, "users = 8\n[weights]\nop = 7\nSQ = 3\n[think]\nmax = 5\nintermin = 9\n"))
    assert mix == Mix({"op": 7, "SQ": 3}, {"max_ms": 5, "intermin_ms": 9}, 8)
    assert mixed_weights(ORDER_ENTRY, mix, {}) == {
        "NCR": 15,
        "UCD": 10,
        "BP": 50,
        "OP": 7,
        "PO": 5,
        "BO": 5,
        "SQ": 3,
    }


def test_configuration_of_swingbench(tmp_path: Path) -> None:
    """Its transactions, users and delays are read; what is not enabled is off."""
    mix = read_mix(file(tmp_path, SWINGBENCH))
    think = {"min_ms": 0, "max_ms": 10, "intermin_ms": 200, "intermax_ms": 500}
    assert mix == Mix({"NCR": 0, "OP": 99}, think, 16)
    assert "NCR" not in mixed_weights(ORDER_ENTRY, mix, {})


def test_options_have_the_last_word() -> None:
    """A weight of the command line, then what it enables, then what it disables."""
    mix = Mix({"BP": 0, "OP": 9})
    weights = mixed_weights(ORDER_ENTRY, mix, {"po": 77}, enable=["sq", "BP", "OP"], disable=["NCR", "ucd", "BO"])
    assert weights == {"BP": 50, "OP": 9, "PO": 77, "SQ": 2}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[weights]\nOP = 'much'\n", "'OP' in .weights. is 'much', not a whole number"),
        ("[weights]\nOP = true\n", "not a whole number"),
        ("weights = 5\n", "'weights' is not a table"),
        ("[weight]\nOP = 5\n", "'weight' is not one of weights, think, users"),
        ("[think]\nmaximum = 5\n", "'maximum' in .think. is not one of min, max, intermin, intermax"),
        ("users = 'all'\n", "users is 'all', not a number"),
        ("weights]\n", "is no mix of transactions"),
        ("<a><b/></a>", "it has no <Transaction>"),
        ("<a><Transaction/></a>", "has no <ShortName>"),
        ("<a><Transaction><ShortName>OP</ShortName><Weight>x</Weight></Transaction></a>", "<Weight> is 'x'"),
        ("<a>", "is no mix of transactions"),
        ('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>', "it has no <Transaction>"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, why: str) -> None:
    """The message names the file and what was wrong with it."""
    with pytest.raises(RequestError, match=why) as caught:
        read_mix(file(tmp_path, text))
    assert caught.value.code == "bad-mix"
    assert str(tmp_path) in caught.value.message


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(RequestError, match="No such file"):
        read_mix(tmp_path / "mix")


def test_bad_names_and_weights() -> None:
    """A short name that there is not, a weight out of range, and a mix of nothing."""
    with pytest.raises(RequestError, match="OrderEntry has no transaction XX, only NCR, UCD"):
        mixed_weights(ORDER_ENTRY, Mix(), {}, disable=["XX"])
    with pytest.raises(RequestError, match="the weight of OP must be from 0"):
        mixed_weights(ORDER_ENTRY, Mix({"OP": -1}), {})
    with pytest.raises(RequestError, match="no transaction of OrderEntry is on"):
        mixed_weights(ORDER_ENTRY, Mix(), {}, disable=["NCR", "UCD", "BP", "OP", "PO", "BO"])
