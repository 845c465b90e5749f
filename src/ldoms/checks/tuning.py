"""Rules about what was set by hand of how memory is copied: whether it fits together, the hosts, and the guest."""

from __future__ import annotations

from collections.abc import Iterator

from ldoms.checks.rule import Findings
from ldoms.model.findings import Finding, Severity
from ldoms.model.host import HostFacts
from ldoms.model.migration import CheckFacts, OnStall
from ldoms.model.sizes import MIB
from ldoms.model.tuning import Compression, Tuning, conflicts


def tuning(facts: CheckFacts) -> Findings:
    """Everything that was set by hand must be possible, and do something."""
    chosen = facts.options.tuning
    for conflict in conflicts(chosen):
        yield Finding("tuning", Severity.ERROR, conflict.message, conflict.remedy)
    for host in (facts.source, facts.target.host):
        for missing in _missing(chosen, host):
            yield Finding(
                "tuning",
                Severity.ERROR,
                f"QEMU {host.hypervisor.version} on {host.name} has no {missing}",
                "leave it out, or install a QEMU there that has it",
            )
    yield from _of_the_guest(facts)


def several_connections(facts: CheckFacts) -> Findings:
    """More connections can be asked for than is wise, or than the hosts have strands."""
    channels = facts.options.tuning.channels or 1
    if channels == 1:
        return
    host = min(facts.source, facts.target.host, key=_strands)
    if channels > _strands(host):
        yield Finding(
            "too-many-connections",
            Severity.ERROR,
            f"channels={channels} is more than the {_strands(host)} strands of {host.name}: threads would only wait"
            " for each other",
            f"set channels={_strands(host)} or fewer",
        )
        return
    yield Finding(
        "several-connections",
        Severity.WARNING,
        f"memory is to cross over {channels} connections: QEMU can hang for good, and the guest with it, when they"
        " break at a bad moment",
        "leave channels= out",
    )


def _strands(host: HostFacts) -> int:
    return len(host.size.cpus) * host.size.strands_per_cpu


def _of_the_guest(facts: CheckFacts) -> Findings:
    """What this guest, on this host, cannot be copied with."""
    chosen, name = facts.options.tuning, facts.domain.domain.name
    if chosen.dirty_limit_bytes_s and not facts.has_dirty_ring:
        yield Finding(
            "tuning",
            Severity.ERROR,
            f"dirty-limit needs KVM and its dirty ring, and LDom {name} runs without on {facts.source.name}",
            "set throttle= instead",
        )
    bindings = facts.domain.domain.bindings
    memory_bytes = bindings.memory_mib * MIB if bindings is not None else 0
    if (chosen.xbzrle_cache_bytes or 0) > memory_bytes > 0:
        yield Finding(
            "tuning",
            Severity.ERROR,
            f"the cache of xbzrle is larger than the {bindings.memory_mib if bindings else 0}M of LDom {name}",
            "set a smaller one: it takes memory of the control domain",
        )
    if chosen.throttle_percents and facts.options.on_stall is not OnStall.THROTTLE:
        yield Finding(
            "tuning",
            Severity.ERROR,
            f"throttle is for --on-stall=throttle, and {facts.options.on_stall} was asked for",
            "leave one of them out",
        )
    if facts.must_stand_still:
        for word in _for_running_guests(chosen):
            yield Finding(
                "tuning",
                Severity.ERROR,
                f"{word} is for a guest that runs while it is copied, and LDom {name} stands still for the whole copy"
                " because memory was added to it while it ran",
                "leave it out",
            )


def _for_running_guests(chosen: Tuning) -> Iterator[str]:
    if chosen.throttle_percents:
        yield "throttle"
    if chosen.xbzrle_cache_bytes:
        yield "xbzrle"


def _missing(chosen: Tuning, host: HostFacts) -> Iterator[str]:
    """What the QEMU of a host lacks of what was set by hand, in words."""
    hypervisor = host.hypervisor
    needed = {
        "multifd": chosen.needs_multifd,
        "xbzrle": bool(chosen.xbzrle_cache_bytes),
        "auto-converge": bool(chosen.throttle_percents),
        "dirty-limit": bool(chosen.dirty_limit_bytes_s),
    }
    for capability, is_needed in needed.items():
        if is_needed and capability not in hypervisor.migration_capabilities:
            yield f"migration capability {capability}"
    compression = chosen.compression or Compression.NONE
    if compression is not Compression.NONE and compression not in hypervisor.compressions:
        yield f"compression {compression}"
    if chosen.zero_pages is not None and "zero-page-detection" not in hypervisor.migration_parameters:
        yield "zero-pages to be set"
    if chosen.switchover_bandwidth_bytes_s and "avail-switchover-bandwidth" not in hypervisor.migration_parameters:
        yield "switchover-bandwidth to be set"
