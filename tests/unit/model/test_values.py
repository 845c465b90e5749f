"""Small things that values know about themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ldoms.model.domain import Domain, VirtualDisk, VirtualNetwork
from ldoms.model.errors import NotFound
from ldoms.model.findings import Finding, Severity, blocking
from ldoms.model.migration import (
    DescriptionAnswer,
    MigrationOptions,
    MigrationRecord,
    MigrationReport,
    Outcome,
    Preparation,
    Progress,
    Role,
)
from ldoms.model.phases import Phase
from ldoms.model.services import ConsoleConcentrator, Services, VirtualDiskService, VirtualSwitch, Volume

DOMAIN = Domain(
    uuid="uuid",
    name="ldg1",
    mac="00:14:4f:f8:00:01",
    hostid="0x84f80001",
    order=1,
    disks=(VirtualDisk("vdisk0", "root", "vds0", 0), VirtualDisk("vdisk1", "data", "vds0", 1)),
    networks=(VirtualNetwork("vnet0", "vsw0", 0, "00:14:4f:f8:00:02"),),
)
VDS = VirtualDiskService("vds0", volumes=(Volume("root", "/images/a.qcow2"),))
SERVICES = Services(
    disk_services=(VDS,),
    switches=(VirtualSwitch("vsw0", 0, "00:14:4f:f8:00:09"),),
    concentrators=(ConsoleConcentrator("vcc0", 5000, 5100),),
)


@pytest.mark.parametrize(
    ("transferred", "remaining", "percent"),
    [(0, 0, 0), (0, 100, 0), (50, 50, 50), (1, 299, 0), (299, 1, 99), (1000, 0, 99)],
)
def test_progress_is_never_complete_before_the_end(transferred: int, remaining: int, percent: int) -> None:
    """Nothing is divided by zero before it begins, and 100 is for the hand-off."""
    assert Progress("active", transferred_bytes=transferred, remaining_bytes=remaining).percent == percent


def test_a_report_of_a_migration_under_way_has_no_negative_time() -> None:
    """It has not ended: 0."""
    report = MigrationReport("m", "ldg1", "ldg1", "uuid", "t4-1", "t4-2", "root", True, Outcome.UNDER_WAY, 1000.0)
    assert report.total_s == 0.0


@pytest.mark.parametrize(
    ("look", "name", "complaint"),
    [
        (DOMAIN.disk, "vdisk1", "Disk other was not found in LDom ldg1"),
        (DOMAIN.network, "vnet0", "Virtual network other was not found in LDom ldg1"),
        (SERVICES.disk_service, "vds0", "Virtual disk service other was not found: it does not exist"),
        (SERVICES.switch, "vsw0", "Virtual switch other was not found"),
        (SERVICES.concentrator, "vcc0", "Virtual console concentrator other was not found"),
        (VDS.volume, "root", "Volume other@vds0 was not found: it does not exist"),
    ],
)
def test_things_are_found_by_name(look: Callable[[str], Any], name: str, complaint: str) -> None:
    """What is not there is named, with what it was looked for in."""
    assert look(name).name == name
    with pytest.raises(NotFound) as caught:
        look("other")
    assert caught.value.message == complaint


def test_every_address_of_a_domain_is_held() -> None:
    """Its own and those of its interfaces: none may be given to another."""
    assert DOMAIN.macs == ("00:14:4f:f8:00:01", "00:14:4f:f8:00:02")


@pytest.mark.parametrize(
    ("force", "stops"), [(False, {Severity.ERROR, Severity.OVERRIDABLE}), (True, {Severity.ERROR})]
)
def test_force_lets_pass_what_can_be_overridden(force: bool, stops: set[Severity]) -> None:
    """And nothing else; a warning never stops."""
    findings = [Finding("rule", severity, "a sentence", "a remedy") for severity in Severity]
    assert {finding.severity for finding in blocking(findings, force=force)} == stops


def test_secrets_are_not_in_what_is_printed() -> None:
    """A value may end up in a log or a message: the key of a stream and a migration's token must not."""
    options = MigrationOptions("t4-2")
    report = MigrationReport("m", "ldg1", "ldg1", "uuid", "t4-1", "t4-2", "root", True, Outcome.UNDER_WAY, 1000.0)
    nobody: Any = None
    values = (
        Preparation("m", 1, "t4-1", DOMAIN, "", True, "root", None, options, key="SECRET"),
        MigrationRecord("m", Role.SOURCE, "u", "ldg1", "t4-2", "", "SECRET", 1, Phase.COPY, 0.0, options, report),
        DescriptionAnswer(nobody, token="SECRET"),
    )
    for value in values:
        assert "SECRET" not in repr(value), f"{type(value).__name__} shows its secret"
