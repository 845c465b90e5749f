"""Cryptographic units: a number that scripts set, kept with the domain."""

from __future__ import annotations

from pathlib import Path

from ldoms.manager.manager import Manager
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost


def test_the_number_is_kept(tmp_path: Path) -> None:
    """Added to, set and taken from, also of a bound domain; nothing else changes, and a restart remembers it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        assert manager.crypto.add("ldg1", 3).constraints.crypto_units == 3
        await manager.life.bind("ldg1")
        assert manager.crypto.remove("ldg1", 1).constraints.crypto_units == 2
        before = manager.host.store.domain("ldg1")
        assert manager.crypto.set("ldg1", 0).bindings == before.bindings
        manager.crypto.set("ldg1", 1)
        await host.stop()
        again = await host.start()
        assert again.host.store.domain("ldg1").constraints.crypto_units == 1

    at_desk(tmp_path, work)
