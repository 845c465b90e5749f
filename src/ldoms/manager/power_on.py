"""What comes back when the host was off: the configuration for this power-on, and the guests that start by themselves.

A restart of the manager alone changes nothing: the host was off if its boot id is another one, and no guest is left.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import replace

import structlog

from ldoms.manager.configurations import CURRENT, NEXT, ConfigurationVerbs
from ldoms.manager.consoles import Consoles
from ldoms.manager.host import Host
from ldoms.manager.life import LifeVerbs
from ldoms.manager.reconfiguration import Reconfiguration
from ldoms.manager.restoring import Restored, Situation, restore
from ldoms.manager.switches import SwitchVerbs
from ldoms.manager.taps import Taps
from ldoms.model.configuration import FACTORY_DEFAULT, Configuration, Recovery, guests_of
from ldoms.model.dependencies import start_order
from ldoms.model.domain import Domain
from ldoms.model.errors import HostError, LdomsError, NotFound
from ldoms.model.events import EventKind

BOOT_ID, TO_START, NOTICE = "boot-id", "to-start", "notice"
"""Under which the store remembers the boot id, the UUIDs of domains yet to be started, and what to tell somebody."""
AUTO_BOOT = "auto-boot?"
PATIENCE_S = 900.0
"""How long a domain waits to be started until its migration is settled; longer than any of those tries."""
LOOK_S = 1.0

_log = structlog.get_logger(__name__)


class PowerOn:
    """Sees whether the host was off, and brings back what there is to bring back."""

    def __init__(
        self,
        host: Host,
        configurations: ConfigurationVerbs,
        reconfiguration: Reconfiguration,
        life: LifeVerbs,
        switches: SwitchVerbs,
        consoles: Consoles,
    ) -> None:
        self._host = host
        self._store = host.store
        self._configurations = configurations
        self._reconfiguration = reconfiguration
        self._life = life
        self._switches = switches
        self._consoles = consoles
        self._starting: asyncio.Task[None] | None = None
        self._is_closing = False

    async def look(self, *, is_any_alive: bool) -> None:
        """If the host was off, bring back the configuration for this power-on.

        Args:
            is_any_alive: a guest was found, so that the host was not off, whatever its boot id says.
        """
        before = self._store.recall(BOOT_ID)
        was_off = bool(before and self._host.boot_id) and before != self._host.boot_id
        if was_off and is_any_alive:
            _log.error("boot-id-changed", consequence="guests run, so that the host cannot have been off")
        if not was_off or is_any_alive:
            self._store.remember(BOOT_ID, self._host.boot_id)
            return
        current = self._configurations.current
        chosen = self._configurations.chosen
        name = chosen or current
        there = {domain.uuid for domain in self._store.domains()}
        wanted = self._choose(name)
        _log.info("host-was-off", configuration=name, restores=wanted is not None)
        if wanted is not None:
            await self._bring_back(wanted)
        await self._reconfiguration.apply()
        self._remember_starts(there if wanted is not None and not chosen else None)

    def start_domains(self) -> None:
        """Start, one after the other, the domains that start by themselves and have not been started yet."""
        if self._store.recall(TO_START):
            self._starting = asyncio.create_task(self._start_all(), name="start-domains")

    def take_notice(self) -> str:
        """What somebody who uses the manager has to be told, once; or empty."""
        notice = self._store.recall(NOTICE)
        if notice:
            self._store.remember(NOTICE, "")
        return notice

    async def close(self) -> None:
        """Finish what is being started; what is left is started after the next start of the manager."""
        self._is_closing = True
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)

    # What comes back

    def _choose(self, name: str) -> Configuration | None:
        """The configuration to bring back; None if the host stays as it was.

        What is replaced is kept as the autosave of the configuration that it belongs to.
        """
        current, policy = self._configurations.current, Recovery(self._host.config.ldmd.autorecovery_policy)
        if name == FACTORY_DEFAULT and not self._configurations.chosen:
            return None  # nothing was ever saved: the host remembers all by itself
        saved = Configuration(FACTORY_DEFAULT, time.time())
        if name != FACTORY_DEFAULT:
            found = self._store.configuration(name)
            if found is None:
                _log.error("configuration-missing", configuration=name, consequence="the host stays as it was")
                return None
            saved = found
        live = self._configurations.snapshot(current)
        if self._configurations.is_newer(live):
            is_recovery = name == current and bool(self._configurations.chosen)
            if is_recovery:
                # Somebody has asked for just this one: what it replaces is kept, but is not what is to be had again.
                live = replace(live, saved_at=saved.saved_at)
            elif name == current and policy is Recovery.RESTORE:
                _log.info("autosave-restored", configuration=name)
                self._store.put_configuration(live)
                return None
            self._store.put_configuration(live, autosaved=True)
        autosave = self._store.configuration(name, autosaved=True)
        if autosave is None or name == FACTORY_DEFAULT or not self._configurations.is_newer(autosave):
            return saved
        if policy is Recovery.RESTORE:
            _log.info("autosave-restored", configuration=name)
            self._store.put_configuration(autosave)
            self._store.delete_configuration(name, autosaved=True)
            return autosave
        notice = (
            f"configuration {name} was restored as it was saved; changes that were made after that are in its autosave:"
            f" 'ldm add-spconfig -r {name}' and the next power-on bring them back"
        )
        _log.warning("autosave-newer", configuration=name, remedy=notice)
        if policy is Recovery.NOTIFY:
            self._store.remember(NOTICE, notice)
        return saved

    async def _bring_back(self, wanted: Configuration) -> None:
        before = guests_of(self._store.domains())
        situation = self._situation(wanted)
        restored = restore(wanted, situation)
        for name, reason in restored.left_out:
            _log.warning("domain-not-restored", domain=name, reason=reason)
        loose = [domain for domain in before if domain.uuid not in situation.held]
        for domain in loose:
            await self._consoles.close_domain(domain.uuid)
            await Taps(self._host).remove_all(domain)
        kept = {switch.name for switch in restored.services.switches}
        for switch in situation.services.switches:
            if switch.name not in kept:
                with suppress(HostError):
                    await self._host.network.remove_switch(switch)
        self._write(wanted, loose, restored)
        await self._switches.restore()
        await self._rebind(restored)
        await self._host.place_control()
        for domain in guests_of(restored.domains):
            if domain.uuid not in situation.held:
                await self._open_console(domain.uuid)

    def _situation(self, wanted: Configuration) -> Situation:
        domains = self._store.domains()
        unsettled = {record.uuid for record in self._store.migrations(unsettled=True)}
        held = {domain.uuid for domain in domains if domain.uuid in unsettled or not self._host.is_owner(domain.uuid)}
        return Situation(
            size=self._host.size,
            domains=domains,
            services=self._store.services(),
            held=held,
            arrived={domain.uuid for domain in domains if self._store.ownership(domain.uuid) is not None},
            away={domain.uuid for domain in guests_of(wanted.domains) if self._host.has_left(domain.uuid)},
        )

    def _write(self, wanted: Configuration, loose: list[Domain], restored: Restored) -> None:
        with self._store.transaction():
            for domain in loose:
                self._store.delete_domain(domain.uuid)
            self._store.put_services(restored.services)
            for domain in restored.domains:
                self._store.put_domain(domain)
            self._store.remember(CURRENT, wanted.name)
            self._store.remember(NEXT, "")
            self._host.events.publish(
                EventKind.CONFIGURATION_RESTORED,
                configuration=wanted.name,
                domains=len(guests_of(restored.domains)),
                left_out=[name for name, _ in restored.left_out],
            )

    async def _rebind(self, restored: Restored) -> None:
        """Bind domains again whose strands, memory or port others have now; one that cannot be bound stays inactive."""
        for uuid, bindings in restored.rebind.items():
            domain = self._store.domain_by_uuid(uuid)
            assert domain is not None
            try:
                # What the guest sees stays the same: its machine, and the place of each device.
                given = self._life.make_bindings(domain, bindings)
            except LdomsError as error:
                _log.error("domain-not-bound", domain=domain.name, reason=error.message)
                continue
            self._host.save(replace(domain, bindings=given), EventKind.DOMAIN_BOUND)

    async def _open_console(self, uuid: str) -> None:
        domain = self._store.domain_by_uuid(uuid)
        if domain is not None and domain.bindings is not None:
            await self._consoles.reopen(domain)

    # Guests that start by themselves

    def _remember_starts(self, there: Set[str] | None) -> None:
        """Note which domains are to be started, together with the boot id, so that a crash now loses none of them.

        Args:
            there: UUIDs of the domains that were there when the host went down. One that was removed before has come
                back with the configuration, but may have been made again elsewhere. None = that does not matter.
        """
        starting = [domain for domain in self._store.domains() if _starts_by_itself(domain)]
        for domain in starting:
            if there is not None and domain.uuid not in there:
                reason = "it was removed after the configuration was saved, and may run elsewhere now"
                _log.warning("domain-not-started", domain=domain.name, reason=reason)
        ordered = start_order(domain for domain in starting if there is None or domain.uuid in there)
        with self._store.transaction():
            self._store.remember(TO_START, json.dumps([domain.uuid for domain in ordered]) if ordered else "")
            self._store.remember(BOOT_ID, self._host.boot_id)

    async def _start_all(self) -> None:
        waiting = list(json.loads(self._store.recall(TO_START)))
        # Those that wait for a migration to be settled do not hold the others up.
        for patience_s in (0.0, PATIENCE_S):
            for uuid in list(waiting):
                if self._is_closing:
                    return
                if await self._is_free(uuid, patience_s):
                    await self._start(uuid)
                elif not patience_s or self._is_closing:
                    continue
                waiting.remove(uuid)
                self._store.remember(TO_START, json.dumps(waiting) if waiting else "")

    async def _is_free(self, uuid: str, patience_s: float) -> bool:
        """Whether nothing holds the domain any more."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while self._is_held(uuid):
            if self._is_closing or loop.time() >= deadline:
                if patience_s and not self._is_closing:
                    _log.error("domain-not-started", uuid=uuid, reason="its migration is not settled")
                return False
            await asyncio.sleep(LOOK_S)
        return True

    def _is_held(self, uuid: str) -> bool:
        domain = self._store.domain_by_uuid(uuid)
        if domain is None:
            return False
        busy = bool(self._host.operations.holder(domain.name))
        unsettled = any(record.uuid == uuid for record in self._store.migrations(unsettled=True))
        return busy or unsettled or not self._host.is_owner(uuid)

    async def _start(self, uuid: str) -> None:
        domain = self._store.domain_by_uuid(uuid)
        if domain is None or not _starts_by_itself(domain) or self._host.guests.get(uuid) is not None:
            return  # it has moved on meanwhile, or somebody was faster
        try:
            await self._life.start(domain.name)
        except NotFound:
            return
        except LdomsError as error:
            _log.error("domain-not-started", domain=domain.name, reason=error.message)


def _starts_by_itself(domain: Domain) -> bool:
    """Whether its guest is started at power-on: it is bound, and its variables say so."""
    return domain.is_bound and not domain.is_control and domain.variable(AUTO_BOOT) == "true"
