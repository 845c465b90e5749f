"""A manager's answers, as a client of a host with a few domains gets them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from ldoms.api.client import Client
from ldoms.hypervisor.fake import FACTS
from ldoms.model.codec import to_wire
from ldoms.model.configuration import ConfigurationView
from ldoms.model.domain import (
    Bindings,
    ConsoleConstraint,
    Constraints,
    CpuArch,
    CpuModel,
    Domain,
    DomainState,
    DomainStatus,
    DomainView,
    Machine,
    MemoryBlock,
    MigrationStatus,
    Threading,
    VcpuBinding,
    VirtualDisk,
    VirtualNetwork,
)
from ldoms.model.errors import LdomsError, NotFound
from ldoms.model.events import CommandRecord
from ldoms.model.findings import Finding, Severity
from ldoms.model.forecast import DirtyRate, Forecast, ForecastBasis, LinkSource, LinkSpeed, MemoryUse, Range
from ldoms.model.guest import GuestTime, TimeService
from ldoms.model.host import FAULT, OK, HostFacts, HostView, MemoryView, StrandView
from ldoms.model.logs import LogKind, LogSwitch
from ldoms.model.migration import (
    ClockReading,
    GuestClock,
    MigrationPlan,
    MigrationReport,
    Outcome,
    PassRecord,
    PhaseRecord,
)
from ldoms.model.netdev import NetClass, NetCounters, NetDevice, NetDevices
from ldoms.model.partition import HostSize
from ldoms.model.phases import Phase
from ldoms.model.policy import Policy, PolicyStatus
from ldoms.model.services import ConsoleConcentrator, Services, VirtualDiskService, VirtualSwitch, Volume
from ldoms.model.vnet import Protection, Pvlan, PvlanType

MACHINE = Machine("pc-q35-10.0", "tcg", CpuModel("qemu64-v1", ("lm",)), "10.0.2")
STARTED = 1_700_000_000.0


def _vcpus(*strands: int) -> tuple[VcpuBinding, ...]:
    return tuple(VcpuBinding(vid, strand, strand // 4) for vid, strand in enumerate(strands))


PRIMARY = DomainView(
    Domain(
        *("f063b0a8-8fb0-4e61-cd5b-91826d2c1550", "primary", "00:14:4f:f8:00:01", "0x84f80001", 0),
        constraints=Constraints(vcpus=2, memory_mib=4096, shutdown_group=0),
        bindings=Bindings(_vcpus(0, 1), (MemoryBlock(0, 0, 4096),)),
    ),
    DomainStatus(
        DomainState.ACTIVE, "-n-cv-", 7.04, (6.9, 7.2), 45 * 86400 + 8 * 3600 + 6 * 60, "", None, 6.9, (6.8, 7.0)
    ),
)
LDG1 = DomainView(
    Domain(
        *("b0b0b0b0-0000-4000-8000-000000000001", "ldg1", "00:14:4f:f9:c1:7d", "0x84f9c17d", 1),
        constraints=Constraints(2, 1025, CpuArch.GENERIC, masters=("primary",), platform=(("boot-policy", "warning"),)),
        variables=(("auto-boot?", "false"), ("boot-device", "disk net")),
        disks=(
            VirtualDisk("vdisk0", "ldg1-root", "primary-vds0", 0),
            VirtualDisk("vdisk1", "data", "primary-vds0", 3, 60),
        ),
        networks=(VirtualNetwork("vnet0", "primary-vsw0", 0, "00:14:4f:fb:2d:7f", linkprop="phys-state"),),
        bindings=Bindings(_vcpus(2, 3), (MemoryBlock(0, 4096, 1028),), "primary-vcc0", 5000, MACHINE),
    ),
    DomainStatus(
        *(DomainState.ACTIVE, "-n----", 100.0, (100.0, 99.97), 8160.0, "Linux running"),
        disk_paths=(("vdisk1", "data2@primary-vds0"),),
    ),
)
LONG = DomainView(
    Domain(
        *("b0b0b0b0-0000-4000-8000-000000000002", "app-production-01", "00:14:4f:f9:00:02", "0x84f90002", 2),
        constraints=Constraints(4, 2048, crypto_units=2),
        networks=(
            VirtualNetwork(
                *("vnet0", "primary-vsw0", 0, "00:14:4f:fb:00:02", 1500, 10, "", (20, 30), ("00:14:4f:fb:00:04",)),
                *(Pvlan(100, PvlanType.ISOLATED), 1_500_000_000, ("192.0.2.7", "2001:db8::/64")),
                *((Protection.MAC_NOSPOOF, Protection.IP_NOSPOOF), (("cos", "3"), ("mode", "hybrid"))),
            ),
        ),
        policies=(
            Policy("high-usage", True, 1, 2, 16, 25, 75, "09:00:00", "18:00:00", 10, 5, 8, 10),
            Policy("rest"),
        ),
        console=ConsoleConstraint(group="apps"),
        bindings=Bindings(_vcpus(4, 5, 6, 7), (MemoryBlock(0, 5124, 2048),), "primary-vcc0", 5004, MACHINE),
    ),
    DomainStatus(
        *(DomainState.ACTIVE, "-n---s", 0.3, (0.3, 0.3, 0.3, 0.3), 23.0, ""),
        MigrationStatus("migration", "source", "t4-2", "copy", 17),
        policies=(
            PolicyStatus("high-usage", True, 82.04, 60, 3, 1, "LDom app-production-01 cannot get 5 virtual CPUs"),
            PolicyStatus("rest", False),
        ),
    ),
)
BOUND = DomainView(
    Domain(
        *("b0b0b0b0-0000-4000-8000-000000000003", "ldg3", "00:14:4f:f9:00:03", "0x84f90003", 3),
        constraints=Constraints(1, 512),
        bindings=Bindings(_vcpus(8), (MemoryBlock(0, 7172, 512),), "primary-vcc0", 5001, MACHINE),
    ),
    DomainStatus(
        *(DomainState.BOUND, "-----t", None, (), None, ""),
        MigrationStatus("migration", "target", "t4-3", "hand-off", 99, error=True),
    ),
)
INACTIVE = DomainView(
    Domain(
        *("b0b0b0b0-0000-4000-8000-000000000004", "ldg4", "00:14:4f:f9:00:04", "0x84f90004", 4),
        constraints=Constraints(4, 8192),
    ),
    DomainStatus(DomainState.INACTIVE, "------"),
)
BARE = DomainView(
    Domain("b0b0b0b0-0000-4000-8000-000000000005", "ldg5", "00:14:4f:f9:00:05", "0x84f90005", 5),
    DomainStatus(DomainState.INACTIVE, "------"),
)
WHOLE_CORE = DomainView(
    Domain(
        *("b0b0b0b0-0000-4000-8000-000000000006", "ldg6", "00:14:4f:f9:00:06", "0x84f90006", 6),
        constraints=Constraints(2, 1024, whole_core=True, max_cores=4, threading=Threading.MAX_IPC),
        bindings=Bindings(
            (VcpuBinding(0, 8, 2), VcpuBinding(3, 12, 3)),
            (MemoryBlock(0, 8192, 1024),),
            *("primary-vcc0", 5002, MACHINE),
            parked=(1, 2),
            idle=(9, 10, 11, 13, 14, 15),
        ),
    ),
    DomainStatus(DomainState.ACTIVE, "-n----", 15.0, (10.0, 20.0), 8160.0, "", None, 15.0, (10.0, 20.0)),
)
VIEWS = (PRIMARY, LDG1, LONG, BOUND, INACTIVE, BARE)
ALL_VIEWS = (*VIEWS, WHOLE_CORE)
"""Listings of all domains show the first ones."""

SERVICES = Services(
    disk_services=(
        VirtualDiskService(
            "primary-vds0",
            volumes=(
                Volume("ldg1-root", "/shared/ldg1.qcow2", format="qcow2"),
                Volume("data", "/dev/sdb", ("ro", "slice"), "group1", "raw"),
            ),
        ),
        VirtualDiskService("primary-vds1"),
    ),
    switches=(
        VirtualSwitch("primary-vsw0", 0, "00:14:4f:fa:46:6a", net_dev="net0"),
        VirtualSwitch(
            *("primary-vsw1", 1, "00:14:4f:fa:46:6b", "primary", "", 10, 20, 9000, "phys-state", "sc", "auto", (30, 40))
        ),
    ),
    concentrators=(ConsoleConcentrator("primary-vcc0", 5000, 5100),),
)

HOST = HostView(
    HostFacts(*("t4-1", "SHA256:00ff", "0.1.0", 1, HostSize((0, 1, 2, 3), 4, 16384), "a processor", ("aes",), FACTS)),
    strands=tuple(
        StrandView(
            strand,
            strand // 4,
            next((v.domain.name for v in VIEWS if v.domain.bindings and strand in v.domain.bindings.strands), ""),
            FAULT if strand == 7 else OK,
        )
        for strand in range(16)
    ),
    memory=(
        MemoryView(0, 4096, "primary"),
        MemoryView(4096, 1028, "ldg1"),
        MemoryView(5124, 2048, "app-production-01"),
        MemoryView(7172, 512, "ldg3"),
        MemoryView(7684, 8700, ""),
    ),
)

NETWORK_DEVICES = (
    NetDevices(
        "primary",
        STARTED,
        (
            NetDevice(
                *("net0", NetClass.PHYS, "up", 1500, ("52:54:00:00:00:01",), 10000, "vsw0", "primary-vsw0@primary"),
                *(68, 9216, (), NetCounters(2_930_000, 4_305_000_000, 12, 800)),
            ),
            NetDevice(
                *("vsw0", NetClass.VSW, "up", 1500, ("00:14:4f:fa:46:6a",), 0, "", "primary-vsw0@primary", 68, 65535),
                *(("198.51.100.1/24", "fe80::1/64"), NetCounters()),
            ),
        ),
    ),
    NetDevices(
        "ldg1",
        STARTED,
        (
            NetDevice(
                *("vnet0", NetClass.VNET, "up", 1500, ("00:14:4f:fb:2d:7f",), 0, "primary-vsw0@primary", "vnet1.0"),
                *(68, 1500, (), NetCounters(5, 1023, 6, 1024, 1, 2, 3, 4)),
            ),
        ),
    ),
    NetDevices("ldg4", STARTED, ()),
)

FORECAST = Forecast(
    total_s=Range(1.5, 2.25, 3.4),
    suspension_s=Range(0.03, 0.055, 0.12),
    bytes=Range(200 << 20, 210 << 20, 220 << 20),
    slowdown_percent=Range(5.0, 10.0, 25.0),
    passes=3,
    converges=True,
    basis=ForecastBasis(
        memory=MemoryUse(512 << 20, 200 << 20),
        dirty_rates=(DirtyRate(0.2, 30 << 20), DirtyRate(0.8, 5 << 20)),
        link=LinkSpeed(125e6, 0.1, LinkSource.PROBE),
        working_set_bytes=8 << 20,
        control_cpus=2,
        control_busy=0.25,
        control_shared=True,
        migrations=3,
    ),
)
DONE = MigrationReport(
    *("0a1b2c3d-0000-4000-8000-000000000001", "ldg1", "ldg1", LDG1.domain.uuid, "t4-1", "t4-2", "tracy", True),
    *(Outcome.DONE, STARTED, STARTED + 2.5),
    phases=tuple(
        PhaseRecord(phase, STARTED + number, seconds)
        for number, (phase, seconds) in enumerate(zip(Phase, (0.1, 0.4, 1.9, 0.06, 0.04), strict=True))
    ),
    passes=(PassRecord(1, 1.5, 200 << 20, 8 << 20), PassRecord(2, 0.4, 8 << 20, 1 << 20)),
    plan=MigrationPlan(
        ("events", "multifd"), 2, "AES", "none", 0, 0.03, 0.3, {"channels": "two of them", "encryption": "AES"}
    ),
    findings=(Finding("enough-vcpus", Severity.WARNING, "LDom ldg1 has 2 virtual CPUs", "move it at a quiet time"),),
    clock=ClockReading(0.0012, 0.0004),
    guest_time=GuestTime(-0.091, 0.002, TimeService("chrony", synchronised=False)),
    guest_clock=GuestClock(-0.151, 0.002),
    stopped_at=STARTED + 2.4,
    resumed_at=STARTED + 2.46,
    downtime_s=0.041,
    stop_resume_s=0.06,
    transferred_bytes=219_000_000,
    bandwidth_bytes_s=1.2e8,
    forecast=FORECAST,
)
FAILED = MigrationReport(
    *("ffff2c3d-0000-4000-8000-000000000002", "ldg4", "ldg4x", INACTIVE.domain.uuid, "t4-1", "t4-2", "root", False),
    *(Outcome.FAILED, STARTED + 100, STARTED + 100.25),
    phases=(PhaseRecord(Phase.CHECK, STARTED + 100, 0.25),),
    cause="LDom ldg4x already exists on t4-2",
)
CONFIGURATIONS = (
    ConfigurationView("factory-default", 0.0),
    ConfigurationView("initial", STARTED, is_current=True, domains=2),
    ConfigurationView("@post-migration", STARTED + 9, is_next=True, domains=1),
)
AUTOSAVES = (
    ConfigurationView("initial", STARTED + 5, is_current=True, is_newer=True, domains=3),
    ConfigurationView("old", STARTED),
)
COMMANDS = (
    CommandRecord(STARTED, "root", "start-domain ldg1", True),
    CommandRecord(STARTED + 5, "tracy", "set-vcpu 99 ldg1", False),
    CommandRecord(STARTED + 9, "root", "stop-domain ldg1", None, ("0a1b2c3d",)),
)


LOG = tuple(LogSwitch(kind, kind is not LogKind.DEBUG, kind not in (LogKind.CMD, LogKind.DEBUG)) for kind in LogKind)


class Office(Client):
    """A client whose manager is a dictionary; everything that is sent is kept."""

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.sent: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], Any] = {}
        self.streams: list[list[Any]] = []

    def get(self, path: str, **query: Any) -> Any:
        if path == "/domains":
            names = query.get("name") or []
            wanted = [names] if isinstance(names, str) else list(names)
            unknown = set(wanted) - {view.domain.name for view in ALL_VIEWS}
            if unknown:
                raise NotFound(f"LDom {min(unknown)} was not found")
            return to_wire([view for view in ALL_VIEWS if (view in VIEWS and not wanted) or view.domain.name in wanted])
        known: Mapping[str, Any] = {
            "/services": SERVICES,
            "/host": HOST,
            "/migrations": (DONE, FAILED),
            f"/migrations/{DONE.id[:8]}": DONE,
            "/history": COMMANDS,
            "/log": LOG,
            "/configurations": CONFIGURATIONS,
            "/autosaves": AUTOSAVES,
            "/network-devices": NETWORK_DEVICES,
            "/constraints": {"xml": "<LDM_interface>\n</LDM_interface>\n"},
            "/trust": [{"host": "t4-2", "fingerprint": "SHA256:11aa"}],
        }
        if path not in known:
            raise NotFound(f"{path} was not found")
        return to_wire(known[path])

    def stream(self, path: str) -> Any:
        self.sent.append(("STREAM", path, None))
        yield from self.streams.pop(0)

    def _call(self, method: str, path: str, body: Any, query: Any = None) -> Any:
        self.sent.append((method, path, body if body is not None else query))
        answer = self.answers.get((method, path))
        if isinstance(answer, LdomsError):
            raise answer
        return answer


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Office:
    """What `ldm` talks to in a test."""
    made = Office()
    monkeypatch.setattr("ldoms.cli.dispatch.Client", lambda *arguments, **options: made)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return made
