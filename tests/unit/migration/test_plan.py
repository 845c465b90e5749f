"""One plan for both ends, each choice with its reason."""

from __future__ import annotations

import pytest

from ldoms.migration.plan import make_plan
from unit.checks.test_rules import Facts, good, grown, options, source, target_host


def test_encrypted_on_one_connection() -> None:
    """The usual plan: AES where both processors have it, and a guest that stops only for the last part."""
    plan = make_plan(good())
    assert plan.capabilities == ("events", "pause-before-switchover", "return-path")
    assert (plan.channels, plan.compression, plan.max_bandwidth_bytes_s) == (1, "none", 0)
    assert "AES-128-GCM" in plan.cipher
    assert (plan.downtime_limit_s, plan.max_suspend_s) == (0.03, 0.3)
    assert set(plan.reasons) == {"encryption", "channels", "suspension", "bandwidth"}
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
    """10 ms were promised: QEMU is never told more."""
    plan = make_plan(options(max_suspend_s=0.01)(good()))
    assert (plan.downtime_limit_s, plan.max_suspend_s) == (0.01, 0.01)
