"""In which order domains are started and stopped, and whom the failure of one concerns: pure functions.

A domain depends on its masters (``master=``), and is their slave. A slave is started after its masters and stopped
before them; apart from that, domains of a lower ``shutdown-group`` are started first and stopped last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ldoms.model.domain import Domain, FailurePolicy


@dataclass(frozen=True, slots=True)
class Consequence:
    """What the failure of a domain means for one that depends on it.

    Attributes:
        slave: name of the domain that something happens to.
        master: whose failure it is: the domain that has failed, or one that the policy has dealt with before.
        policy: of that master.
    """

    slave: str
    master: str
    policy: FailurePolicy


def start_order(domains: Iterable[Domain]) -> tuple[Domain, ...]:
    """Domains in the order in which they are started: masters first, then by shutdown group, lowest first."""
    waiting = sorted(domains, key=lambda domain: (domain.constraints.shutdown_group, domain.order))
    ordered: list[Domain] = []
    while waiting:
        names = {domain.name for domain in waiting}
        # There is no circle: that is refused when a master is set. An old record with one must not hang us.
        ready = next((domain for domain in waiting if not names & set(domain.constraints.masters)), waiting[0])
        waiting.remove(ready)
        ordered.append(ready)
    return tuple(ordered)


def stop_order(domains: Iterable[Domain]) -> tuple[tuple[Domain, ...], ...]:
    """Domains in the order in which they are stopped; those that stand together are stopped at the same time.

    Slaves come before their masters; apart from that, domains of a higher shutdown group come first.
    """
    waiting = sorted(domains, key=lambda domain: (-domain.constraints.shutdown_group, domain.order))
    groups: list[tuple[Domain, ...]] = []
    while waiting:
        masters = {master for domain in waiting for master in domain.constraints.masters}
        ready = [domain for domain in waiting if domain.name not in masters] or waiting[:1]
        # Of a lower group only those that a higher one has to wait for.
        group = max(domain.constraints.shutdown_group for domain in ready)
        now = tuple(domain for domain in ready if domain.constraints.shutdown_group == group)
        groups.append(now)
        waiting = [domain for domain in waiting if domain not in now]
    return tuple(groups)


def slaves_of(name: str, domains: Iterable[Domain]) -> tuple[str, ...]:
    """The domains that have `name` among their masters, in the order in which they were made."""
    return tuple(
        domain.name for domain in sorted(domains, key=lambda domain: domain.order) if name in domain.constraints.masters
    )


def consequences(failed: str, domains: Collection[Domain]) -> tuple[Consequence, ...]:
    """Whom the failure of a domain concerns, and how: each slave once, the nearest first.

    A slave that a policy panics, resets or stops has failed as well: then its own policy counts for its slaves.
    """
    known: Mapping[str, Domain] = {domain.name: domain for domain in domains}
    found: list[Consequence] = []
    seen, pending = {failed}, [failed]
    while pending:
        master = pending.pop(0)
        policy = known[master].constraints.failure_policy if master in known else FailurePolicy.IGNORE
        if policy is FailurePolicy.IGNORE:
            continue
        for slave in slaves_of(master, domains):
            if slave not in seen:
                seen.add(slave)
                pending.append(slave)
                found.append(Consequence(slave, master, policy))
    return tuple(found)
