"""One plan for both ends, each choice with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ldoms.migration.plan import SLOW_LINK_BYTES_S, changed_plan, make_plan
from ldoms.model.forecast import LinkSource, LinkSpeed
from ldoms.model.migration import LimitChanges, OnStall
from ldoms.model.tuning import TUNABLE, Tuning
from unit.checks.test_rules import (
    Facts,
    copying,
    good,
    grown,
    options,
    our_qemu,
    ring,
    source,
    target_host,
    target_qemu,
    together,
    tuned,
)


def test_encrypted_on_one_connection() -> None:
    """The usual plan: AES where both processors have it, and a guest that stops only for the last part."""
    plan = make_plan(good())
    assert plan.capabilities == ("auto-converge", "events", "pause-before-switchover", "return-path")
    assert (plan.channels, plan.compression, plan.max_bandwidth_bytes_s) == (1, "none", 0)
    assert "AES-128-GCM" in plan.cipher
    assert (plan.downtime_limit_s, plan.max_suspend_s) == (0.01, 0.3)
    assert plan.downtime_most_s == pytest.approx(0.2)
    assert (plan.zero_pages, plan.xbzrle_cache_bytes, plan.dirty_limit_bytes_s) == ("", 0, 0)
    assert plan.switchover_bandwidth_bytes_s == 0
    assert set(plan.reasons) == {*TUNABLE, "encryption", "suspension", "bandwidth", "stall"} - {"throttle"}
    assert all(plan.reasons.values())


@pytest.mark.parametrize(
    ("change", "cipher", "choice", "words"),
    [
        (options(encrypted=False), "", "encryption", "none, as asked for"),
        (target_host(cpu_flags=()), "CHACHA20-POLY1305", "encryption", "not both processors have AES"),
        (source(cpu_flags=()), "CHACHA20-POLY1305", "encryption", "not both processors have AES"),
        (options(max_bandwidth_bytes_s=1 << 20), "AES", "bandwidth", "limited to 1048576 bytes/s"),
    ],
)
def test_every_choice_follows_from_the_facts(change: Facts, cipher: str, choice: str, words: str) -> None:
    """Of both hosts, and of what was asked for."""
    plan = make_plan(change(good()))
    assert cipher in plan.cipher
    assert plan.encrypted == bool(cipher)
    assert words in plan.reasons[choice]


def test_a_guest_with_added_memory_stands_still_for_the_whole_copy() -> None:
    """Without KVM, where changes to that memory go unnoticed; with it the copy is like any other."""
    plan = make_plan(grown(512)(good()))
    assert plan.stands_still
    assert "for the whole copy" in plan.reasons["suspension"]
    assert not make_plan(grown(512, "kvm")(good())).stands_still


def test_a_short_promise_is_not_tried_with_more() -> None:
    """10 ms were promised: QEMU is never told more than leaves room for what it does not count."""
    plan = make_plan(options(max_suspend_s=0.01)(good()))
    assert plan.max_suspend_s == 0.01
    assert plan.downtime_limit_s == plan.downtime_most_s == pytest.approx(0.01 * 2 / 3)


@pytest.mark.parametrize(
    ("change", "percents", "words"),
    [
        (options(), (50, 70, 85, 90), "held back by 50, 70, 85, 90 % of its CPU time, and stays where it is if"),
        (options(max_suspend_s=0.02), (40,), "held back by 40 %"),
        (options(on_stall=OnStall.ABORT), (), "the guest stays where it is, as asked for"),
        (options(on_stall=OnStall.SUSPEND), (), "suspended for as long as the rest takes, as asked for"),
        (options(on_stall=OnStall.POSTCOPY), (), "goes over all the same, as asked for, and fetches the rest"),
        (grown(512), (), "it stands still anyway"),
    ],
)
def test_what_is_done_at_a_stall(change: Facts, percents: tuple[int, ...], words: str) -> None:
    """As asked for; QEMU is made ready for it before it starts."""
    plan = make_plan(change(good()))
    assert plan.throttle_percents == percents
    assert ("auto-converge" in plan.capabilities) == bool(percents)
    assert plan.may_postcopy == (plan.on_stall is OnStall.POSTCOPY)
    assert words in plan.reasons["stall"]


def test_a_qemu_that_cannot_hold_a_guest_back_is_not_asked_to() -> None:
    """Its host is named."""
    facts = good()
    old = replace(facts.target.host.hypervisor, migration_capabilities=("events",))
    plan = make_plan(target_host(hypervisor=old)(facts))
    assert plan.throttle_percents == ()
    assert f"the QEMU of {facts.target.host.name} cannot hold it back" in plan.reasons["stall"]


@pytest.mark.parametrize(
    ("change", "field", "value", "capability", "choice"),
    [
        (tuned("channels=2"), "channels", 2, "multifd", "channels"),
        (tuned("compression=zlib"), "compression", "zlib", "multifd", "compression"),
        (tuned("zero-pages=none"), "zero_pages", "none", "", "zero-pages"),
        (tuned("xbzrle=64M"), "xbzrle_cache_bytes", 64 << 20, "xbzrle", "xbzrle"),
        (tuned("throttle=30:60"), "throttle_percents", (30, 60), "", "stall"),
        (tuned("switchover-bandwidth=1G"), "switchover_bandwidth_bytes_s", 1 << 30, "", "switchover-bandwidth"),
    ],
)
def test_what_is_set_by_hand_is_kept(change: Facts, field: str, value: object, capability: str, choice: str) -> None:
    """With the capability of QEMU that it needs, and no other; the reason says who has chosen."""
    usual, plan = make_plan(good()), make_plan(change(good()))
    assert getattr(plan, field) == value
    assert set(plan.capabilities) - set(usual.capabilities) == {capability} - {""}
    assert "set by hand" in plan.reasons[choice]


def test_no_dirty_limit_without_a_reason() -> None:
    """Where it cannot be had, the plan says what it lacks; where it can, that it has not been measured."""
    assert "dirty ring, on t4-1" in make_plan(good()).reasons["dirty-limit"]
    assert "not been measured" in make_plan(ring(good())).reasons["dirty-limit"]


def test_a_guest_with_a_dirty_limit_is_not_held_back_otherwise() -> None:
    """QEMU does one of them."""
    plan = make_plan(together(ring, tuned("dirty-limit=9M"))(good()))
    assert (plan.dirty_limit_bytes_s, plan.throttle_percents) == (9 << 20, ())
    assert "dirty-limit" in plan.capabilities
    assert "auto-converge" not in plan.capabilities
    assert "the dirty limit, which was set by hand, holds it back" in plan.reasons["stall"]


def test_a_throttle_that_was_switched_off_is_none() -> None:
    """The guest stays where it is."""
    plan = make_plan(tuned("throttle=off")(good()))
    assert plan.throttle_percents == ()
    assert "set by hand" in plan.reasons["stall"]


def test_what_is_changed_on_the_way_is_changed_alone() -> None:
    """Capabilities and what QEMU takes only before it starts stay; what follows from a limit follows."""
    plan = make_plan(good())
    assert changed_plan(plan, LimitChanges(), Tuning()) == plan
    slow = changed_plan(plan, LimitChanges(max_bandwidth_bytes_s=1000), Tuning())
    assert slow == replace(plan, max_bandwidth_bytes_s=1000, reasons=slow.reasons)
    assert slow.reasons["bandwidth"] == "limited to 1000 bytes/s, as asked for, since it was changed on the way"
    short = changed_plan(plan, LimitChanges(max_suspend_s=0.02, max_time_s=60.0), Tuning())
    fresh = make_plan(options(max_suspend_s=0.02, max_time_s=60.0)(good()))
    assert short == replace(fresh, reasons=short.reasons)
    by_hand = changed_plan(plan, LimitChanges(max_suspend_s=0.02), Tuning(throttle_percents=(50, 70, 85, 93)))
    assert by_hand.throttle_percents == plan.throttle_percents


def link(bytes_s: float, cpus: float = 2.0) -> Facts:
    """What the way of the memory carries, as was measured before."""
    known = LinkSpeed(bytes_s, 0.2, LinkSource.HISTORY)
    return lambda facts: replace(facts, link=known, source_control_cpus=cpus)


SLOW, FAST = link(24e6), link(110e6)


@pytest.mark.parametrize(
    ("change", "chosen", "words"),
    [
        (SLOW, "zstd", "zstd: the link carries 24 MB/s"),
        (link(SLOW_LINK_BYTES_S), "zstd", "the link carries 64 MB/s"),
        (FAST, "none", "none: the link carries 110 MB/s"),
        (options(), "none", "will be known after a dry run"),
        (together(SLOW, tuned("compression=none")), "none", "set by hand"),
        (together(FAST, tuned("compression=zlib")), "zlib", "set by hand"),
        (together(SLOW, our_qemu(compressions=("none",))), "none", "the QEMU of t4-1 has no zstd"),
        (together(SLOW, target_qemu(migration_capabilities=("events",))), "none", "the QEMU of t4-2 has no zstd"),
        (together(SLOW, tuned("xbzrle=64M")), "none", "xbzrle, which was set by hand"),
        (together(SLOW, options(on_stall=OnStall.POSTCOPY)), "none", "--on-stall=postcopy excludes it"),
        (together(SLOW, copying()), "none", "not measured with disks"),
        (together(SLOW, grown(512)), "none", "stands still"),
        (link(24e6, cpus=0.5), "none", "primary has less than 1 CPU"),
    ],
)
def test_compression_is_for_slow_links(change: Facts, chosen: str, words: str) -> None:
    """Where the link is known to be slow, and nothing else is in the way; on one connection, as ever."""
    plan = make_plan(change(good()))
    assert plan.compression == chosen
    assert words in plan.reasons["compression"]
    assert ("multifd" in plan.capabilities) == (chosen != "none")
    assert plan.channels == 1
