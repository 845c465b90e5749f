"""The order of domains, and whom a failure concerns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ldoms.model.dependencies import Consequence, consequences, slaves_of, start_order, stop_order
from ldoms.model.domain import Constraints, Domain, FailurePolicy


def domain(number: int, masters: str = "", group: int = 15, policy: str = "ignore") -> Domain:
    """A domain that is called by its number: d1, d2, ..."""
    constraints = Constraints(
        masters=tuple(masters.split()), shutdown_group=group, failure_policy=FailurePolicy(policy)
    )
    return Domain(f"uuid-{number}", f"d{number}", "mac", "hostid", number, constraints)


def names(domains: tuple[Domain, ...]) -> list[str]:
    return [entry.name for entry in domains]


def test_lower_groups_are_started_first_and_stopped_last() -> None:
    """Inside a group they are started as they were made, and stopped together."""
    domains = [domain(1), domain(2, group=3), domain(3, group=3), domain(4, group=9)]
    assert names(start_order(domains)) == ["d2", "d3", "d4", "d1"]
    assert [names(group) for group in stop_order(domains)] == [["d1"], ["d4"], ["d2", "d3"]]


def test_a_master_comes_before_its_slaves_whatever_the_groups_say() -> None:
    """A dependency is stronger than a shutdown group."""
    domains = [domain(1, masters="d2", group=1), domain(2, group=9), domain(3, group=5)]
    assert names(start_order(domains)) == ["d3", "d2", "d1"]
    assert [names(group) for group in stop_order(domains)] == [["d3"], ["d1"], ["d2"]]


def test_a_master_that_is_not_among_them_is_not_waited_for() -> None:
    """It runs already, or is nobody's business now."""
    assert names(start_order([domain(1, masters="d9 primary")])) == ["d1"]
    assert [names(group) for group in stop_order([domain(1, masters="d9")])] == [["d1"]]


@st.composite
def families(draw: st.DrawFn) -> list[Domain]:
    """Domains whose masters were made before them, in any sequence."""
    made: list[Domain] = []
    for number in range(draw(st.integers(0, 7))):
        masters = (
            draw(st.lists(st.sampled_from([entry.name for entry in made]), max_size=4, unique=True)) if made else []
        )
        made.append(domain(number, " ".join(masters), draw(st.integers(0, 15))))
    return list(draw(st.permutations(made)))


@given(families())
def test_both_orders_have_everybody_once_and_respect_masters(domains: list[Domain]) -> None:
    """Whatever the groups are."""
    started = names(start_order(domains))
    assert sorted(started) == sorted(entry.name for entry in domains)
    stopped = [set(names(group)) for group in stop_order(domains)]
    assert sorted(name for group in stopped for name in group) == sorted(started)
    moment = {name: number for number, group in enumerate(stopped) for name in group}
    for entry in domains:
        for master in entry.constraints.masters:
            assert started.index(master) < started.index(entry.name)
            assert moment[entry.name] < moment[master]


def test_a_circle_of_an_old_record_does_not_hang() -> None:
    """It is refused when it is made; but records may come from elsewhere."""
    circle = [domain(1, masters="d2"), domain(2, masters="d1")]
    assert sorted(names(start_order(circle))) == ["d1", "d2"]
    assert sorted(name for group in stop_order(circle) for name in names(group)) == ["d1", "d2"]


def test_slaves_are_found_by_their_masters() -> None:
    """In the order in which they were made."""
    assert slaves_of("d1", [domain(3, masters="d1 d2"), domain(2, masters="d1"), domain(1)]) == ("d2", "d3")


def test_a_failure_concerns_slaves_by_the_policy_of_their_master() -> None:
    """And theirs by their own, as far as the policies go; each once."""
    domains = [
        domain(1, policy="reset"),
        domain(2, masters="d1", policy="stop"),
        domain(3, masters="d1"),
        domain(4, masters="d2 d3", policy="panic"),
        domain(5, masters="d3"),
        domain(6, masters="d4"),
    ]
    assert consequences("d1", domains) == (
        Consequence("d2", "d1", FailurePolicy.RESET),
        Consequence("d3", "d1", FailurePolicy.RESET),
        Consequence("d4", "d2", FailurePolicy.STOP),
        Consequence("d6", "d4", FailurePolicy.PANIC),
    )
    assert consequences("d3", domains) == ()
    assert consequences("d5", domains) == ()
    assert consequences("gone", domains) == ()
