"""Virtual console concentrators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.manager.services import ServiceBook
from ldoms.model.domain import Domain
from ldoms.model.errors import RequestError
from ldoms.model.services import ConsoleConcentrator


class ConcentratorVerbs:
    """``add-vcc``, ``set-vcc``, ``remove-vcc``."""

    def __init__(self, host: Host, book: ServiceBook) -> None:
        self._host = host
        self._book = book

    def add(self, name: str, domain: str, port_range: str) -> None:
        """Make a console concentrator for the ports ``FIRST-LAST``."""
        services = self._book.new(name, domain, "virtual console concentrator", self._book.known.concentrators)
        low, high = _port_range(port_range)
        _check_overlap(low, high, services.concentrators)
        added = ConsoleConcentrator(name, low, high)
        self._book.save(replace(services, concentrators=(*services.concentrators, added)))

    def set(self, name: str, port_range: str) -> None:
        """Give a console concentrator other ports; those in use, and those asked for, must be among them.

        Raises:
            RequestError: a domain has, or asks for, a port of it that would be left out, or they overlap.
        """
        services = self._book.known
        before = services.concentrator(name)
        low, high = _port_range(port_range)
        others = tuple(known for known in services.concentrators if known.name != name)
        _check_overlap(low, high, others)
        for domain in self._host.store.domains():
            port = _port_of(domain, before)
            if port and not low <= port <= high:
                raise RequestError(
                    f"port {port} of virtual console concentrator {name} is attached to LDom {domain.name}, and is not"
                    f" in {port_range}: {'unbind it' if domain.is_bound else 'change its console'} first",
                    code="service-in-use",
                )
        changed = replace(before, port_min=low, port_max=high)
        concentrators = tuple(changed if known.name == name else known for known in services.concentrators)
        self._book.save(replace(services, concentrators=concentrators))

    def remove(self, name: str, *, force: bool) -> None:
        """Remove a console concentrator; with `force` also if an inactive domain asks for it."""
        services = self._book.known
        services.concentrator(name)
        for domain in self._host.store.domains():
            bound_to = domain.bindings.console_service if domain.bindings else ""
            if name in (domain.console.service, bound_to):
                self._book.check_may_go(domain, f"virtual console concentrator {name}", force=force)
        left = tuple(known for known in services.concentrators if known.name != name)
        self._book.save(replace(services, concentrators=left))


def _check_overlap(low: int, high: int, concentrators: Sequence[ConsoleConcentrator]) -> None:
    for other in concentrators:
        if low <= other.port_max and other.port_min <= high:
            raise RequestError(
                f"ports {low}-{high} overlap with those of virtual console concentrator {other.name}",
                code="bad-property",
            )


def _port_of(domain: Domain, concentrator: ConsoleConcentrator) -> int:
    """The port of a concentrator that a domain has, or asks for; 0 = none."""
    if domain.bindings is not None:
        return domain.bindings.console_port if domain.bindings.console_service == concentrator.name else 0
    port = domain.console.port
    return port if concentrator.port_min <= port <= concentrator.port_max else 0


def _port_range(text: str) -> tuple[int, int]:
    low, separator, high = text.partition("-")
    if not (separator and low.isdecimal() and high.isdecimal() and 1024 <= int(low) <= int(high) <= 65535):
        raise RequestError(
            f"port-range={text} has no meaning: give the first and the last port, such as 5000-5100",
            code="bad-property",
        )
    return int(low), int(high)
