"""``set-vcons``: the console that a domain asks for, and has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ldoms.manager import console_ports
from ldoms.manager.consoles import Consoles
from ldoms.manager.host import Host
from ldoms.manager.properties import choice_property, int_property, refuse_unknown
from ldoms.model.domain import ConsoleConstraint, Domain
from ldoms.model.errors import RequestError
from ldoms.model.identity import check_name


class ConsoleVerbs:
    """``set-vcons``, and the choice of a port for a domain that is bound."""

    def __init__(self, host: Host, consoles: Consoles) -> None:
        self._host = host
        self._consoles = consoles

    async def set(self, name: str, properties: Mapping[str, str]) -> Domain:
        """Say which concentrator, port and group the console of a domain is to have, and whether it is logged.

        What a bound domain is to have it gets at once.

        Args:
            name: of the domain.
            properties: ``service``, ``port``, ``group``, where an empty value means: any; and ``log``.

        Raises:
            RequestError: a property is wrong or clashes with that of another domain, or the domain is active and more
                than ``log`` is to be changed.
            NoResources: the domain is bound, and no such port is free.
        """
        with self._host.changing(name, "set-vcons") as domain:
            if domain.is_control:
                raise RequestError("LDom primary is the host itself and has no virtual console", code="control-domain")
            wanted = self._read(domain.console, dict(properties))
            is_moved = replace(wanted, log=domain.console.log) != domain.console
            changed = replace(domain, console=wanted)
            if is_moved:
                self._check_stopped(domain)
                console_ports.check_group(changed, self._others(domain))
            if is_moved and domain.is_bound:
                changed = await self._move(domain, changed)
            self._consoles.set_log(changed)
            return self._host.save(changed)

    def pick(self, domain: Domain) -> tuple[str, int]:
        """The concentrator and the port for the console of a domain. See `console_ports.pick`."""
        concentrators = self._host.store.services().concentrators
        return console_ports.pick(domain, self._others(domain), concentrators, self._consoles.can_listen)

    # Inside

    async def _move(self, domain: Domain, changed: Domain) -> Domain:
        """Give a bound domain the console that it asks for now; on failure it keeps the one that it has."""
        assert changed.bindings is not None
        service, port = self.pick(changed)
        moved = replace(changed, bindings=replace(changed.bindings, console_service=service, console_port=port))
        self._host.store.put_domain(moved)  # before the first wait: nobody else gets the same port
        await self._consoles.close_domain(
            domain.uuid, f"The console of LDom {domain.name} is now in group {moved.console_group}, port {port}."
        )
        try:
            await self._consoles.open(moved)
        except BaseException:
            self._host.store.put_domain(domain)
            await self._consoles.reopen(domain)
            raise
        return moved

    def _read(self, console: ConsoleConstraint, given: dict[str, str]) -> ConsoleConstraint:
        default = ConsoleConstraint()
        if "service" in given:
            service = given.pop("service")
            if service:
                self._host.store.services().concentrator(service)
            console = replace(console, service=service)
        if "group" in given:
            group = given.pop("group")
            console = replace(console, group=check_name(group, "console group") if group else "")
        if "port" in given:
            console = replace(console, port=int_property("port", given.pop("port") or "0"))
        if "log" in given:
            word = choice_property("log", given.pop("log"), ("on", "off", ""))
            console = replace(console, log={"on": True, "off": False}.get(word, default.log))
        refuse_unknown(given)
        self._check_port(console)
        return console

    def _check_port(self, console: ConsoleConstraint) -> None:
        concentrators = self._host.store.services().concentrators
        if console.service:
            concentrators = tuple(known for known in concentrators if known.name == console.service)
        if console.port and not any(known.port_min <= console.port <= known.port_max for known in concentrators):
            raise RequestError(
                f"port {console.port} is not in the range of a virtual console concentrator", code="bad-property"
            )

    def _check_stopped(self, domain: Domain) -> None:
        if self._host.guests.get(domain.uuid) is not None:
            raise RequestError(
                f"LDom {domain.name} is active: stop it before port, group or service of its console can be changed;"
                " only log= can be changed while it runs",
                code="domain-active",
            )

    def _others(self, domain: Domain) -> list[Domain]:
        return [other for other in self._host.store.domains() if other.uuid != domain.uuid and not other.is_control]
