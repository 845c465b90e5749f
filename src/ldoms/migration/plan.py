"""One plan for both ends: how the memory is copied, chosen from the facts, with the reason for each choice."""

from __future__ import annotations

from dataclasses import replace

from ldoms.checks.storage import copies
from ldoms.migration.convergence import THROTTLE_SLICE_S
from ldoms.model.migration import POSTCOPY, CheckFacts, LimitChanges, MigrationPlan, OnStall
from ldoms.model.tuning import Compression, Tuning

REQUIRED = ("events", "pause-before-switchover", "return-path")
LATE_DISKS = "late-block-activate"
FIRST_DOWNTIME_LIMIT_S = 0.01
"""QEMU makes use of the whole allowance, so it starts small and is raised only as needed."""
UNCOUNTED_S, UNCOUNTED_SHARE = 0.1, 0.1
"""Of a suspension, what QEMU does not count: the state of devices, the hand-off, and a bandwidth that falls."""
UNCOUNTED_MOST_SHARE = 1 / 3
THROTTLE = "auto-converge"
THROTTLE_PERCENTS = (50, 70, 85, 99)
THROTTLE_HELD_SHARE = 1 / 3
"""Of the suspension that was promised, a guest that is held back stands still for no more at a time."""

SLOW_LINK_BYTES_S = 64e6
"""Up to here compression has brought at least a sixth of the time: docs/performance.md."""
LEAST_COMPRESSING_CPUS = 1.0
"""Of the control domain; with less, a link may look slow that only lacks a CPU to encrypt with."""
BESIDE_MULTIFD = frozenset({OnStall.THROTTLE, OnStall.ABORT, OnStall.SUSPEND})
"""What may be done at a stall beside multifd."""

_BY_HAND = "set by hand"
# GnuTLS would negotiate ChaCha20-Poly1305 for PSK, which is ten times slower where the processor has AES.
_AES = "NORMAL:-CIPHER-ALL:+AES-128-GCM:-KX-ALL:+ECDHE-PSK:+PSK"
_CHACHA = "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:-KX-ALL:+ECDHE-PSK:+PSK"


def make_plan(facts: CheckFacts) -> MigrationPlan:
    """The plan for the migration of an active domain: what was set by hand is kept, the rest follows from the facts."""
    options, tuning, reasons = facts.options, facts.options.tuning, dict[str, str]()
    if options.encrypted:
        cipher, reasons["encryption"] = _cipher(facts)
    else:
        cipher, reasons["encryption"] = "", "none, as asked for"
    most = downtime_most_s(options.max_suspend_s)
    first = min(FIRST_DOWNTIME_LIMIT_S, most)
    throttles, reasons["stall"] = _at_a_stall(facts)
    channels, reasons["channels"] = _channels(tuning)
    compression, reasons["compression"] = _compression(facts)
    zero_pages, reasons["zero-pages"] = _zero_pages(tuning)
    xbzrle, reasons["xbzrle"] = _xbzrle(tuning)
    dirty_limit, reasons["dirty-limit"] = _dirty_limit(facts)
    reasons["free-page-hints"] = (
        "none: the guest reports free pages all the time; asked when the copy began, it stood still for seconds"
    )
    switchover, reasons["switchover-bandwidth"] = _switchover_bandwidth(tuning)
    reasons["suspension"] = _suspension(options.max_suspend_s, stands_still=facts.must_stand_still)
    reasons["bandwidth"] = _bandwidth(options.max_bandwidth_bytes_s)
    disks = copies(facts)
    if disks:
        reasons["disks"] = f"{', '.join(copy.disk for copy in disks)}: copied first, as the hosts do not share them"
    extra = {
        "multifd": channels > 1 or compression is not Compression.NONE,
        "xbzrle": xbzrle > 0,
        THROTTLE: bool(throttles),
        POSTCOPY: options.on_stall is OnStall.POSTCOPY,
        "dirty-limit": dirty_limit > 0,
        # The target's QEMU must not take the disks for its own before the last write of the source's has come.
        LATE_DISKS: bool(disks),
    }
    return MigrationPlan(
        capabilities=tuple(sorted((*REQUIRED, *(name for name, is_on in extra.items() if is_on)))),
        channels=channels,
        cipher=cipher,
        compression=compression.value,
        max_bandwidth_bytes_s=options.max_bandwidth_bytes_s,
        downtime_limit_s=first,
        max_suspend_s=options.max_suspend_s,
        reasons=reasons,
        stands_still=facts.must_stand_still,
        downtime_most_s=most,
        max_time_s=options.max_time_s,
        on_stall=options.on_stall,
        throttle_percents=throttles,
        zero_pages=zero_pages,
        xbzrle_cache_bytes=xbzrle,
        switchover_bandwidth_bytes_s=switchover,
        dirty_limit_bytes_s=dirty_limit,
        disks=disks,
    )


