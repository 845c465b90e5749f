"""What ``-p`` prints of any host at all, read back by the grammar, is that host."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ldoms.cli.main import run
from ldoms.model.codec import to_wire
from ldoms.model.domain import DomainView
from ldoms.model.host import HostView
from ldoms.model.services import Services
from unit.cli.test_listings import Record, parse

NAMES = st.from_regex(r"[a-z][a-z0-9.:;~()#+_-]{0,8}", fullmatch=True)
EXAMPLES = 12

SPEC: Mapping[str, Sequence[str]] = {
    "DOMAIN": ("name", "state", "flags", "cons", "ncpu", "mem", "util", "uptime", "norm_util"),
    "UUID": ("uuid",),
    "MAC": ("mac-addr",),
    "HOSTID": ("hostid",),
    "CONTROL": ("failure-policy", "extended-mapin-space", "cpu-arch"),
    "DEPENDENCY": ("master",),
    "VDS": ("name", "nclients"),
    "VSW": ("name", "mac-addr", "net-dev", "dev", "id", "default-vlan-id", "pvid", "vid", "mtu"),
    "VCC": ("name", "port-range"),
    "VNET": ("name", "dev", "service", "mac-addr", "mode", "pvid", "vid", "mtu", "linkprop", "id"),
    "VDISK": ("name", "vol", "timeout", "dev", "server", "mpgroup", "id"),
}
"""The keys of a record in their order: more may only follow."""
MORE: Mapping[str, Sequence[str]] = {
    "CORE": ("cid", "cpuset"),
    "VCPU": ("vid", "pid", "util", "strand", "cid"),
    "MEMORY": ("ra", "pa", "size"),
    "STATUS": ("op", "progress", "error"),
}
"""The same for the lines that continue a record."""


def values(kind: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Values of a type of the model: of any size and shape, made of words that may be in it."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in get_args(kind) if choice is not type(None)]
        return st.one_of(st.none(), values(choices[0], name))
    if origin is tuple:
        items = get_args(kind)
        if len(items) == 2 and items[1] is Ellipsis:
            return st.lists(values(items[0], name), max_size=3).map(tuple)
        return st.tuples(*(values(item) for item in items))
    if origin in (dict, Mapping):
        return st.dictionaries(NAMES, values(get_args(kind)[1]), max_size=2)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    if dataclasses.is_dataclass(kind):
        return _record(kind)
    if name == "flags":
        return st.sampled_from(["-n-cv-", "-n----", "------", "sn----", "-----t", "-n---e"])
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: NAMES,
        int: st.integers(0, 1 << 16),
        float: st.floats(0, 100),
        bool: st.booleans(),
    }
    return plain.get(kind, st.none())


def _record(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{one.name: values(hints[one.name], one.name) for one in dataclasses.fields(kind)})


class AnyHost:
    """A manager that has what an example is made of."""

    def __init__(self, views: Sequence[DomainView], services: Services) -> None:
        self.notices: list[str] = []
        host = {"facts": {"hypervisor": {"cpu_features": ["lm"]}}}
        self._answers = {"/domains": to_wire(views), "/services": to_wire(services), "/host": host}

    def get(self, path: str, **query: Any) -> Any:
        return self._answers[path]

    def fetch(self, kind: Any, path: str, **query: Any) -> Any:
        from ldoms.model.codec import from_wire

        return from_wire(kind, self.get(path))


def printed(monkeypatch: pytest.MonkeyPatch, host: AnyHost, *words: str) -> list[Record]:
    out = io.StringIO()
    monkeypatch.setattr("ldoms.cli.dispatch.Client", lambda *arguments, **options: host)
    with contextlib.redirect_stdout(out):
        assert run(words) == 0
    return parse(out.getvalue())


def check_keys(records: Sequence[Record]) -> None:
    """Keys begin with those of LDoms in their order; each keyword stands alone or has its keys, as LDoms has it."""
    for record in records:
        if record.keyword in SPEC and not (record.keyword in ("VCPU", "MEMORY", "MAU") and record.values):
            expected = SPEC[record.keyword]
            assert tuple(record.values)[: len(expected)] == tuple(expected), record
        if record.keyword in MORE and not record.values:
            for line in record.more:
                expected = MORE[record.keyword]
                assert tuple(line)[: len(expected)] == tuple(expected), record


def of_one(records: Sequence[Record], position: int) -> list[Record]:
    """The records of one domain."""
    starts = [at for at, record in enumerate(records) if record.keyword == "DOMAIN"] + [len(records)]
    return list(records[starts[position] : starts[position + 1]])


def check_domain(view: DomainView, records: Sequence[Record]) -> None:
    """Everything about a domain that a script can read."""
    domain, status, bindings = view.domain, view.status, view.domain.bindings
    by_keyword = {record.keyword: record for record in records}
    head = by_keyword["DOMAIN"].values
    assert (head["name"], head["state"]) == (domain.name, status.state.value)
    assert head["util"] == ("" if status.utilisation is None else f"{status.utilisation:.1f}")
    assert head["uptime"] == ("" if status.uptime_s is None else str(int(status.uptime_s)))
    assert by_keyword["UUID"].values == {"uuid": domain.uuid}
    assert by_keyword["MAC"].values == {"mac-addr": domain.mac}
    assert by_keyword["HOSTID"].values == {"hostid": domain.hostid}
    control = by_keyword["CONTROL"].values
    assert control["cpu-arch"] == domain.constraints.cpu_arch.value
    assert control["failure-policy"] == domain.constraints.failure_policy.value
    assert by_keyword["DEPENDENCY"].values["master"] == ",".join(domain.constraints.masters)
    if bindings is None:
        assert head["ncpu"] == str(domain.constraints.vcpus or "")
        assert head["mem"] == str(domain.constraints.memory_mib << 20 or "")
    else:
        assert head["mem"] == str(sum(block.size_mib for block in bindings.memory) << 20 or "")
        assert [(line["vid"], line["pid"], line["cid"]) for line in by_keyword["VCPU"].more] == [
            (str(vcpu.vid), str(vcpu.strand), str(vcpu.core)) for vcpu in bindings.vcpus
        ]
        assert [
            (int(line["ra"], 16), int(line["pa"], 16), int(line["size"])) for line in by_keyword["MEMORY"].more
        ] == [
            (block.real_address_mib << 20, block.physical_address_mib << 20, block.size_mib << 20)
            for block in bindings.memory
        ]
    shown = (
        {name: value for line in by_keyword["VARIABLES"].more for name, value in line.items()}
        if domain.variables
        else {}
    )
    assert shown == dict(domain.variables)
    disks = [record.values for record in records if record.keyword == "VDISK"]
    assert [(one["name"], one["vol"], one["timeout"], one["dev"], one["id"]) for one in disks] == [
        (disk.name, f"{disk.volume}@{disk.service}", str(disk.timeout_s or ""), f"disk@{disk.id}", str(disk.id))
        for disk in domain.disks
    ]
    networks = [record.values for record in records if record.keyword == "VNET"]
    assert [(one["name"], one["dev"], one["mac-addr"], one["pvid"], one["linkprop"]) for one in networks] == [
        (network.name, f"network@{network.id}", network.mac, str(network.pvid), network.linkprop)
        for network in domain.networks
    ]


def check_services(services: Services, records: Sequence[Record]) -> None:
    """Everything about services that a script can read."""
    found = {keyword: [one for one in records if one.keyword == keyword] for keyword in ("VCC", "VSW", "VDS")}
    assert [(one.values["name"], one.values["port-range"]) for one in found["VCC"]] == [
        (service.name, f"{service.port_min}-{service.port_max}") for service in services.concentrators
    ]
    assert [(one.values["name"], one.values["mac-addr"], one.values["mtu"]) for one in found["VSW"]] == [
        (switch.name, switch.mac, str(switch.mtu)) for switch in services.switches
    ]
    assert [one.values["name"] for one in found["VDS"]] == [service.name for service in services.disk_services]
    volumes = [line for one in found["VDS"] for line in one.more if "dev" in line]
    assert [tuple(line.values())[:4] for line in volumes] == [
        (volume.name, ",".join(volume.options), volume.backend, volume.mpgroup)
        for service in services.disk_services
        for volume in service.volumes
    ]


ANY_HOST = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


@pytest.mark.parametrize("words", [("list", "-l", "-p"), ("list-bindings", "-p"), ("list", "-e", "-p")], ids=" ".join)
def test_domains_read_back(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """All sections of all domains."""

    @ANY_HOST
    @given(st.lists(values(DomainView), max_size=3), values(Services))
    def reads_back(views: list[DomainView], services: Services) -> None:
        for view in views:
            assume(len({name for name, _ in view.domain.variables}) == len(view.domain.variables))
        records = printed(monkeypatch, AnyHost(views, services), *words)
        check_keys(records)
        assert [one.values["name"] for one in records if one.keyword == "DOMAIN"] == [one.domain.name for one in views]
        for position, view in enumerate(views):
            check_domain(view, of_one(records, position))

    reads_back()


def test_the_list_reads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record for each domain, its flags in letters."""

    @ANY_HOST
    @given(st.lists(values(DomainView), max_size=4))
    def reads_back(views: list[DomainView]) -> None:
        records = printed(monkeypatch, AnyHost(views, Services()), "list", "-p")
        check_keys(records)
        assert [(one.values["name"], one.values["flags"]) for one in records] == [
            (view.domain.name, view.status.flags) for view in views
        ]

    reads_back()


