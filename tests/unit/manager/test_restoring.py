"""Whatever a configuration says and the host has: nothing is given twice, nothing comes back that is elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ldoms.manager.control_domain import factory_default
from ldoms.manager.restoring import Situation, restore
from ldoms.model.configuration import FACTORY_DEFAULT, Configuration, guests_of
from ldoms.model.domain import Bindings, Constraints, Domain, MemoryBlock, VcpuBinding, VirtualDisk, VirtualNetwork
from ldoms.model.partition import HostSize
from ldoms.model.services import ConsoleConcentrator, Services, VirtualDiskService, VirtualSwitch, Volume

SIZE = HostSize((0, 1), 4, 8192)
CONTROL = factory_default(SIZE, "00:14:4f:f8:00:00")
SERVICES = Services(
    (VirtualDiskService("vds0", volumes=tuple(Volume(f"v{number}", f"/v{number}") for number in range(6))),),
    (VirtualSwitch("vsw0", 0, "00:14:4f:f8:00:ff"),),
    (ConsoleConcentrator("vcc0", 5000, 5100),),
)


@st.composite
def guests(draw: st.DrawFn) -> tuple[Domain, ...]:
    """Some of six domains; those that are bound hold parts of the host that do not overlap."""
    free = list(draw(st.permutations(range(8))))
    orders = list(draw(st.permutations(range(1, 10))))
    found = []
    for number in draw(st.lists(st.integers(1, 6), unique=True)):
        bindings = None
        if draw(st.booleans()) and len(free) > 2:
            block = free.pop()
            strands = [free.pop() for _ in range(draw(st.integers(0, 1)))] or [block]
            bindings = Bindings(
                tuple(VcpuBinding(vid, strand, strand // 4) for vid, strand in enumerate(strands)),
                (MemoryBlock(0, block * 1024, 1024),),
                "vcc0",
                5000 + block,
            )
        found.append(
            Domain(
                *(f"uuid-{number}", f"ldg{number}"),
                *(f"00:14:4f:f8:00:{number:02x}", "0x84f80000", orders.pop()),
                constraints=Constraints(1, 1024),
                disks=(VirtualDisk("d", f"v{number - 1}", "vds0", 0),),
                networks=(VirtualNetwork("n", "vsw0", 0, f"00:14:4f:f9:00:{number:02x}"),),
                bindings=bindings,
                started_at=draw(st.sampled_from([0.0, 5.0])),
            )
        )
    return tuple(found)


def control(domains: tuple[Domain, ...]) -> Domain:
    """The control domain with what the guests leave, as a host has it."""
    held = {strand for domain in domains if domain.bindings for strand in domain.bindings.strands}
    blocks = {block.physical_address_mib for domain in domains if domain.bindings for block in domain.bindings.memory}
    strands = [strand for strand in range(8) if strand not in held] or [0]
    memory = tuple(MemoryBlock(0, start, 1024) for start in range(0, 8192, 1024) if start not in blocks)
    vcpus = tuple(VcpuBinding(vid, strand, strand // 4) for vid, strand in enumerate(strands))
    return replace(
        CONTROL,
        constraints=replace(CONTROL.constraints, vcpus=len(vcpus), memory_mib=1024 * len(memory)),
        bindings=Bindings(vcpus, memory),
    )


SUBSETS = st.sets(st.sampled_from([f"uuid-{number}" for number in range(1, 7)]))


@settings(max_examples=400, deadline=None)
@given(guests(), guests(), SUBSETS, SUBSETS, SUBSETS, st.booleans(), st.booleans())
def test_the_rules_above_a_configuration(
    saved: tuple[Domain, ...],
    live: tuple[Domain, ...],
    held: set[str],
    arrived: set[str],
    away: set[str],
    is_factory: bool,
    has_services: bool,
) -> None:
    """Held domains stay as they are, those that came are kept, those that left are not; and all of it fits."""
    there = {domain.uuid for domain in live}
    held, arrived = held & there, arrived & there
    wanted = Configuration(FACTORY_DEFAULT, 1.0)
    if not is_factory:
        wanted = Configuration("mine", 1.0, (control(saved), *saved), SERVICES if has_services else Services())
    now = Situation(SIZE, (control(live), *live), SERVICES, held, arrived, away - there)
    restored = restore(wanted, now)
    after = {domain.uuid: domain for domain in guests_of(restored.domains)}

    assert {domain.uuid: domain for domain in live if domain.uuid in held}.items() <= after.items()
    assert not (now.away - held) & after.keys()
    if not is_factory:
        assert arrived <= after.keys()
        assert {domain.uuid for domain in saved} <= after.keys() | now.away
    else:
        assert after.keys() == held
    assert set(restored.rebind) <= {domain.uuid for domain in restored.domains if domain.bindings is None}

    for what in (
        [domain.name for domain in restored.domains],
        [domain.order for domain in restored.domains],
        [strand for domain in restored.domains if domain.bindings for strand in domain.bindings.strands],
        [port for domain in after.values() if domain.bindings for port in (domain.bindings.console_port,)],
        [
            mib
            for domain in restored.domains
            if domain.bindings
            for block in domain.bindings.memory
            for mib in range(block.physical_address_mib, block.physical_address_mib + block.size_mib, 256)
        ],
    ):
        twice = [entry for entry, count in Counter(what).items() if count > 1]
        assert not twice, f"given twice: {twice}"

    for domain in after.values():
        assert domain.uuid in held or domain.started_at == 0.0, "no guest has outlived the power loss"
        if domain.uuid in held | (arrived - {one.uuid for one in saved}):
            assert restored.services.switch("vsw0")
            assert restored.services.disk_service("vds0").volume(domain.disks[0].volume)
