"""Measures what a forecast stands on, while the checks go on: the guest's memory, the link, the control domain."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.migration.forecast import (
    ASSUMED_BYTES_S,
    ASSUMED_SPREAD,
    Lessons,
    bounded,
    forecast,
    learn,
    link_of_history,
    rates_of_history,
)
from ldoms.migration.local import ControlUse, LocalHost
from ldoms.migration.peer import Peer
from ldoms.migration.trial import try_link
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.forecast import DirtyRate, Forecast, ForecastBasis, LinkSource, LinkSpeed, MemoryUse
from ldoms.model.migration import CheckFacts, MigrationPlan, MigrationReport
from ldoms.model.sizes import MIB

THOROUGH_WINDOWS_S = (0.2, 0.8)
"""One after the other beside the checks of a dry run."""
LONG_WINDOW_S = 1.6
"""Beside the trial of the link."""
QUICK_WINDOWS_S = (0.05, 0.15)
"""For a migration, which does not wait for them."""
REMEMBERED_S = 600.0
"""So long the trial of an earlier dry run counts."""
REMEMBERED_SPREAD = 0.2

_log = structlog.get_logger(__name__)


class Forecasting:
    """The measurements for one migration."""

    def __init__(self, local: LocalHost, guest: Guest, uuid: str, *, thorough: bool) -> None:
        """Begin to look at `guest`, whose domain has that UUID; `thorough` for a dry run, which takes its time."""
        self._local = local
        self._guest = guest
        self._thorough = thorough
        self._memory: MemoryUse | None = None
        self._tried: LinkSpeed | None = None
        self._rates: list[DirtyRate] = []
        self._reports = local.past_migrations(uuid)
        self._began = asyncio.get_running_loop().time()
        self._control = local.control_use()
        self._check_s = 0.0
        self._looking = asyncio.create_task(self._look(), name=f"forecast-{uuid}")

    async def close(self) -> None:
        """Look no further."""
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    def checked(self) -> None:
        """The checks are over: how long they took is known."""
        self._check_s = asyncio.get_running_loop().time() - self._began

    async def measure(self, facts: CheckFacts, plan: MigrationPlan, peer: Peer, migration: str) -> None:
        """Wait for all measurements, and try the link. It takes some two seconds."""
        await self._looking
        size = self._memory.nonzero_bytes if self._memory else _memory_bytes(facts)
        long_window = asyncio.create_task(self._window(LONG_WINDOW_S), name="forecast-window")
        try:
            self._tried = await try_link(self._local, peer, migration, plan, size)
            if not plan.max_bandwidth_bytes_s:
                self._local.remember_link(facts.target.host.identity, plan.encrypted, self._tried)
        except LdomsError as error:
            _log.warning("link-not-tried", reason=error.message)
        finally:
            await long_window

    def known_link(self, facts: CheckFacts) -> LinkSpeed | None:
        """What the link to the target carries, as far as that was measured before."""
        encrypted = facts.options.encrypted
        known = self._local.recall_link(facts.target.host.identity, encrypted, REMEMBERED_S)
        return known or link_of_history([one for one in self._reports if _is_between(one, facts)], encrypted)

    @property
    def control_cpus(self) -> float:
        """CPUs that the control domain of this host has."""
        return self._control.cpus

    def guess(self, facts: CheckFacts, plan: MigrationPlan) -> Forecast:
        """Forecast from what is known by now, and wait for nothing."""
        alike = [one for one in self._reports if one.plan is None or one.plan.compression == plan.compression]
        lessons: Lessons = learn(alike)
        control: ControlUse = self._local.control_use()
        basis = ForecastBasis(
            memory=self._memory,
            dirty_rates=(*self._rates, *rates_of_history(self._reports, self._rates)),
            link=self._known_link(facts, plan),
            round_trip_s=2 * facts.clock.uncertainty_s,
            control_cpus=control.cpus,
            control_busy=control.busy_since(self._control),
            control_shared=control.shared,
            check_s=self._check_s,
        )
        return forecast(basis, plan, lessons, _memory_bytes(facts))

    # Inside

    async def _look(self) -> None:
        with suppress(HostError):
            self._memory = await self._guest.memory_use()
        for window_s in THOROUGH_WINDOWS_S if self._thorough else QUICK_WINDOWS_S:
            await self._window(window_s)

    async def _window(self, window_s: float) -> None:
        try:
            self._rates.append(DirtyRate(window_s, await self._guest.dirty_rate(window_s)))
        except HostError as error:
            _log.warning("dirty-rate-unknown", reason=error.message)

    def _known_link(self, facts: CheckFacts, plan: MigrationPlan) -> LinkSpeed:
        if self._tried is not None:
            return self._tried
        known = self.known_link(facts) or LinkSpeed(ASSUMED_BYTES_S, ASSUMED_SPREAD, LinkSource.ASSUMED)
        if known.source is LinkSource.PROBE:
            known = replace(known, spread=max(known.spread, REMEMBERED_SPREAD), source=LinkSource.EARLIER_PROBE)
        return bounded(known, plan)


def _memory_bytes(facts: CheckFacts) -> int:
    bindings = facts.domain.domain.bindings
    return bindings.memory_mib * MIB if bindings else 0


def _is_between(report: MigrationReport, facts: CheckFacts) -> bool:
    return {report.source, report.target} == {facts.source.name, facts.target.host.name}
