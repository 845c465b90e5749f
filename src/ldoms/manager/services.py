"""What all virtual services have in common: how they are written, and when one may go."""

from __future__ import annotations

from ldoms.manager.host import Host
from ldoms.model.domain import Domain
from ldoms.model.errors import AlreadyExists, RequestError
from ldoms.model.events import EventKind
from ldoms.model.identity import CONTROL_DOMAIN, check_name
from ldoms.model.services import ConsoleConcentrator, Services, VirtualDiskService, VirtualSwitch


class ServiceBook:
    """The virtual services of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def known(self) -> Services:
        """The services as they are now."""
        return self._host.store.services()

    def save(self, services: Services) -> None:
        """Write them, and tell everybody."""
        with self._host.store.transaction():
            self._host.store.put_services(services)
            self._host.events.publish(EventKind.SERVICES_CHANGED)

    def new(
        self,
        name: str,
        domain: str,
        kind: str,
        known: tuple[VirtualDiskService | VirtualSwitch | ConsoleConcentrator, ...],
    ) -> Services:
        """All services, to which one of a new name is to be added.

        Raises:
            RequestError: the name is wrong, or the domain is not the control domain.
            AlreadyExists: it is taken.
        """
        check_name(name, kind)
        if domain != CONTROL_DOMAIN:
            self._host.store.domain(domain)
            raise RequestError(
                f"LDom {domain} cannot be a service domain: on this platform services belong to {CONTROL_DOMAIN}",
                code="no-service-domain",
            )
        if any(service.name == name for service in known):
            raise AlreadyExists(f"{kind} {name} already exists")
        return self.known

    @staticmethod
    def check_may_go(domain: Domain, what: str, *, force: bool) -> None:
        """Make sure that a domain that uses `what` can do without it.

        Raises:
            RequestError: it is bound; or inactive, without `force`.
        """
        if domain.is_bound:
            raise RequestError(
                f"{what} is attached to LDom {domain.name}, which is bound: unbind it first", code="service-in-use"
            )
        if not force:
            raise RequestError(
                f"{what} is attached to LDom {domain.name}: remove it there first, or use -f", code="service-in-use"
            )
