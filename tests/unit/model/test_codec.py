"""Values to JSON data and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldoms.model.codec import from_wire, to_wire
from ldoms.model.domain import Bindings, Domain
from ldoms.model.migration import MigrationRecord, MigrationReport, Outcome, TargetStatus
from ldoms.model.services import Services

KINDS = (Domain, Services, MigrationReport, MigrationRecord, TargetStatus)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_value_comes_back_the_same(kind: type[Any]) -> None:
    """Through the text of JSON, whatever is in it."""

    @settings(max_examples=40, deadline=None)
    @given(st.from_type(kind))
    def comes_back(value: Any) -> None:
        text = json.dumps(to_wire(value))
        again = from_wire(kind, json.loads(text))
        assert type(again) is kind
        assert json.dumps(to_wire(again)) == text

    comes_back()


def test_what_a_newer_version_added_is_left_out() -> None:
    """And what an older one did not know gets its default: hosts are upgraded one after the other."""
    status = from_wire(TargetStatus, {"state": "owner", "verdict": "taken", "colour": "blue"})
    assert status == TargetStatus(state=status.state, verdict=status.verdict)
    assert status.resumed_at == 0.0


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Bindings, {"vcpus": 5, "memory": []}),
        (Bindings, {"memory": []}),
        (TargetStatus, {"state": "landlord"}),
        (Domain, []),
        (Domain, None),
        (Outcome, "lost"),
        (tuple[int, ...], ["a"]),
        (tuple[str, ...], "abc"),
        (tuple[str, str], "ab"),
        (tuple[str, ...], {"a": 1}),
    ],
)
def test_another_shape_is_a_value_error(kind: Any, data: Any) -> None:
    """Never anything else, whatever somebody sends."""
    with pytest.raises(ValueError, match=r"."):
        from_wire(kind, data)
