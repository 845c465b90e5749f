"""Virtual console concentrators."""

from __future__ import annotations

from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.manager.services import ServiceBook
from ldoms.model.errors import RequestError
from ldoms.model.services import ConsoleConcentrator


class ConcentratorVerbs:
    """``add-vcc``, ``remove-vcc``."""

    def __init__(self, host: Host, book: ServiceBook) -> None:
        self._host = host
        self._book = book

    def add(self, name: str, domain: str, port_range: str) -> None:
        """Make a console concentrator for the ports ``FIRST-LAST``."""
        services = self._book.new(name, domain, "virtual console concentrator", self._book.known.concentrators)
        low, high = _port_range(port_range)
        for other in services.concentrators:
            if low <= other.port_max and other.port_min <= high:
                raise RequestError(
                    f"ports {port_range} overlap with those of virtual console concentrator {other.name}",
                    code="bad-property",
                )
        added = ConsoleConcentrator(name, low, high)
        self._book.save(replace(services, concentrators=(*services.concentrators, added)))

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


def _port_range(text: str) -> tuple[int, int]:
    low, separator, high = text.partition("-")
    if not (separator and low.isdigit() and high.isdigit() and 1024 <= int(low) <= int(high) <= 65535):
        raise RequestError(
            f"port-range={text} has no meaning: give the first and the last port, such as 5000-5100",
            code="bad-property",
        )
    return int(low), int(high)
