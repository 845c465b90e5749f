"""One plan for both ends: how the memory is copied, chosen from the facts, with the reason for each choice."""

from __future__ import annotations

from ldoms.model.migration import CheckFacts, MigrationPlan

REQUIRED = ("events", "pause-before-switchover", "return-path")
FIRST_DOWNTIME_LIMIT_S = 0.03
"""QEMU makes use of the whole allowance, so it starts small and is raised only as needed."""

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
    first = min(FIRST_DOWNTIME_LIMIT_S, options.max_suspend_s)
    reasons["suspension"] = (
        "for the whole copy: without KVM, QEMU does not notice all changes to memory that was added to a running guest"
        if facts.must_stand_still
        else f"first tried with {first * 1000:.0f} ms, raised to {options.max_suspend_s * 1000:.0f} ms if that does not"
        " do"
    )
    reasons["bandwidth"] = (
        f"limited to {options.max_bandwidth_bytes_s} bytes/s, as asked for"
        if options.max_bandwidth_bytes_s
        else "not limited"
    )
    return MigrationPlan(
        capabilities=REQUIRED,
        channels=1,
        cipher=cipher,
        compression="none",
        max_bandwidth_bytes_s=options.max_bandwidth_bytes_s,
        downtime_limit_s=first,
        max_suspend_s=options.max_suspend_s,
        reasons=reasons,
        stands_still=facts.must_stand_still,
    )


def _cipher(facts: CheckFacts) -> tuple[str, str]:
    if "aes" in facts.source.cpu_flags and "aes" in facts.target.host.cpu_flags:
        return _AES, "AES-128-GCM, as both processors have AES instructions"
    return _CHACHA, "ChaCha20-Poly1305, as not both processors have AES instructions"
