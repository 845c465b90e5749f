"""Configurations: the whole layout of a host under a name, as LDoms keeps it on the service processor (spconfig)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum

from ldoms.model.domain import Constraints, Domain
from ldoms.model.errors import RequestError
from ldoms.model.identity import MAX_NAME, check_name
from ldoms.model.memory import at_start
from ldoms.model.services import Services

FACTORY_DEFAULT = "factory-default"
"""The configuration that is always there: the control domain owns everything, and there is nothing else."""
POST_MIGRATION = "@post-migration"
"""Written by managers after a migration; no name that a user may give begins so."""


class Recovery(IntEnum):
    """What is done at power-on about changes that were made after a configuration was saved."""

    LOG = 1
    NOTIFY = 2
    """And the next `ldm` command of an administrator says so."""
    RESTORE = 3


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything about a host that a name brings back.

    Attributes:
        saved_at: in seconds since 1970.
        domains: with their bindings; one whose guest ran when it was saved has its `started_at`.
    """

    name: str
    saved_at: float
    domains: tuple[Domain, ...] = ()
    services: Services = field(default_factory=Services)

    def is_same_layout(self, other: Configuration) -> bool:
        """Whether both describe the same host; whether guests run, and since when, is not part of that."""
        return _layout(self) == _layout(other)


@dataclass(frozen=True, slots=True)
class PendingChange:
    """What the control domain is to have from the next power-on (delayed reconfiguration); None = as now.

    Of `cpus` only what is about virtual CPUs and cores counts.
    """

    cpus: Constraints | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True)
class ConfigurationView:
    """A configuration in a listing.

    Attributes:
        is_current: what the host has now was made from it.
        is_next: the next power-on brings it.
        is_newer: an autosave, of changes that the configuration of this name does not have.
        domains: how many guest domains it has.
    """

    name: str
    saved_at: float
    is_current: bool = False
    is_next: bool = False
    is_newer: bool = False
    domains: int = 0


def check_configuration_name(name: str) -> str:
    """Return `name` if a user may give it to a configuration.

    Raises:
        RequestError: it is reserved, or no name.
    """
    if name == FACTORY_DEFAULT:
        raise RequestError(f"configuration {FACTORY_DEFAULT} cannot be changed: use another name", code="bad-name")
    if name == POST_MIGRATION:
        raise RequestError(
            f"configuration {POST_MIGRATION} is written after migrations: use another name", code="bad-name"
        )
    return check_name(
        name, f"configuration of at most {MAX_NAME} characters" if len(name) > MAX_NAME else "configuration"
    )


def guests_of(domains: Iterable[Domain]) -> tuple[Domain, ...]:
    """The guest domains among them."""
    return tuple(domain for domain in domains if not domain.is_control)


def _layout(configuration: Configuration) -> tuple[object, ...]:
    services = configuration.services
    # The format of a volume is found out, not asked for.
    disk_services = tuple(
        replace(service, volumes=tuple(replace(volume, format="") for volume in service.volumes))
        for service in services.disk_services
    )
    domains = sorted((_as_stopped(domain) for domain in configuration.domains), key=lambda one: one.uuid)
    return (tuple(domains), replace(services, disk_services=disk_services))


def _as_stopped(domain: Domain) -> Domain:
    """Without what only says that a guest runs, and for how long."""
    return replace(domain, started_at=0.0, bindings=domain.bindings and at_start(domain.bindings))
