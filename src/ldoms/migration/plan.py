"""One plan for both ends: how the memory is copied, chosen from the facts, with the reason for each choice."""

from __future__ import annotations

from ldoms.model.migration import CheckFacts, MigrationPlan, OnStall

REQUIRED = ("events", "pause-before-switchover", "return-path")
FIRST_DOWNTIME_LIMIT_S = 0.03
"""QEMU makes use of the whole allowance, so it starts small and is raised only as needed."""
UNCOUNTED_S, UNCOUNTED_SHARE = 0.1, 0.1
"""Of a suspension, what QEMU does not count: the state of devices, the hand-off, and a bandwidth that falls."""
UNCOUNTED_MOST_SHARE = 1 / 3
THROTTLE = "auto-converge"
THROTTLE_PERCENTS = (50, 70, 85, 99)
THROTTLE_SLICE_S = 0.01
"""QEMU lets a guest that is held back run for so long at a time, and then holds it for as long as the share takes."""

# GnuTLS would negotiate ChaCha20-Poly1305 for PSK, which is ten times slower where the processor has AES.
_AES = "NORMAL:-CIPHER-ALL:+AES-128-GCM:-KX-ALL:+ECDHE-PSK:+PSK"
_CHACHA = "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:-KX-ALL:+ECDHE-PSK:+PSK"


def make_plan(facts: CheckFacts) -> MigrationPlan:
    """The plan for the migration of an active domain."""
    options, reasons = facts.options, {}
    # With several connections QEMU 10.0 can hang for ever when they break: docs/adr/0019-one-connection.md
    reasons["channels"] = "one connection: with several, QEMU can hang for good when the target's ends"
    if options.encrypted:
        cipher, reasons["encryption"] = _cipher(facts)
    else:
        cipher, reasons["encryption"] = "", "none, as asked for"
    most = downtime_most_s(options.max_suspend_s)
    first = min(FIRST_DOWNTIME_LIMIT_S, most)
    throttles, reasons["stall"] = _at_a_stall(facts)
    reasons["suspension"] = (
        "for the whole copy: without KVM, QEMU does not notice all changes to memory that was added to a running guest"
        if facts.must_stand_still
        else f"QEMU may use {first * 1000:.0f} ms, and {most * 1000:.0f} ms if that does not do: it does not count all"
        f" of the {options.max_suspend_s * 1000:.0f} ms that are promised"
    )
    reasons["bandwidth"] = (
        f"limited to {options.max_bandwidth_bytes_s} bytes/s, as asked for"
        if options.max_bandwidth_bytes_s
        else "not limited"
    )
    return MigrationPlan(
        capabilities=tuple(sorted((*REQUIRED, THROTTLE))) if throttles else REQUIRED,
        channels=1,
        cipher=cipher,
        compression="none",
        max_bandwidth_bytes_s=options.max_bandwidth_bytes_s,
        downtime_limit_s=first,
        max_suspend_s=options.max_suspend_s,
        reasons=reasons,
        stands_still=facts.must_stand_still,
        downtime_most_s=most,
        max_time_s=options.max_time_s,
        on_stall=options.on_stall,
        throttle_percents=throttles,
    )


def downtime_most_s(max_suspend_s: float) -> float:
    """What QEMU may be told of a suspension that was promised, so that what it does not count has room, too."""
    uncounted_s = UNCOUNTED_S + UNCOUNTED_SHARE * max_suspend_s
    return max_suspend_s - min(uncounted_s, UNCOUNTED_MOST_SHARE * max_suspend_s)


def throttle_percents(max_suspend_s: float) -> tuple[int, ...]:
    """By how much of its CPU time a guest may be held back, step by step.

    A guest that is held back stands still again and again. The last step is the one at which it does so for half of
    what is promised.
    """
    held_s = max_suspend_s / 2
    most = min(THROTTLE_PERCENTS[-1], int(100 * held_s / (held_s + THROTTLE_SLICE_S)))
    return (*(step for step in THROTTLE_PERCENTS if step < most), most)


def _at_a_stall(facts: CheckFacts) -> tuple[tuple[int, ...], str]:
    options = facts.options
    if options.on_stall is OnStall.ABORT:
        return (), "the guest stays where it is, as asked for"
    if options.on_stall is OnStall.SUSPEND:
        return (), "the guest is suspended for as long as the rest takes, as asked for"
    if facts.must_stand_still:
        return (), "the guest stays where it is: it stands still anyway"
    hosts = (facts.source, facts.target.host)
    lacking = [host.name for host in hosts if THROTTLE not in host.hypervisor.migration_capabilities]
    if lacking:
        return (), f"the guest stays where it is: the QEMU of {' and of '.join(lacking)} cannot hold it back"
    steps = throttle_percents(options.max_suspend_s)
    return steps, (
        f"the guest is held back by {', '.join(str(step) for step in steps)} % of its CPU time, and stays where it is"
        " if that does not do"
    )


def _cipher(facts: CheckFacts) -> tuple[str, str]:
    if "aes" in facts.source.cpu_flags and "aes" in facts.target.host.cpu_flags:
        return _AES, "AES-128-GCM, as both processors have AES instructions"
    return _CHACHA, "ChaCha20-Poly1305, as not both processors have AES instructions"