def test_services_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever services there are."""

    @ANY_HOST
    @given(values(Services))
    def reads_back(services: Services) -> None:
        records = printed(monkeypatch, AnyHost([], services), "list-services", "-p")
        check_keys(records)
        check_services(services, records)

    reads_back()


def test_devices_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strands and memory, free and taken: every one is there, and what is free says so."""

    @ANY_HOST
    @given(values(HostView))
    def reads_back(host: HostView) -> None:
        any_host = AnyHost([], Services())
        any_host._answers["/host"] = to_wire(host)
        records = {one.keyword: one for one in printed(monkeypatch, any_host, "list-devices", "-a", "-p")}
        strands = records["VCPU"].more if host.strands else []
        assert [(line["pid"], line["free"]) for line in strands] == [
            (str(strand.strand), "0" if strand.holder else "100") for strand in host.strands
        ]
        blocks = records["MEMORY"].more if host.memory else []
        assert [(int(line["pa"], 16), int(line["size"]), line.get("bound", "")) for line in blocks] == [
            (block.address_mib << 20, block.size_mib << 20, block.holder) for block in host.memory
        ]

    reads_back()


@pytest.mark.parametrize("name", ["console", "core", "cpu", "crypto", "disk", "domain", "memory", "network", "status"])
def test_every_format_reads_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the grammar, with the keys of LDoms first."""

    @ANY_HOST
    @given(st.lists(values(DomainView), min_size=1, max_size=2), values(Services))
    def reads_back(views: list[DomainView], services: Services) -> None:
        for view in views:
            assume(len({variable for variable, _ in view.domain.variables}) == len(view.domain.variables))
        records = printed(monkeypatch, AnyHost(views, services), "list", "-o", name, "-p")
        check_keys(records)
        assert all(re.fullmatch(r"[A-Z0-9]+", record.keyword) for record in records)

    reads_back()


@pytest.mark.parametrize(
    "text",
    [
        "VERSION 1.11\nUUID|new=1|uuid=2\n",
        "VERSION 1.11\nMEMORY\n|pa=0x0|ra=0x0|size=1\n",
        "VERSION 1.11\nDOMAIN|name=a|name=b\n",
        "DOMAIN|name=a\n",
        "VERSION 1.11\ndomain|name=a\n",
    ],
)
def test_the_check_can_fail(text: str) -> None:
    """A key before those of LDoms, a wrong order, a key twice, no version, a keyword in small letters."""
    with pytest.raises(AssertionError):
        check_keys(parse(text))


def test_constraints_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each domain asks for, whether it has been given it or not."""

    @ANY_HOST
    @given(st.lists(values(DomainView), max_size=3), values(Services))
    def reads_back(views: list[DomainView], services: Services) -> None:
        records = printed(monkeypatch, AnyHost(views, services), "list-constraints", "-p")
        check_keys([one for one in records if one.keyword != "DOMAIN"])
        assert [one.values for one in records if one.keyword == "DOMAIN"] == [
            {"name": view.domain.name} for view in views
        ]
        for position, view in enumerate(views):
            domain, asked = view.domain, view.domain.constraints
            of_it = of_one(records, position)
            known = {one.keyword: one.values for one in of_it}
            assert known["UUID"] == {"uuid": domain.uuid}
            assert known.get("VCPU", {}) == ({"count": str(asked.vcpus)} if asked.vcpus else {})
            assert known.get("MEMORY", {}) == ({"size": str(asked.memory_mib << 20)} if asked.memory_mib else {})
            for keyword, devices in (("VDISK", domain.disks), ("VNET", domain.networks)):
                names = [one.values["name"] for one in of_it if one.keyword == keyword]
                assert names == [device.name for device in devices]

    reads_back()
