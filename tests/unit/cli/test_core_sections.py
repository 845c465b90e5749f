"""Cores and pages of memory in listings: those that a domain has, and those that were named."""

from __future__ import annotations

import pytest

from ldoms.cli import domain_sections as of
from ldoms.model.domain import (
    Bindings,
    Constraints,
    CpuModel,
    Domain,
    DomainState,
    DomainStatus,
    DomainView,
    Machine,
    VcpuBinding,
)
from ldoms.model.services import Services


def view(constraints: Constraints, bindings: Bindings | None = None) -> DomainView:
    """A domain as the manager tells of it."""
    domain = Domain("u", "ldg1", "m", "h", 1, constraints, bindings=bindings)
    return DomainView(domain, DomainStatus(DomainState.ACTIVE, "-n----"))


def test_cores_that_were_named() -> None:
    """After what LDoms prints of cores, for people and for programs; all strands of each are the domain's."""
    constraints = Constraints(vcpus=4, whole_core=True, core_ids=(1, 3))
    (section,) = of.constraint(view(constraints))
    assert list(section.lines)[-2:] == ["physical-bindings=core", "cid=1,3"]
    assert section.records[0].endswith("|threading=max-throughput|physical-bindings=core|cid=1,3")
    bindings = Bindings((VcpuBinding(0, 4, 1),), (), idle=(5, 6, 7, 12, 13, 14, 15))
    (cores,) = of.core(view(constraints, bindings))
    assert list(cores.records) == ["CORE", "|cid=1|cpuset=4,5,6,7", "|cid=3|cpuset=12,13,14,15"]


def test_cores_that_were_not_named() -> None:
    """Nothing is said of them."""
    (section,) = of.constraint(view(Constraints(vcpus=4, whole_core=True)))
    assert section.records == ["CONSTRAINT|cpu=whole-core|max-cores=unlimited|threading=max-throughput"]


@pytest.mark.parametrize(
    ("features", "host", "sizes"),
    [
        (("lm", "pdpe1gb"), ("lm", "pdpe1gb"), ["effective-max-pagesize=1GB", "hardware-max-pagesize=1GB"]),
        (("lm",), ("lm", "pdpe1gb"), ["effective-max-pagesize=2MB", "hardware-max-pagesize=1GB"]),
        (None, ("lm",), ["hardware-max-pagesize=2MB"]),
    ],
)
def test_the_largest_pages(features: tuple[str, ...] | None, host: tuple[str, ...], sizes: list[str]) -> None:
    """What the guest's CPU knows, once it has one; what CPUs of the host can know."""
    machine = Machine("q35", "kvm", CpuModel("m", features), "10") if features else None
    bindings = Bindings((), (), machine=machine) if machine else None
    around = of.Surroundings(Services(), [], host)
    (section,) = of.control(view(Constraints(), bindings), around)
    assert list(section.lines)[-len(sizes) :] == sizes
    (asked,) = of.control(view(Constraints(), bindings))
    assert "pagesize" not in asked.records[0]
