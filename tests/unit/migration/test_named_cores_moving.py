"""A domain whose cores were named: it moves to those that it is to have on the target, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldoms.model.cores import CpuChange, Unit
from ldoms.model.operation import OperationStatus
from unit.clock import run
from unit.migration.harness import DOMAIN, Pair


@pytest.mark.parametrize("state", ["active", "bound"])
def test_it_is_told_which_cores_it_is_to_have(state: str, tmp_path: Path) -> None:
    """Without that it stays; a core that is not free there will not do."""

    async def main() -> None:
        pair = Pair(tmp_path)
        await pair.set_up(state)
        await pair.manager.vcpus.change(DOMAIN, CpuChange("set", Unit.CORES, core_ids=(1,)))
        assert pair.target.manager is not None
        await pair.target.manager.vcpus.change("primary", CpuChange("set", Unit.CORES, core_ids=(1,)))
        for core_map, sentence in (
            ((), "core 1 was named for LDom ldg1, and t4-2 has cores of its own"),
            (((1, 1),), "core 1 of t4-2, which cidmap= gives to LDom ldg1, is not free"),
        ):
            refused = await pair.wait(pair.migrate(core_map=core_map))
            assert refused.status is OperationStatus.FAILURE
            assert sentence in str(refused.error)
        moved = await pair.wait(pair.migrate(core_map=((1, 0),)))
        assert moved.status is OperationStatus.SUCCESS, moved.error
        await pair.settle()
        pair.check_sound()
        domain = pair.target.store.domain(DOMAIN)
        assert domain.bindings is not None
        assert (domain.constraints.core_ids, {vcpu.core for vcpu in domain.bindings.vcpus}) == ((0,), {0})
        await pair.source.stop()
        await pair.target.stop()

    run(main())
