"""Which port the console of a domain gets: pure. Domains that name the same group share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ldoms.model.domain import Domain
from ldoms.model.errors import NoResources, RequestError
from ldoms.model.services import ConsoleConcentrator


def pick(
    domain: Domain,
    others: Sequence[Domain],
    concentrators: Sequence[ConsoleConcentrator],
    can_listen: Callable[[int], bool],
) -> tuple[str, int]:
    """The concentrator and the port for the console of a domain that is about to be bound.

    Args:
        domain: with what was asked of its console.
        others: all other domains of the host.
        concentrators: of the host.
        can_listen: whether a port is free as far as other programs go.

    Raises:
        RequestError: there is no concentrator, or its group has another port or concentrator than it asks for.
        NoResources: no port is free, or the one that it asks for is taken.
    """
    member = check_group(domain, others)
    if member is not None:
        assert member.bindings is not None
        return member.bindings.console_service, member.bindings.console_port
    wished, service = domain.console.port, domain.console.service
    usable = [known for known in concentrators if service in ("", known.name)]
    if not usable:
        which = f"no virtual console concentrator {service}" if service else "no virtual console concentrator"
        raise RequestError(
            f"LDom {domain.name} cannot have a console: there is {which}; add one"
            f" ('ldm add-vcc port-range=5000-5100 {service or 'primary-vcc0'} primary')",
            code="no-concentrator",
        )
    taken = {other.bindings.console_port: other for other in others if other.bindings}
    for concentrator in usable:
        for port in _candidates(concentrator, wished):
            if port not in taken and can_listen(port):
                return concentrator.name, port
    reason = f"port {wished} is taken" if wished else "no console port is free"
    if wished in taken:
        reason += f" by console group {taken[wished].console_group}, which is that of LDom {taken[wished].name}"
    raise NoResources(f"LDom {domain.name} cannot have a console: {reason}", code="no-console-port")


def check_group(domain: Domain, others: Sequence[Domain]) -> Domain | None:
    """A bound domain whose group this one is to share, if there is one.

    Raises:
        RequestError: the group has another port, or another concentrator, than this domain asks for.
    """
    member = next((other for other in others if other.bindings and other.console_group == domain.console_group), None)
    if member is None:
        return None
    assert member.bindings is not None
    asked: tuple[tuple[str, int | str, int | str], ...] = (
        ("port", domain.console.port, member.bindings.console_port),
        ("service", domain.console.service, member.bindings.console_service),
    )
    for what, wished, given in asked:
        if wished and wished != given:
            raise RequestError(
                f"LDom {domain.name} asks for console {what} {wished}, but its console group {domain.console_group} has"
                f" {what} {given}, from LDom {member.name}: consoles of one group share one port",
                code="console-group-clash",
            )
    return member


def _candidates(concentrator: ConsoleConcentrator, wished: int) -> range:
    everything = range(concentrator.port_min, concentrator.port_max + 1)
    if not wished:
        return everything
    return range(wished, wished + 1) if wished in everything else range(0)
