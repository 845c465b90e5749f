"""Rules about CPUs, memory and the machine that the guest sees."""

from __future__ import annotations

from ldoms.checks.hosts import GOOD_OFFSET_S
from ldoms.checks.rule import Findings
from ldoms.model.cores import cores_of
from ldoms.model.domain import Machine
from ldoms.model.findings import Finding, Severity
from ldoms.model.guest import GuestTime
from ldoms.model.migration import CheckFacts
from ldoms.model.sizes import BOUND_ALIGNMENT_MIB, align_up

ENOUGH_VCPUS = 8
"""Of a database guest, says the paper: the copy takes CPU time, and the guest must not starve."""
FASTEST_COPY_MIB_S = 2048
"""No copy was seen to be faster on a network."""
REQUIRED_CAPABILITIES = ("events", "pause-before-switchover", "return-path")


def guest_runs(facts: CheckFacts) -> Findings:
    """A guest that is not running cannot be moved live."""
    if facts.domain.softstate:
        name = facts.domain.domain.name
        yield Finding(
            "guest-runs",
            Severity.ERROR,
            f"Migration is not supported while the domain {name} is in the '{facts.domain.softstate}' state",
            f"let it run, or stop it and move it bound: ldm stop-domain -f {name}",
        )


def accelerator(facts: CheckFacts) -> Findings:
    """Memory of a KVM guest means nothing to TCG, and the other way round."""
    machine = _machine(facts)
    theirs = facts.target.host.hypervisor.accelerator
    if machine and machine.accelerator != theirs:
        yield Finding(
            "accelerator",
            Severity.ERROR,
            f"LDom {facts.domain.domain.name} runs with {machine.accelerator}, and {facts.target.host.name} has"
            f" {theirs} ({facts.target.host.hypervisor.accelerator_reason})",
            f'set accelerator = "{machine.accelerator}" in section [hypervisor] of ldmd.toml there, if that works',
        )


def machine_type(facts: CheckFacts) -> Findings:
    """The target's QEMU must know the machine type that the guest was bound with."""
    machine = _machine(facts)
    hypervisor = facts.target.host.hypervisor
    if machine and machine.type not in hypervisor.machine_types:
        yield Finding(
            "machine-type",
            Severity.ERROR,
            f"QEMU {hypervisor.version} on {facts.target.host.name} has no machine type {machine.type}",
            f"install a QEMU there that has it ({machine.qemu_version} has)",
        )


def qemu_version(facts: CheckFacts) -> Findings:
    """Memory moves to the same or a newer QEMU; backwards it works only sometimes."""
    ours, theirs = facts.source.hypervisor.version, facts.target.host.hypervisor.version
    if _numbers(theirs) < _numbers(ours):
        yield Finding(
            "qemu-version",
            Severity.OVERRIDABLE,
            f"QEMU on {facts.target.host.name} is older ({theirs}) than on {facts.source.name} ({ours})",
            f"upgrade QEMU on {facts.target.host.name}",
        )


def migration_capabilities(facts: CheckFacts) -> Findings:
    """Both QEMUs must have what a safe hand-off needs."""
    for host in (facts.source, facts.target.host):
        missing = sorted(set(REQUIRED_CAPABILITIES) - set(host.hypervisor.migration_capabilities))
        if missing:
            yield Finding(
                "migration-capabilities",
                Severity.ERROR,
                f"QEMU {host.hypervisor.version} on {host.name} lacks the migration capability {', '.join(missing)}",
                "install QEMU 10 or later there",
            )


def cpu_features(facts: CheckFacts) -> Findings:
    """Every feature that the guest was given must exist on the target; the names of the models do not matter."""
    machine = _machine(facts)
    if machine is None:
        return
    hypervisor = facts.target.host.hypervisor
    missing = sorted(set(machine.cpu.features) - set(hypervisor.cpu_features))
    name = facts.domain.domain.name
    if missing:
        yield Finding(
            "cpu-features",
            Severity.ERROR,
            f"{facts.target.host.name} cannot give LDom {name} the CPU features {', '.join(missing)}",
            f"stop the domain and bind it with a CPU that both hosts have: ldm set-domain cpu-arch=generic {name}",
        )
    elif machine.cpu.model not in hypervisor.cpu_models:
        yield Finding(
            "cpu-features",
            Severity.ERROR,
            f"QEMU {hypervisor.version} on {facts.target.host.name} has no CPU model {machine.cpu.model}",
            f"install a QEMU there that has it ({machine.qemu_version} has)",
        )


def added_memory(facts: CheckFacts) -> Findings:
    """A guest that has to stand still for the whole copy needs a promise that can be kept."""
    bindings = facts.domain.domain.bindings
    if not facts.must_stand_still or bindings is None:
        return
    name, added = facts.domain.domain.name, bindings.added_memory_mib
    allowed_s = facts.options.max_suspend_s
    if bindings.memory_mib / FASTEST_COPY_MIB_S > allowed_s:
        yield Finding(
            "added-memory",
            Severity.OVERRIDABLE,
            f"LDom {name} has {added}M that was added while it ran, where QEMU without KVM does not notice all changes:"
            f" it must be suspended while all of its {bindings.memory_mib}M are copied, and {allowed_s * 1000:.0f} ms"
            " are allowed",
            f"allow more with --max-suspend, or take it back first: ldm remove-memory {added}M {name}",
        )


