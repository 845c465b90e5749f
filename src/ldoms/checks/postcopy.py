"""The rule about a guest that goes over before all of its memory has: what it takes, and what cannot be beside it."""

from __future__ import annotations

from collections.abc import Iterator

from ldoms.checks.rule import Findings
from ldoms.model.findings import Finding, Severity
from ldoms.model.host import HostFacts
from ldoms.model.migration import POSTCOPY, CheckFacts, OnStall

_REMEDY = "leave out --on-stall=postcopy"


def postcopy(facts: CheckFacts) -> Findings:
    """Both hosts must be able to do it, over one connection, for a guest that runs while it is copied."""
    if facts.options.on_stall is not OnStall.POSTCOPY:
        return
    name, chosen = facts.domain.domain.name, facts.options.tuning
    for reason in _lacking(facts.source, facts.target.host):
        yield Finding("postcopy", Severity.ERROR, reason, _REMEDY)
    if chosen.needs_multifd:
        yield Finding(
            "postcopy-connections",
            Severity.ERROR,
            f"postcopy and {chosen.multifd_words} exclude each other: QEMU fetches pages over one connection, and"
            " uncompressed",
            "leave one of them out",
        )
    if facts.options.copy_storage:
        yield Finding(
            "postcopy-storage",
            Severity.ERROR,
            f"postcopy and --copy-storage exclude each other: LDom {name} would run on {facts.target.host.name} while"
            " its disks are still here",
            "leave one of them out",
        )
    if facts.must_stand_still:
        yield Finding(
            "postcopy-stands-still",
            Severity.ERROR,
            f"postcopy is for a guest that runs while it is copied, and LDom {name} stands still for the whole copy"
            " because memory was added to it while it ran",
            _REMEDY,
        )


def _lacking(source: HostFacts, target: HostFacts) -> Iterator[str]:
    """Why the hosts cannot do it, in words; only where the guest is to run, the kernel has to help."""
    for host in (source, target):
        if POSTCOPY not in host.hypervisor.migration_capabilities:
            yield f"QEMU {host.hypervisor.version} on {host.name} has no migration capability {POSTCOPY}"
            return
    if not target.hypervisor.postcopy:
        why = target.hypervisor.postcopy_reason or "its manager is too old to say that it can"
        yield f"a guest cannot run on {target.name} before all of its memory has come: {why}"
