"""The control domain: what it has at first, and on a machine that has changed."""

from __future__ import annotations

import uuid as uuids
from dataclasses import replace

from ldoms.model.domain import Bindings, Constraints, Domain
from ldoms.model.identity import CONTROL_DOMAIN, hostid_of
from ldoms.model.partition import HostSize, Partition, shrink_memory


def factory_default(size: HostSize, mac: str) -> Domain:
    """The control domain of a new host: it owns every strand and all memory."""
    partition = Partition(size, {})
    strands = tuple(size.strands)
    return Domain(
        uuid=str(uuids.uuid4()),
        name=CONTROL_DOMAIN,
        mac=mac,
        hostid=hostid_of(mac),
        order=0,
        constraints=Constraints(vcpus=len(strands), memory_mib=size.memory_mib, shutdown_group=0),
        bindings=Bindings(
            vcpus=partition.bind_vcpus(strands), memory=partition.pick_memory(size.memory_mib, CONTROL_DOMAIN)
        ),
    )


def fit(control: Domain, size: HostSize) -> Domain:
    """The control domain on a machine that has less than before; what is more than before stays free."""
    assert control.bindings is not None
    partition = Partition(size, {})
    kept = [strand for strand in control.bindings.strands if strand in size.strands] or [0]
    idle = tuple(strand for strand in control.bindings.idle if strand in size.strands)
    cores = tuple(core for core in control.constraints.core_ids if core < len(size.cpus))
    inside = tuple(
        block for block in control.bindings.memory if block.physical_address_mib + block.size_mib <= size.memory_mib
    ) or shrink_memory(control.bindings.memory, size.memory_mib)
    memory_mib = sum(block.size_mib for block in inside)
    return replace(
        control,
        constraints=replace(control.constraints, vcpus=len(kept), memory_mib=memory_mib, core_ids=cores),
        bindings=replace(control.bindings, vcpus=partition.bind_vcpus(kept), memory=inside, idle=idle),
    )