def changed_plan(plan: MigrationPlan, changes: LimitChanges, tuning: Tuning) -> MigrationPlan:
    """A plan with other limits, of a copy that may be under way: nothing that QEMU takes only before it starts."""
    reasons = dict(plan.reasons)
    if changes.max_bandwidth_bytes_s is not None:
        reasons["bandwidth"] = f"{_bandwidth(changes.max_bandwidth_bytes_s)}, since it was changed on the way"
        plan = replace(plan, max_bandwidth_bytes_s=changes.max_bandwidth_bytes_s)
    if changes.max_suspend_s is not None:
        most = downtime_most_s(changes.max_suspend_s)
        reasons["suspension"] = (
            f"{_suspension(changes.max_suspend_s, stands_still=plan.stands_still)}, since it was changed on the way"
        )
        by_hand = tuning.throttle_percents is not None or not plan.throttle_percents
        plan = replace(
            plan,
            max_suspend_s=changes.max_suspend_s,
            downtime_limit_s=min(FIRST_DOWNTIME_LIMIT_S, most),
            downtime_most_s=most,
            throttle_percents=plan.throttle_percents if by_hand else throttle_percents(changes.max_suspend_s),
        )
    if changes.max_time_s is not None:
        plan = replace(plan, max_time_s=changes.max_time_s)
    return replace(plan, reasons=reasons)


def downtime_most_s(max_suspend_s: float) -> float:
    """What QEMU may be told of a suspension that was promised, so that what it does not count has room, too."""
    uncounted_s = UNCOUNTED_S + UNCOUNTED_SHARE * max_suspend_s
    return max_suspend_s - min(uncounted_s, UNCOUNTED_MOST_SHARE * max_suspend_s)


def throttle_percents(max_suspend_s: float) -> tuple[int, ...]:
    """By how much of its CPU time a guest may be held back, step by step.

    A guest that is held back stands still again and again, and once more just before it is suspended. The last step is
    the one at which it does so for a third of what is promised.
    """
    stands_s = THROTTLE_HELD_SHARE * max_suspend_s
    most = min(THROTTLE_PERCENTS[-1], int(100 * stands_s / (stands_s + THROTTLE_SLICE_S)))
    return (*(step for step in THROTTLE_PERCENTS if step < most), most)


def _at_a_stall(facts: CheckFacts) -> tuple[tuple[int, ...], str]:
    options = facts.options
    if options.on_stall is OnStall.ABORT:
        return (), "the guest stays where it is, as asked for"
    if options.on_stall is OnStall.SUSPEND:
        return (), "the guest is suspended for as long as the rest takes, as asked for"
    if options.on_stall is OnStall.POSTCOPY:
        return (), (
            "the guest goes over all the same, as asked for, and fetches the rest of its memory while it runs there;"
            " until it has all of it, the end of either host is its end, too"
        )
    if facts.must_stand_still:
        return (), "the guest stays where it is: it stands still anyway"
    hosts = (facts.source, facts.target.host)
    lacking = [host.name for host in hosts if THROTTLE not in host.hypervisor.migration_capabilities]
    if lacking:
        return (), f"the guest stays where it is: the QEMU of {' and of '.join(lacking)} cannot hold it back"
    if options.tuning.dirty_limit_bytes_s:
        return (), "the guest stays where it is: the dirty limit, which was set by hand, holds it back"
    by_hand = options.tuning.throttle_percents
    if by_hand == ():
        return (), f"the guest stays where it is: no throttle, {_BY_HAND}"
    steps = by_hand or throttle_percents(options.max_suspend_s)
    percents = ", ".join(str(step) for step in steps)
    by_hand_words = f" ({_BY_HAND})" if by_hand else ""
    return steps, (
        f"the guest is held back by {percents} % of its CPU time{by_hand_words}, and stays where it is if that does not"
        " do"
    )


def _suspension(max_suspend_s: float, *, stands_still: bool) -> str:
    if stands_still:
        return (
            "for the whole copy: without KVM, QEMU does not notice all changes to memory that was added to a running"
            " guest"
        )
    most = downtime_most_s(max_suspend_s)
    first = min(FIRST_DOWNTIME_LIMIT_S, most)
    return (
        f"QEMU may use {first * 1000:.0f} ms, and {most * 1000:.0f} ms if that does not do: it does not count all"
        f" of the {max_suspend_s * 1000:.0f} ms that are promised"
    )


