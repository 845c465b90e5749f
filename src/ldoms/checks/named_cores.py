"""Rules about the cores that were named for a domain: those of the target have names of their own."""

from __future__ import annotations

from collections.abc import Iterator

from ldoms.checks.rule import Findings, Moves, what_moves
from ldoms.model.cores import cores_of
from ldoms.model.findings import Finding, Severity
from ldoms.model.migration import CheckFacts
from ldoms.model.named_cores import listed


def named_cores(facts: CheckFacts) -> Findings:
    """A domain with named cores needs to be told which it is to have (``cidmap=``), and must be able to have them."""
    constraints, name = facts.domain.domain.constraints, facts.domain.domain.name
    ours, pairs = set(constraints.core_ids), facts.options.core_map
    if not ours and not pairs:
        return
    if not ours:
        yield _error(f"cidmap= is given, and LDom {name} has no cores that were named", "leave cidmap= out")
    elif strange := {here for here, _ in pairs} - ours:
        yield _error(
            f"cidmap= is about core {listed(strange)}, and LDom {name} has {listed(ours)}", "name those that it has"
        )
    elif missing := ours - {here for here, _ in pairs}:
        if what_moves(facts) is Moves.INACTIVE and not pairs:
            return  # what it asks for is looked at when it is bound
        yield _error(
            f"core {listed(missing)} was named for LDom {name}, and {facts.target.host.name} has cores of its own",
            f"say which it is to have there, with cidmap=CORE:CORE[,CORE:CORE...] before {facts.options.host}, or let"
            f" it have any: ldm set-core cid= {name}",
        )
    else:
        yield from _on_the_target(facts)


def _on_the_target(facts: CheckFacts) -> Iterator[Finding]:
    target, domain = facts.target, facts.domain.domain
    theirs = [there for _, there in facts.options.core_map]
    if len(set(theirs)) < len(theirs):
        yield _error(f"cidmap= gives LDom {domain.name} a core of {target.host.name} twice", "name different ones")
    if what_moves(facts) is Moves.INACTIVE:
        return
    if taken := set(theirs) - set(target.whole_cores):
        yield _error(
            f"core {listed(taken)} of {target.host.name}, which cidmap= gives to LDom {domain.name}, is not free",
            "free it, or name others: 'ldm list-devices core' there shows the free ones",
        )
    if (wanted := cores_of(domain.constraints, target.host.size.strands_per_cpu)) != len(theirs):
        yield _error(
            f"LDom {domain.name} has {len(theirs)} cores here and needs {wanted} of {target.host.name}, whose cores"
            f" have {target.host.size.strands_per_cpu} strands",
            f"let it have any cores: ldm set-core cid= {domain.name}",
        )


def _error(message: str, remedy: str) -> Finding:
    return Finding("named-cores", Severity.ERROR, message, remedy)
