"""The table of rules, and the one function that runs them."""

from __future__ import annotations

from ldoms.checks import devices, hosts, machine, named_cores, networks, postcopy, storage, tuning
from ldoms.checks.rule import ACTIVE, ANY, BOUND, Rule, what_moves
from ldoms.model.findings import Finding
from ldoms.model.migration import CheckFacts

# An inactive domain needs nothing but a free name: what it asks for is looked at when it is bound. For a bound one
# the machine does not matter, as it will start afresh.
RULES: tuple[Rule, ...] = (
    Rule("manager-version", ANY, hosts.manager_version),
    Rule("migration-enabled", ANY, hosts.migration_enabled),
    Rule("save-spconfig", ANY, hosts.save_spconfig),
    Rule("control-domain", ANY, hosts.control_domain),
    Rule("other-host", ANY, hosts.other_host),
    Rule("name-free", ANY, hosts.name_free),
    Rule("not-busy", ANY, hosts.not_busy),
    Rule("macs", ANY, devices.macs),
    Rule("masters", ANY, devices.masters),
    Rule("cpu-count", BOUND, machine.cpu_count),
    Rule("named-cores", ANY, named_cores.named_cores),
    Rule("memory-amount", BOUND, machine.memory_amount),
    Rule("volumes", BOUND, devices.volumes),
    Rule("images", BOUND, devices.images),
    Rule("copy-storage", ANY, storage.copy_storage),
    Rule("image-locks", BOUND, devices.image_locks),
    Rule("boot-files", BOUND, devices.boot_files),
    Rule("switches", BOUND, devices.switches),
    Rule("network-abilities", BOUND, networks.network_abilities),
    Rule("default-vlans", BOUND, networks.default_vlans),
    Rule("console", BOUND, devices.console),
    Rule("guest-runs", ACTIVE, machine.guest_runs),
    Rule("accelerator", ACTIVE, machine.accelerator),
    Rule("machine-type", ACTIVE, machine.machine_type),
    Rule("qemu-version", ACTIVE, machine.qemu_version),
    Rule("migration-capabilities", ACTIVE, machine.migration_capabilities),
    Rule("cpu-features", ACTIVE, machine.cpu_features),
    Rule("added-memory", ACTIVE, machine.added_memory),
    Rule("tuning", ACTIVE, tuning.tuning),
    Rule("postcopy", ACTIVE, postcopy.postcopy),
    Rule("several-connections", ACTIVE, tuning.several_connections),
    Rule("enough-vcpus", ACTIVE, machine.enough_vcpus),
    Rule("encryption", ACTIVE, machine.encryption),
    Rule("volume-options", ACTIVE, devices.volume_options),
    Rule("boost", ACTIVE, hosts.boost),
    Rule("clocks", ACTIVE, hosts.clocks),
    Rule("guest-clock", ACTIVE, machine.guest_clock),
    Rule("data-port", ACTIVE, hosts.data_port),
    Rule("path-mtu", ACTIVE, hosts.path_mtu),
)


def evaluate(facts: CheckFacts) -> tuple[Finding, ...]:
    """Every finding of every rule that applies, in the order of the table."""
    if facts.source.identity == facts.target.host.identity:
        return tuple(hosts.other_host(facts))  # every other rule would compare the host with itself
    moves = what_moves(facts)
    return tuple(finding for rule in RULES if moves in rule.applies_to for finding in rule.check(facts))