def _bandwidth(bytes_s: int) -> str:
    return f"limited to {bytes_s} bytes/s, as asked for" if bytes_s else "not limited"


def _channels(tuning: Tuning) -> tuple[int, str]:
    # With several connections QEMU 10.0 can hang for ever when they break: docs/adr/0019-one-connection.md
    danger = "with several, QEMU can hang for good when the target's ends"
    if tuning.channels is None:
        return 1, f"one connection: {danger}"
    if tuning.channels == 1:
        return 1, _BY_HAND
    return tuning.channels, f"{_BY_HAND}: {danger}"


def _compression(facts: CheckFacts) -> tuple[Compression, str]:
    """Where the link is what a copy waits for: less is sent, and there are CPUs for that."""
    if facts.options.tuning.compression is not None:
        return facts.options.tuning.compression, _BY_HAND
    if facts.link is None:
        return Compression.NONE, "none: how fast the link is will be known after a dry run, or after the first move"
    carries = f"the link carries {facts.link.bytes_s / 1e6:.0f} MB/s"
    if facts.link.bytes_s > SLOW_LINK_BYTES_S:
        return Compression.NONE, f"none: {carries}, and compression is chosen up to {SLOW_LINK_BYTES_S / 1e6:.0f} MB/s"
    if hindrance := _no_compression(facts):
        return Compression.NONE, f"none, although {carries}: {hindrance}"
    return Compression.ZSTD, f"zstd: {carries}, where it has saved 19 to 60 % of the time, by what the memory held"


def _no_compression(facts: CheckFacts) -> str:
    """Why memory cannot be compressed, or nobody knows what that would bring; empty: it can."""
    hosts = (facts.source, facts.target.host)
    for host in hosts:
        known = host.hypervisor
        if "multifd" not in known.migration_capabilities or Compression.ZSTD.value not in known.compressions:
            return f"the QEMU of {host.name} has no zstd"
    if facts.options.tuning.xbzrle_cache_bytes:
        return "xbzrle, which was set by hand, excludes it"
    if facts.options.on_stall not in BESIDE_MULTIFD:
        return f"--on-stall={facts.options.on_stall} excludes it"
    if copies(facts) or facts.must_stand_still:
        return "it was not measured with disks that are copied, or with a guest that stands still for the whole copy"
    if facts.source_control_cpus < LEAST_COMPRESSING_CPUS:
        return f"primary has less than {LEAST_COMPRESSING_CPUS:g} CPU, which may be what is slow"
    return ""


def _zero_pages(tuning: Tuning) -> tuple[str, str]:
    if tuning.zero_pages is not None:
        return tuning.zero_pages.value, _BY_HAND
    return "", "left to QEMU: no way of looking for empty pages was measured to be faster"


def _xbzrle(tuning: Tuning) -> tuple[int, str]:
    if tuning.xbzrle_cache_bytes is not None:
        return tuning.xbzrle_cache_bytes, _BY_HAND
    return 0, "not chosen: it gains where few bytes of each page change, and nobody knows that beforehand"


def _dirty_limit(facts: CheckFacts) -> tuple[int, str]:
    limit = facts.options.tuning.dirty_limit_bytes_s
    if limit is not None:
        return limit, _BY_HAND
    if not facts.has_dirty_ring:
        return 0, f"not chosen: it needs a guest that KVM runs with its dirty ring, on {facts.source.name}"
    return 0, "not chosen: it has not been measured"


def _switchover_bandwidth(tuning: Tuning) -> tuple[int, str]:
    if tuning.switchover_bandwidth_bytes_s is not None:
        return tuning.switchover_bandwidth_bytes_s, _BY_HAND
    return 0, "what QEMU measures: a value from outside was measured without gain, and one too high breaks the promise"


def copying_threads(plan: MigrationPlan) -> int:
    """How many threads of QEMU work on a copy at the same time, on either end.

    One goes through memory, on the target one takes it in; with multifd, one for each connection does the sending.
    """
    return 1 + (plan.channels if "multifd" in plan.capabilities else 0)


def _cipher(facts: CheckFacts) -> tuple[str, str]:
    if "aes" in facts.source.cpu_flags and "aes" in facts.target.host.cpu_flags:
        return _AES, "AES-128-GCM, as both processors have AES instructions"
    return _CHACHA, "ChaCha20-Poly1305, as not both processors have AES instructions"
