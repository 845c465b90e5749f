"""What a guest says of itself: asked only where it runs and has an agent, else refused in a sentence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ldoms.manager.manager import Manager
from ldoms.model.errors import HostError, NotFound, RequestError
from ldoms.model.guest import CpuTimes
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost


def test_the_times_of_a_guests_cpus(tmp_path: Path) -> None:
    """As its agent tells them, with the moment by the host's clock."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        assert host.guest is not None
        host.guest.agent.used_s = {0: 2.5}
        began = time.time()
        answer = await manager.inside.cpus("ldg1")
        assert answer.cpus == (CpuTimes(0, user_s=2.5, system_s=0.0, idle_s=0.0),)
        assert began <= answer.at <= time.time()

    at_desk(tmp_path, work)


def test_who_cannot_be_asked(tmp_path: Path) -> None:
    """A domain that is not there, one whose guest does not run, and one without an agent."""

    async def work(host: FakeHost, manager: Manager) -> None:
        with pytest.raises(NotFound):
            await manager.inside.cpus("ldg9")
        with pytest.raises(RequestError) as refused:
            await manager.inside.cpus("ldg1")
        assert refused.value.code == "domain-not-active"
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        assert host.guest is not None
        host.guest.agent.is_there = False
        with pytest.raises(HostError) as failed:
            await manager.inside.cpus("ldg1")
        assert failed.value.code == "no-agent"

    at_desk(tmp_path, work)