def cpu_count(facts: CheckFacts) -> Findings:
    """The target needs a free strand for each virtual CPU, or whole cores."""
    if facts.domain.domain.constraints.whole_core:
        yield from _whole_cores(facts)
        return
    wanted, free = facts.domain.domain.constraints.vcpus, facts.target.free_strands
    if wanted > free:
        yield Finding(
            "cpu-count",
            Severity.ERROR,
            f"LDom {facts.domain.domain.name} has {wanted} virtual CPUs, and {free} strands are free on"
            f" {facts.target.host.name}",
            f"free some there, for example with 'ldm remove-vcpu {wanted - free} primary'",
        )


def _whole_cores(facts: CheckFacts) -> Findings:
    target, constraints = facts.target, facts.domain.domain.constraints
    wanted = cores_of(constraints, target.host.size.strands_per_cpu)
    if constraints.max_cores and wanted > constraints.max_cores:
        yield Finding(
            "max-cores",
            Severity.ERROR,
            f"LDom {facts.domain.domain.name} may have at most {constraints.max_cores} cores, and needs {wanted} of"
            f" {target.host.name}",
            f"allow it more: ldm set-domain max-cores={wanted} {facts.domain.domain.name}",
        )
    if target.free_cores is not None and wanted > target.free_cores:
        yield Finding(
            "cpu-count",
            Severity.ERROR,
            f"LDom {facts.domain.domain.name} needs {wanted} whole core{'' if wanted == 1 else 's'}, and"
            f" {target.free_cores} are free on {target.host.name}",
            "free some there, for example with 'ldm set-core' on primary; 'ldm list-devices -a core' shows them",
        )


def memory_amount(facts: CheckFacts) -> Findings:
    """The target needs free memory in its partition, and should have it in fact."""
    domain, target = facts.domain.domain, facts.target
    wanted = (
        domain.bindings.memory_mib if domain.bindings else align_up(domain.constraints.memory_mib, BOUND_ALIGNMENT_MIB)
    )
    if wanted > target.free_memory_mib:
        yield Finding(
            "memory-amount",
            Severity.ERROR,
            f"LDom {domain.name} has {wanted}M of memory, and {target.free_memory_mib}M are free on {target.host.name}",
            "free some there, for example with 'ldm set-memory' on primary",
        )
    elif facts.domain.active and wanted > target.available_memory_mib:
        yield Finding(
            "memory-available",
            Severity.OVERRIDABLE,
            f"LDom {domain.name} has {wanted}M of memory; {target.host.name} has set that much aside, but its"
            f" kernel has only {target.available_memory_mib}M available",
            "end what uses the memory of the control domain there",
        )


def enough_vcpus(facts: CheckFacts) -> Findings:
    """A busy guest with few CPUs feels the copy."""
    count = facts.domain.domain.constraints.vcpus
    if count < ENOUGH_VCPUS:
        yield Finding(
            "enough-vcpus",
            Severity.WARNING,
            f"LDom {facts.domain.domain.name} has {count} virtual CPU{'' if count == 1 else 's'}; a database guest"
            f" should keep at least {ENOUGH_VCPUS} while it is moved",
            "move it at a quiet time, if it is busy",
        )


def guest_clock(facts: CheckFacts) -> Findings:
    """A guest counts no time while it is suspended: somebody in it should see to its clock."""
    time = facts.guest_time
    if time is None:
        return
    name, host = facts.domain.domain.name, facts.source.name
    if time.service is not None and not time.service.synchronised:
        yield Finding(
            "guest-clock",
            Severity.WARNING,
            f"the clock of LDom {name} is not synchronised, as {time.service.program} in it says;"
            f" it is {_error(time)} that of {host}",
            "have it follow the time servers of the hosts: 'chronyc sources' in the guest shows which it reaches",
        )
    elif abs(time.offset_s) - time.uncertainty_s > GOOD_OFFSET_S:
        yield Finding(
            "guest-clock",
            Severity.WARNING,
            f"the clock of LDom {name} is {_error(time)} that of {host}",
            f"{time.service.program} in it is about to correct it: wait, or see whether the guest and {host} follow the"
            " same time servers"
            if time.service is not None
            else "run chrony in the guest, with the time servers of the hosts",
        )


def encryption(facts: CheckFacts) -> Findings:
    """Without AES in the processor the encrypted copy is slow."""
    if not facts.options.encrypted:
        yield Finding(
            "encryption",
            Severity.WARNING,
            "the guest's memory will cross the network unencrypted",
            "leave out --no-encryption",
        )
        return
    for host in (facts.source, facts.target.host):
        if "aes" not in host.cpu_flags:
            yield Finding(
                "encryption",
                Severity.WARNING,
                f"the processor of {host.name} has no AES instructions: encryption will limit the speed of the copy",
                "expect a longer copy",
            )


def _error(time: GuestTime) -> str:
    return f"{abs(time.offset_s):.3g} s {'ahead of' if time.offset_s > 0 else 'behind'}"


def _machine(facts: CheckFacts) -> Machine | None:
    bindings = facts.domain.domain.bindings
    return bindings.machine if bindings else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
