"""A switch whose uplink has gone, as when a network card was renamed: one trouble, not the end of the manager."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeWorld
from ldoms.migration.fake import FakeLink
from ldoms.storage.fake import FakeDisks
from unit.clock import run
from unit.migration.harness import FakeHost


def test_the_manager_starts_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guests that run are found again, migrations go on, the other switches are there; the log says what is missing."""

    async def main() -> None:
        host = FakeHost("t4-1", FakeLink(), FakeWorld(), FakeDisks(), tmp_path)
        host.network.interfaces |= {"eth1", "eth2"}
        manager = await host.start()
        for name, uplink in (("vsw0", "eth1"), ("vsw1", "eth2")):
            await manager.switches.add(name, "primary", {"net-dev": uplink})
        await host.stop()
        host.network.interfaces.remove("eth1")
        host.network.bridges.clear()
        capsys.readouterr()
        await host.start()
        assert {switch.name for switch in host.network.bridges.values()} >= {"vsw1"}
        await host.stop()

    run(main())
    said = capsys.readouterr().out
    assert "switch-not-restored" in said
    assert "there is no interface eth1" in said
