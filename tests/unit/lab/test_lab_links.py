"""What a cut link lets through."""

from __future__ import annotations

import pytest

from ldoms.lab.links import Cut, drop_rules


@pytest.mark.parametrize(
    ("cut", "ways"),
    [
        (Cut.ALL, ["iifname p", "oifname p"]),
        (Cut.OUT, ["iifname p"]),
        (Cut.IN, ["oifname p"]),
        (Cut.NONE, []),
    ],
)
def test_a_link_is_cut_either_way_or_both(cut: Cut, ways: list[str]) -> None:
    """Seen from the switch: what a host sends comes in at its port."""
    rules = drop_rules({"p": cut}, 6482, (8101, 8199)).splitlines()
    found = [" ".join(rule.split()[5:7]) for rule in rules if rule.startswith("add rule")]
    assert found == ways
