"""Domains as descriptions: made, changed, removed; with their variables."""

from __future__ import annotations

import shutil
import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ldoms.manager.cores import take_core_properties
from ldoms.manager.host import Host
from ldoms.manager.properties import choice_property, int_property, refuse_unknown
from ldoms.model.domain import Constraints, CpuArch, Domain, FailurePolicy
from ldoms.model.errors import AlreadyExists, NotFound, RequestError
from ldoms.model.events import EventKind
from ldoms.model.identity import check_name, hostid_of

MAX_MASTERS = 4
# SPARC classes of CPUs: what a guest needs that moves between unlike hosts is our generic CPU.
_ARCHES = {
    "native": CpuArch.NATIVE,
    "generic": CpuArch.GENERIC,
    "migration-class1": CpuArch.GENERIC,
    "sparc64-class1": CpuArch.GENERIC,
}
_PLATFORM: Mapping[str, tuple[str, ...]] = {
    "boot-policy": ("enforce", "none", "warning"),
    "extended-mapin-space": ("on", "off"),
    "perf-counters": (),
    "rc-add-policy": ("iov",),
}
"""Properties that mean something on SPARC only, and their values; none = any."""


class DomainVerbs:
    """``add-domain``, ``set-domain``, ``remove-domain``, and the commands for what belongs to one domain."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def add(self, name: str, properties: Mapping[str, str]) -> Domain:
        """Make an inactive domain.

        Args:
            name: of the domain.
            properties: as ``ldm add-domain`` takes them: ``cpu-arch``, ``mac-addr``, ``hostid``, ``uuid``, ...

        Raises:
            RequestError: the name or a property is wrong.
            AlreadyExists: the name, the UUID or the MAC address is taken.
        """
        self._host.check_not_reconfiguring(name)
        given = dict(properties)
        mac = await self._host.pick_mac(given.pop("mac-addr", ""))
        check_name(name, "domain")
        store = self._host.store
        if any(domain.name == name for domain in store.domains()):
            raise AlreadyExists(f"LDom {name} already exists")
        uuid = _uuid(given.pop("uuid", ""))
        if store.domain_by_uuid(uuid) is not None:
            raise AlreadyExists(f"a domain with the UUID {uuid} already exists")
        # The log of a domain outlives it, and is no other domain's: its console would show it after a restart of ldmd.
        shutil.rmtree(self._host.places.console_log(name), ignore_errors=True)
        store.forget_ownership(uuid)  # of a domain with this UUID that has left this host, or was refused
        domain = Domain(uuid, name, mac, hostid_of(mac), order=store.next_position())
        return self._host.save(self._with_properties(domain, given), EventKind.DOMAIN_ADDED)

    async def set(self, name: str, properties: Mapping[str, str]) -> Domain:
        """Change properties of a domain; an empty value clears one.

        Raises:
            RequestError: a property is wrong, or cannot be changed while the domain is bound.
        """
        given = dict(properties)
        mac = await self._host.pick_mac(given.pop("mac-addr")) if "mac-addr" in given else ""
        with self._host.changing(name, "set-domain") as domain:
            if "uuid" in given:
                raise RequestError("the UUID of a domain cannot be changed", code="bad-property")
            if mac:
                domain = replace(domain, mac=mac)
            if domain.is_bound and not domain.is_control and "cpu-arch" in given:
                raise RequestError(
                    f"the CPU of LDom {name} cannot be changed while it is bound: stop and unbind it first",
                    code="domain-bound",
                )
            return self._host.save(self._with_properties(domain, given))

    def remove(self, name: str) -> None:
        """Remove an inactive domain.

        Raises:
            RequestError: it is bound, or it is the control domain.
        """
        with self._host.changing(name, "remove-domain") as domain:
            if domain.is_control:
                raise RequestError("LDom primary is the control domain and cannot be removed", code="control-domain")
            if domain.is_bound:
                raise RequestError(
                    f"LDom {name} is bound: stop it and unbind it first ('ldm unbind-domain {name}')",
                    code="domain-bound",
                )
            with self._host.store.transaction():
                self._host.store.delete_domain(domain.uuid)
                self._host.store.forget_ownership(domain.uuid)
                self._host.events.publish(EventKind.DOMAIN_REMOVED, name)
            shutil.rmtree(self._host.places.domain(domain.uuid), ignore_errors=True)  # what QEMU has said

    # Variables

    def set_variables(self, name: str, values: Mapping[str, str]) -> Domain:
        """Set boot variables; they count from the next start on."""
        with self._host.changing(name, "set-variable") as domain:
            for variable in values:
                if not variable or any(character in "=|" or character.isspace() for character in variable):
                    raise RequestError(f"'{variable}' cannot name a variable", code="bad-name")
                if "\0" in values[variable]:
                    raise RequestError(f"the value of {variable} cannot have a null character", code="bad-property")
            merged = dict(domain.variables) | dict(values)
            return self._host.save(replace(domain, variables=tuple(sorted(merged.items()))))

    def remove_variables(self, name: str, variables: Sequence[str]) -> Domain:
        """Remove boot variables.

        Raises:
            NotFound: one of them is not set; nothing is removed.
        """
        with self._host.changing(name, "remove-variable") as domain:
            left = dict(domain.variables)
            for variable in variables:
                if left.pop(variable, None) is None:
                    raise NotFound(f"Variable {variable} was not found in LDom {name}")
            return self._host.save(replace(domain, variables=tuple(sorted(left.items()))))

    # Inside

    def _with_properties(self, domain: Domain, given: dict[str, str]) -> Domain:
        constraints = domain.constraints
        if "hostid" in given:
            domain = replace(domain, hostid=_hostid(given.pop("hostid")) or hostid_of(domain.mac))
        if "cpu-arch" in given:
            arch = choice_property("cpu-arch", given.pop("cpu-arch") or "native", tuple(_ARCHES))
            constraints = replace(constraints, cpu_arch=_ARCHES[arch])
        if "failure-policy" in given:
            policies = tuple(policy.value for policy in FailurePolicy)
            policy = choice_property("failure-policy", given.pop("failure-policy") or "ignore", policies)
            constraints = replace(constraints, failure_policy=FailurePolicy(policy))
        if "master" in given:
            masters = self._masters(domain, given.pop("master"))
            constraints = replace(constraints, masters=masters)
        if "shutdown-group" in given:
            default = 0 if domain.is_control else Constraints.__dataclass_fields__["shutdown_group"].default
            group = int_property("shutdown-group", given.pop("shutdown-group") or str(default))
            if not 0 <= group <= 15:
                raise RequestError("shutdown-group must be between 0 and 15", code="bad-property")
            constraints = replace(constraints, shutdown_group=group)
        per_core = self._host.size.strands_per_cpu
        constraints = take_core_properties(replace(domain, constraints=constraints), given, per_core)
        platform = dict(constraints.platform)
        for name, values in _PLATFORM.items():
            if name in given:
                value = given.pop(name)
                platform[name] = choice_property(name, value, values) if value and values else value
        refuse_unknown(given)
        kept = tuple(sorted((name, value) for name, value in platform.items() if value))
        return replace(domain, constraints=replace(constraints, platform=kept))

    def _masters(self, domain: Domain, text: str) -> tuple[str, ...]:
        masters = tuple(name for name in text.split(",") if name)
        if len(masters) > MAX_MASTERS:
            raise RequestError(f"a domain has at most {MAX_MASTERS} masters", code="bad-property")
        known = {other.name: other.constraints.masters for other in self._host.store.domains()}
        for master in masters:
            if master not in known:
                raise NotFound(f"LDom {master} was not found")
            if domain.name in _above(master, known):
                raise RequestError(
                    f"LDom {master} cannot be the master of LDom {domain.name}: that would be a circle",
                    code="dependency-circle",
                )
        return masters


def _above(master: str, masters: Mapping[str, tuple[str, ...]]) -> set[str]:
    """The domain and everything that it depends on."""
    found, pending = set(), [master]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(masters.get(name, ()))
    return found


def _uuid(text: str) -> str:
    if not text:
        return str(uuids.uuid4())
    try:
        return str(uuids.UUID(text))
    except ValueError as error:
        raise RequestError(f"'{text}' is not a UUID", code="bad-property") from error


def _hostid(text: str) -> str:
    if not text:
        return ""
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise RequestError(f"hostid={text} is not a hexadecimal number of at most 32 bits", code="bad-property")
    return f"{number:#010x}"
