"""Rules about the two hosts, whatever the domain: versions, switches, names, clocks, the way between them."""

from __future__ import annotations

from ldoms.checks.rule import Findings
from ldoms.model.findings import Finding, Severity
from ldoms.model.migration import CheckFacts

MAX_OFFSET_S = 1.0
"""Clocks further apart than this would make the guest jump."""
GOOD_OFFSET_S = 0.1


def manager_version(facts: CheckFacts) -> Findings:
    """The managers must speak the same protocol, or versions that follow each other."""
    ours, theirs = facts.source.protocol, facts.target.host.protocol
    if abs(ours - theirs) > 1:
        yield Finding(
            "manager-version",
            Severity.ERROR,
            f"ldmd on {facts.source.name} ({facts.source.version}) and on {facts.target.host.name}"
            f" ({facts.target.host.version}) are more than one release apart",
            f"upgrade ldmd on {facts.source.name if ours < theirs else facts.target.host.name};"
            " guests go on running meanwhile",
        )


def migration_enabled(facts: CheckFacts) -> Findings:
    """Both hosts must allow migrations in their direction."""
    if not facts.source.outgoing_enabled:
        yield Finding(
            "migration-enabled",
            Severity.ERROR,
            f"outgoing migration is switched off on {facts.source.name}",
            "set outgoing = true in section [migration] of ldmd.toml there, and restart ldmd",
        )
    if not facts.target.host.incoming_enabled:
        yield Finding(
            "migration-enabled",
            Severity.ERROR,
            f"incoming migration is switched off on {facts.target.host.name}",
            "set incoming = true in section [migration] of ldmd.toml there, and restart ldmd",
        )


def save_spconfig(facts: CheckFacts) -> Findings:
    """Both hosts must do the same about their configurations, or one of them would be left with an old one."""
    ours, theirs = facts.source, facts.target.host
    if ours.saves_configuration != theirs.saves_configuration and not facts.options.save_spconfig:
        without = theirs if ours.saves_configuration else ours
        yield Finding(
            "save-spconfig",
            Severity.ERROR,
            f"{(ours if ours.saves_configuration else theirs).name} saves its configuration after a migration, and"
            f" {without.name} does not",
            "set save_spconfig in section [migration] of ldmd.toml to the same on both hosts, or migrate with -s",
        )


def control_domain(facts: CheckFacts) -> Findings:
    """The control domain is the host itself and cannot move."""
    if facts.domain.domain.is_control:
        yield Finding(
            "control-domain",
            Severity.ERROR,
            f"LDom {facts.domain.domain.name} is the control domain of {facts.source.name}",
            "move a guest domain",
        )


def other_host(facts: CheckFacts) -> Findings:
    """A domain cannot move to where it is, by whatever name that host is called."""
    if facts.source.identity == facts.target.host.identity:
        yield Finding(
            "other-host",
            Severity.ERROR,
            f"{facts.options.host} is {facts.source.name}, the host that LDom {facts.domain.domain.name} is on",
            "name another host",
        )


def name_free(facts: CheckFacts) -> Findings:
    """The target must not have a domain of that name, nor with that UUID."""
    domain, target = facts.domain.domain, facts.target
    name = facts.options.new_name or domain.name
    if name in target.names and target.names[name] != domain.uuid:
        yield Finding(
            "name-free",
            Severity.ERROR,
            f"LDom {name} already exists on {target.host.name}",
            f"give the domain another name there: ldm migrate-domain {domain.name} {facts.options.host}:NEWNAME",
        )
    holder = next((name for name, uuid in target.names.items() if uuid == domain.uuid), None)
    if holder is not None:
        yield Finding(
            "uuid-free",
            Severity.ERROR,
            f"LDom {holder} on {target.host.name} has the same UUID {domain.uuid}",
            f"if it is a leftover, remove it there: ldm remove-domain {holder}",
        )


def not_busy(facts: CheckFacts) -> Findings:
    """Nothing else is under way with the domain on the target; the source has taken it for this migration."""
    for operation in facts.target.busy:
        yield Finding(
            "not-busy",
            Severity.ERROR,
            f"{operation} is under way on {facts.target.host.name}",
            "wait until it is over, or cancel it",
        )


def boost(facts: CheckFacts) -> Findings:
    """What is to be lent to the source's control domain must be free; the target lends what it has."""
    asked, free = facts.options.boost, facts.source_free_strands
    if asked is not None and asked > free:
        yield Finding(
            "boost",
            Severity.ERROR,
            f"{asked} strands are to be lent to the control domain of {facts.source.name}, and {free} are free there",
            f"ask for less, or for as many as help: --boost {free or 'auto'}",
        )


def clocks(facts: CheckFacts) -> Findings:
    """The hosts' clocks must agree, or the guest's time jumps."""
    offset = facts.clock.offset_s
    if abs(offset) <= GOOD_OFFSET_S:
        return
    too_far = abs(offset) > MAX_OFFSET_S
    yield Finding(
        "clocks",
        Severity.OVERRIDABLE if too_far else Severity.WARNING,
        f"the clock of {facts.target.host.name} is {abs(offset):.3g} s {'ahead' if offset > 0 else 'behind'}"
        f" (measured to within {facts.clock.uncertainty_s:.3g} s)",
        "synchronise both hosts with the same time servers: 'chronyc tracking' shows how they do",
    )


def data_port(facts: CheckFacts) -> Findings:
    """The target needs a free port for the memory."""
    if not facts.target.free_data_port:
        yield Finding(
            "data-port",
            Severity.ERROR,
            f"no port for migration data is free on {facts.target.host.name}",
            "wait for other migrations to end, or widen data_ports in section [network] of ldmd.toml there",
        )


def path_mtu(facts: CheckFacts) -> Findings:
    """Different MTUs at the two ends of the data path make large packets vanish, which looks like a hang."""
    ours, theirs = facts.source_data_mtu, facts.target.data_mtu
    if ours and theirs and ours != theirs:
        yield Finding(
            "path-mtu",
            Severity.WARNING,
            f"the interfaces between the hosts have MTU {ours} on {facts.source.name} and {theirs} on"
            f" {facts.target.host.name}",
            "set them to the same value, unless a router between them answers for the difference",
        )
