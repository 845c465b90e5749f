"""Whole cores that were named (``cid=``): which a domain asks for, and whether it can have just these: pure.

LDoms calls this a physical binding (``physical-bindings=core``): as long as it holds, the cores of the domain are
changed by name only, never by number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ldoms.model.domain import Constraints, Domain
from ldoms.model.errors import NoResources, RequestError
from ldoms.model.partition import Partition


def named(name: str, now: Constraints, action: str, core_ids: Iterable[int], vcpus_on_a_core: int) -> Constraints:
    """What a domain is to have after ``add-core``, ``set-core`` or ``remove-core`` with ``cid=``.

    Without any core, ``set-core`` lets a domain keep as many cores as it has: from then on they may be any.

    Args:
        name: of the domain.
        now: what it asks for so far.
        action: ``add``, ``set`` or ``remove``.
        core_ids: that are named.
        vcpus_on_a_core: how many virtual CPUs fill a core.

    Raises:
        RequestError: a core is named twice, is there already or is not there; or the domain has others that were not
            named.
    """
    given = tuple(core_ids)
    if len(set(given)) < len(given):
        raise RequestError(f"cid={listed(given)} names a core twice", code="bad-cores")
    if action == "set" and not given:
        return replace(now, core_ids=())
    if action != "set" and now.vcpus and not now.core_ids:
        raise RequestError(
            f"LDom {name} has virtual CPUs on cores that were not named: name all of them ('ldm set-core"
            f" cid=CORE[,CORE...] {name}')",
            code="unnamed-cores",
        )
    has = set(now.core_ids)
    if action == "add" and (there := has.intersection(given)):
        raise RequestError(f"LDom {name} has core {listed(there)} already", code="bad-cores")
    if action == "remove" and (missing := set(given) - has):
        raise RequestError(
            f"LDom {name} has no core {listed(missing)}: it has {listed(has)}",
            code="bad-cores",
        )
    wanted = {"add": has.union(given), "set": set(given), "remove": has.difference(given)}[action]
    return replace(now, vcpus=len(wanted) * vcpus_on_a_core, whole_core=True, core_ids=tuple(sorted(wanted)))


def names_are_kept(name: str, now: Constraints, action: str) -> RequestError:
    """Why a domain whose cores were named cannot be changed by number."""
    return RequestError(
        f"LDom {name} has cores that were named ({listed(now.core_ids)}): name those that are to change ('ldm"
        f" {action}-core cid=CORE[,CORE...] {name}'), or let it have any first ('ldm set-core cid= {name}')",
        code="named-cores",
    )


def check_exist(partition: Partition, name: str, core_ids: Iterable[int]) -> None:
    """Make sure that the host has cores of these numbers.

    Raises:
        NoResources: it has not.
    """
    last = len(partition.size.cpus) - 1
    if unknown := [core for core in core_ids if core > last]:
        raise NoResources(
            f"LDom {name} cannot get core {listed(unknown)}: the cores of this host are 0 to {last}", code="no-cores"
        )


def check_named(partition: Partition, name: str, core_ids: Iterable[int]) -> None:
    """Make sure that a domain can have just these cores.

    Raises:
        NoResources: one is not there, or somebody else has a strand of it.
    """
    wanted = tuple(core_ids)
    check_exist(partition, name, wanted)
    usable = partition.whole_cores(name)
    for core in wanted:
        if core not in usable:
            strands = set(partition.strands_of(core))
            holders = [other for other, has in partition.bindings.items() if other != name and has.held & strands]
            raise NoResources(
                f"LDom {name} cannot get core {core}: LDom {', '.join(sorted(holders))} has strands of it; 'ldm"
                " list-devices core' shows the free ones",
                code="no-cores",
            )


def kept_names(now: Constraints, wanted: Constraints, cores: int) -> tuple[int, ...]:
    """The names of `cores` cores of a domain that was to get other ones and still needs some of what it has."""
    if not wanted.core_ids:
        return ()
    candidates = dict.fromkeys((*wanted.core_ids, *now.core_ids))
    return tuple(sorted(list(candidates)[: max(cores, len(wanted.core_ids))]))


def with_core_map(domain: Domain, pairs: Iterable[tuple[int, int]]) -> Domain:
    """A domain as it asks for cores of another host: each pair has one that it asks for here, and the one there."""
    names = dict(pairs)
    core_ids = tuple(sorted(names.get(core, core) for core in domain.constraints.core_ids))
    return replace(domain, constraints=replace(domain.constraints, core_ids=core_ids))


def listed(core_ids: Iterable[int]) -> str:
    """Cores as they are typed: ``0,1,4``."""
    return ",".join(map(str, sorted(core_ids)))
