"""Cryptographic units (mau): of SPARC processors; scripts set them, so the number is kept and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.model.domain import Domain
from ldoms.model.errors import RequestError

MAX_UNITS = 4096


class CryptoVerbs:
    """``add-crypto``, ``set-crypto``, ``remove-crypto``."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def add(self, name: str, count: int) -> Domain:
        """Ask for `count` more of them."""
        return self._set(name, "add-crypto", lambda now: now + count)

    def set(self, name: str, count: int) -> Domain:
        """Ask for `count` of them."""
        return self._set(name, "set-crypto", lambda now: count)

    def remove(self, name: str, count: int) -> Domain:
        """Ask for `count` less of them."""
        return self._set(name, "remove-crypto", lambda now: now - count)

    def _set(self, name: str, verb: str, change: Callable[[int], int]) -> Domain:
        with self._host.changing(name, verb) as domain:
            now = domain.constraints.crypto_units
            wanted = change(now)
            if not 0 <= wanted <= MAX_UNITS:
                raise RequestError(
                    f"LDom {name} asks for {now} cryptographic units and cannot ask for {wanted}: the number is from 0"
                    f" to {MAX_UNITS}",
                    code="bad-property",
                    now=now,
                )
            return self._host.save(replace(domain, constraints=replace(domain.constraints, crypto_units=wanted)))
