"""``max-cores`` and ``threading``: the properties of ``add-domain`` and ``set-domain`` that are about cores."""

from __future__ import annotations

from dataclasses import replace

from ldoms.manager.properties import choice_property, int_property
from ldoms.model.cores import check_max_cores, cores_of, vcpus_on_a_core
from ldoms.model.domain import Constraints, Domain, Threading
from ldoms.model.errors import RequestError

UNLIMITED = "unlimited"


def take_core_properties(domain: Domain, given: dict[str, str], strands_per_core: int) -> Constraints:
    """What a domain asks for with the properties that are about cores, which are taken out of `given`.

    Raises:
        RequestError: one has no meaning, or the domain does not fit it.
    """
    constraints = domain.constraints
    if "threading" in given:
        value = given.pop("threading") or Threading.MAX_THROUGHPUT.value
        threading = Threading(choice_property("threading", value, tuple(choice.value for choice in Threading)))
        constraints = _with_threading(domain, threading, strands_per_core)
    if "max-cores" in given:
        value = given.pop("max-cores")
        most = 0 if value in ("", UNLIMITED) else int_property("max-cores", value)
        if not most and value not in ("", UNLIMITED):
            raise RequestError(f"max-cores={value} has no meaning: use 1 or more, or {UNLIMITED}", code="bad-property")
        constraints = replace(constraints, max_cores=most)
        _check_bindings(domain, most)
    check_max_cores(domain.name, constraints, strands_per_core)
    return constraints


def _with_threading(domain: Domain, threading: Threading, strands_per_core: int) -> Constraints:
    now = domain.constraints
    if threading is now.threading:
        return now
    if domain.is_bound:
        raise RequestError(
            f"the threading of LDom {domain.name} cannot be changed while it is bound: stop and unbind it first",
            code="domain-bound",
        )
    if now.vcpus % vcpus_on_a_core(now, strands_per_core):
        raise RequestError(
            f"threading={threading} is about whole cores, and the {now.vcpus} virtual CPUs of LDom {domain.name} are"
            f" none: give it some ('ldm set-core NUMBER {domain.name}')",
            code="whole-core",
        )
    changed = replace(now, threading=threading, whole_core=True)
    return replace(changed, vcpus=cores_of(now, strands_per_core) * vcpus_on_a_core(changed, strands_per_core))


def _check_bindings(domain: Domain, most: int) -> None:
    """A domain without whole cores may be spread over more of them than it needs."""
    cores = {vcpu.core for vcpu in domain.bindings.vcpus} if domain.bindings else set()
    if most and len(cores) > most:
        raise RequestError(
            f"LDom {domain.name} is on {len(cores)} cores now: take some from it first, or give it whole ones"
            f" ('ldm set-core NUMBER {domain.name}')",
            code="max-cores",
        )
