# ruff: noqa: E501 - the table reads best with a case a line

"""Descriptions as XML: what is written is read back, what LDoms writes is understood, what is hostile is refused."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldoms.constraints import PROPERTIES, info_properties, read_description, write_description
from ldoms.constraints.mapping import MORE, NOT_DESCRIBED, RESOURCES, kinds_of, text_of, value_of
from ldoms.model.domain import (
    ConsoleConstraint,
    Constraints,
    CpuArch,
    Domain,
    FailurePolicy,
    VirtualDisk,
    VirtualNetwork,
)
from ldoms.model.errors import RequestError
from ldoms.model.services import ConsoleConcentrator, Services, VirtualDiskService, VirtualSwitch, Volume

GOLDEN = Path(__file__).with_name("golden.xml")
CONTROL = Domain(
    *("f063b0a8-8fb0-4e61-cd5b-91826d2c1550", "primary", "00:14:4f:f8:00:01", "0x84f80001", 0),
    constraints=Constraints(vcpus=2, memory_mib=4096, shutdown_group=0),
)
GUEST = Domain(
    *("b0b0b0b0-0000-4000-8000-000000000001", "ldg1", "00:14:4f:f9:c1:7d", "0x84f9c17d", 1),
    constraints=Constraints(2, 1025, CpuArch.GENERIC, masters=("primary",), platform=(("boot-policy", "warning"),)),
    variables=(("auto-boot?", "false"), ("nvramrc", "devalias a b\n boot")),
    disks=(VirtualDisk("vdisk0", "root", "primary-vds0", 0), VirtualDisk("vdisk1", "data", "primary-vds0", 3, 60)),
    networks=(VirtualNetwork("vnet0", "primary-vsw0", 0, "00:14:4f:fb:2d:7f", linkprop="phys-state"),),
    console=ConsoleConstraint(group="apps", port=5001),
)
SERVICES = Services(
    disk_services=(
        VirtualDiskService(
            "primary-vds0",
            volumes=(
                Volume("root", "/shared/ldg1.qcow2", format="qcow2"),
                Volume("data", "/dev/sdb", ("ro", "slice"), "group1", "raw"),
            ),
        ),
    ),
    switches=(VirtualSwitch("primary-vsw0", 0, "00:14:4f:fa:46:6a", net_dev="net0", mtu=9000),),
    concentrators=(ConsoleConcentrator("primary-vcc0", 5000, 5100),),
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_+#.:;~()-]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MACS = st.integers(0, (1 << 24) - 1).map(lambda low: f"00:14:4f:{low >> 16:02x}:{low >> 8 & 255:02x}:{low & 255:02x}")
SPECIAL: Mapping[str, st.SearchStrategy[Any]] = {
    "name": NAMES,
    "mac": MACS,
    "uuid": st.uuids().map(str),
    "hostid": st.integers(0, (1 << 32) - 1).map(lambda number: f"{number:#010x}"),
    "memory_mib": st.integers(0, 1 << 40),
    "platform": st.dictionaries(st.sampled_from(["boot-policy", "perf-counters", "x y", "\x01"]), TEXTS).map(
        lambda pairs: tuple(sorted(pairs.items()))
    ),
}
BASIC: Mapping[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(0, 1 << 40),
    float: st.floats(0, 1e9, allow_nan=False),
    bool: st.booleans(),
}


def values(kind: type, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any value of a dataclass, whatever fields it has got."""
    return st.builds(
        kind, **{name: fixed.get(name, SPECIAL.get(name, any_of(hint))) for name, hint in kinds_of(kind).items()}
    )


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of an annotation of the model."""
    if hint in BASIC:
        return BASIC[hint]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return values(hint)
    if getattr(hint, "__origin__", None) is tuple:
        inner = hint.__args__
        if len(inner) == 2 and inner[1] is Ellipsis:
            return st.lists(any_of(inner[0]), max_size=4).map(tuple)
        return st.tuples(*map(any_of, inner))
    return st.from_type(hint)


def unique(strategy: st.SearchStrategy[Any], *keys: str) -> st.SearchStrategy[Any]:
    """Some of them, no two of which share one of the keys."""
    by = tuple(lambda value, key=key: getattr(value, key) for key in keys)  # type: ignore[misc]
    return st.lists(strategy, max_size=3, unique_by=by).map(tuple)


DOMAINS = values(
    Domain,
    **{name: st.just(Domain.__dataclass_fields__[name].default) for name in NOT_DESCRIBED - {"order"}},
    order=st.just(0),
    disks=unique(values(VirtualDisk), "name", "id"),
    networks=unique(values(VirtualNetwork), "name", "id"),
    variables=st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3).map(lambda known: tuple(sorted(known.items()))),
)
SERVICE_SETS = st.builds(
    Services,
    disk_services=unique(values(VirtualDiskService, volumes=unique(values(Volume), "name")), "name"),
    switches=unique(values(VirtualSwitch), "name", "id"),
    concentrators=unique(values(ConsoleConcentrator), "name"),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(DOMAINS, max_size=3, unique_by=lambda domain: domain.name), DOMAINS, SERVICE_SETS)
def test_what_is_written_is_read_back(guests: list[Domain], control: Domain, services: Services) -> None:
    """Every field of every domain and service, also those that the model will get some day; nothing is left out."""
    domains = [replace(control, name="primary"), *(guest for guest in guests if guest.name != "primary")]
    again = read_description(write_description(domains, services))
    assert [described.domain for described in again.domains] == domains
    assert again.services == services
    assert again.warnings == ()


def test_every_field_has_its_place() -> None:
    """Of a domain, all but what belongs to this host and this moment; two fields never share a key."""
    written = {"name", "uuid", "mac", "hostid", "constraints", "variables", "disks", "networks", "console", "policies"}
    more = {known.name for known in MORE.fields().values()}
    assert {known.name for known in dataclasses.fields(Domain)} == written | more | NOT_DESCRIBED
    for resource in RESOURCES:
        names = {known.name for known in dataclasses.fields(resource.kind)}
        covered = {known.name for known in resource.fields().values()} | {resource.address} | resource.elsewhere
        assert names == covered - {""} & names, resource.name
        assert set(resource.keys) - {"log"} <= names, f"{resource.name} has a key for a field that is not there"
    info = [resource for resource in RESOURCES if resource.name == "ldom_info"]
    keys = [key for resource in info for key in resource.fields()]
    assert len(keys) == len(set(keys))


def test_a_new_field_of_the_model_needs_no_line() -> None:
    """It is written under its own name when it has a value, and read back."""

    @dataclasses.dataclass(frozen=True)
    class Policy:
        name: str
        limits: tuple[int, ...] = ()

    policies = (Policy("a,b", (1, 2)), Policy("c"))
    kind = tuple[Policy, ...]
    assert value_of(kind, text_of(kind, policies)) == policies
    for kind_, value in ((tuple[str, ...], ("a,b", "")), (tuple[int, ...], (1, 2)), (bool, True), (float, 0.5)):
        assert value_of(kind_, text_of(kind_, value)) == value


def test_the_layout_is_the_golden_one() -> None:
    """As LDoms writes it; after a change that is meant, LDOMS_WRITE_GOLDEN=1 writes it anew: read the difference."""
    text = write_description([CONTROL, GUEST], SERVICES)
    if os.environ.get("LDOMS_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


LDOMS = """<?xml version="1.0"?>
<LDM_interface version="1.3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:noNamespaceSchemaLocation="./schemas/combined-v3.xsd" xmlns:ovf="./schemas/envelope"
 xmlns:rasd="./schemas/CIM_ResourceAllocationSettingData" xmlns:vssd="./schemas/CIM_VirtualSystemSettingData"
 xmlns:gprop="./schemas/GenericProperty" xmlns:bind="./schemas/Binding">
  <cmd><action>add-domain</action>
  <data version="3.0">
    <Envelope>
      <References/>
      <!-- a comment -->
      <Content xsi:type="ovf:VirtualSystem_Type" id="ldg1">
        <Section xsi:type="ovf:ResourceAllocationSection_Type">
          <Item>
            <rasd:OtherResourceType>ldom_info</rasd:OtherResourceType>
            <uuid>6c908858-12ef-e520-9eb3-f1cd3dbc3a59</uuid>
            <rasd:Address>00:14:4f:f9:c1:7d</rasd:Address>
            <gprop:GenericProperty key="hostid">0x84f9c17d</gprop:GenericProperty>
            <gprop:GenericProperty key="master">primary</gprop:GenericProperty>
            <gprop:GenericProperty key="failure-policy">reset</gprop:GenericProperty>
            <gprop:GenericProperty key="extended-mapin-space">on</gprop:GenericProperty>
            <gprop:GenericProperty key="cpu-arch">migration-class1</gprop:GenericProperty>
            <gprop:GenericProperty key="progress">45%</gprop:GenericProperty>
          </Item>
        </Section>
        <Section xsi:type="ovf:VirtualHardwareSection_Type">
          <Item><rasd:OtherResourceType>cpu</rasd:OtherResourceType>
            <rasd:AllocationUnits>8</rasd:AllocationUnits></Item>
        </Section>
        <Section xsi:type="ovf:VirtualHardwareSection_Type">
          <Item><rasd:OtherResourceType>memory</rasd:OtherResourceType>
            <rasd:AllocationUnits>4G</rasd:AllocationUnits></Item>
        </Section>
        <Section xsi:type="ovf:VirtualHardwareSection_Type">
          <Item><rasd:OtherResourceType>mau</rasd:OtherResourceType>
            <rasd:AllocationUnits>1</rasd:AllocationUnits></Item>
        </Section>
        <Section xsi:type="ovf:VirtualHardwareSection_Type">
          <Item><rasd:OtherResourceType>physio_device</rasd:OtherResourceType>
            <gprop:GenericProperty key="name">pci@780</gprop:GenericProperty></Item>
        </Section>
        <Section xsi:type="ovf:VirtualHardwareSection_Type">
          <Item><rasd:OtherResourceType>network</rasd:OtherResourceType>
            <gprop:GenericProperty key="linkprop">phys-state</gprop:GenericProperty>
            <gprop:GenericProperty key="vnet_name">vnet0</gprop:GenericProperty>
            <gprop:GenericProperty key="service_name">primary-vsw0</gprop:GenericProperty></Item>
        </Section>
        <Section xsi:type="ovf:VirtualHardwareSection_Type">
          <Item><rasd:OtherResourceType>disk</rasd:OtherResourceType>
            <gprop:GenericProperty key="vdisk_name">vdisk0</gprop:GenericProperty>
            <gprop:GenericProperty key="service_name">primary-vds0</gprop:GenericProperty>
            <gprop:GenericProperty key="vol_name">vdisk0</gprop:GenericProperty>
            <gprop:GenericProperty key="timeout">60</gprop:GenericProperty></Item>
        </Section>
        <Section xsi:type="ovf:VirtualHardwareSection_Type">
          <Item><rasd:OtherResourceType>var</rasd:OtherResourceType>
            <gprop:GenericProperty key="name">auto-boot?</gprop:GenericProperty>
            <gprop:GenericProperty key="value"><![CDATA[ true ]]></gprop:GenericProperty></Item>
        </Section>
      </Content>
    </Envelope>
  </data></cmd>
</LDM_interface>
"""


def test_what_ldoms_writes_is_understood() -> None:
    """With ``id`` or ``ovf:id``, inside of a command or not; what only SPARC has is named and left out."""
    for text in (LDOMS, LDOMS.replace(' id="ldg1"', ' ovf:id="ldg1"')):
        described = read_description(text)
        (one,) = described.domains
        assert one.domain.constraints == Constraints(
            vcpus=8,
            memory_mib=4096,
            crypto_units=1,
            failure_policy=FailurePolicy.RESET,
            masters=("primary",),
            platform=(("extended-mapin-space", "on"),),
        )
        assert one.domain.uuid == "6c908858-12ef-e520-9eb3-f1cd3dbc3a59"
        assert one.domain.disks == (VirtualDisk("vdisk0", "vdisk0", "primary-vds0", 0, 60),)
        assert one.domain.networks == (VirtualNetwork("vnet0", "primary-vsw0", 0, "", linkprop="phys-state"),)
        assert one.domain.variables == (("auto-boot?", "true"),)
        assert one.domain.console == ConsoleConstraint()
        assert one.properties["cpu-arch"] == "migration-class1"
        assert set(one.properties) <= set(PROPERTIES)
        assert described.warnings == (
            "property progress of ldom_info is not known here, and is left out",
            "physio_device of LDom ldg1 means nothing on this platform, and is left out",
        )


def test_properties_are_what_add_domain_takes() -> None:
    """Those of a domain are those that are read from what it is written as."""
    (described,) = read_description(write_description([GUEST], Services())).domains
    assert described.properties == info_properties(GUEST)


def doctype(declarations: str, use: str = "&a;") -> str:
    """A document with a document type."""
    return LDOMS.replace("?>\n", f"?>\n<!DOCTYPE LDM_interface [{declarations}]>\n", 1).replace("phys-state", use)


LAUGHS = '<!ENTITY a "ha">' + "".join(f'<!ENTITY {n} "{f"&{m};" * 10}">' for m, n in zip("abcdefghi", "bcdefghij"))  # noqa: B905

HOSTILE: tuple[tuple[str, str, str], ...] = (
    ("empty", "", "empty"),
    ("no XML", "factory-default", "Start tag expected"),
    ("cut off", LDOMS[:1500], "line"),
    ("billion laughs", doctype(LAUGHS, "&j;"), "DOCTYPE|entit"),
    ("quadratic blow-up", doctype(f'<!ENTITY a "{"x" * 100_000}">', "&a;" * 1000), "DOCTYPE|entit"),
    ("a file", doctype('<!ENTITY a SYSTEM "file:///etc/shadow">'), "DOCTYPE|entit"),
    ("a host", doctype('<!ENTITY a SYSTEM "http://192.0.2.1/">'), "DOCTYPE|entit"),
    ("parameter entity", doctype('<!ENTITY % p SYSTEM "file:///etc/passwd">%p;', ""), "DOCTYPE|entit"),
    ("document type alone", doctype("", "phys-state"), "DOCTYPE"),
    ("undefined entity", LDOMS.replace("phys-state", "&a;"), "ntity"),
    ("too deep", LDOMS.replace("<References/>", "<a>" * 30 + "</a>" * 30), "more than 24 elements deep"),
    ("far too deep", LDOMS.replace("<References/>", "<a>" * 5000 + "</a>" * 5000), "depth|deep"),
    ("too large", LDOMS.replace("<References/>", "<a/>" * (1 << 20)), "larger than 4 MiB"),
    ("one long text", LDOMS.replace("phys-state", "x" * 70_000), "longer than 65536 characters"),
    ("too many domains", LDOMS.replace("<References/>", '<Content id="x"/>' * 1001), "1000 are allowed"),
    ("wrong root", "<html/>", "its root is html"),
    ("no content", "<LDM_interface/>", "no Content"),
    ("no name", LDOMS.replace(' id="ldg1"', ""), "has no id"),
    ("twice", LDOMS.replace("<References/>", '<Content id="ldg1"/>'), "LDom ldg1 is described twice"),
    ("no type", LDOMS.replace("<rasd:OtherResourceType>cpu</rasd:OtherResourceType>", ""), "no rasd:OtherResourceType"),
    ("another namespace", LDOMS.replace("CIM_ResourceAllocationSettingData", "x"), "not of the namespace"),
    ("properties elsewhere", LDOMS.replace("./schemas/GenericProperty", "urn:x"), "GenericProperty in line"),
    ("unbound prefix", LDOMS.replace('xmlns:rasd="./schemas/CIM_ResourceAllocationSettingData"', ""), "rasd"),
    ("unknown resource", LDOMS.replace(">mau<", ">dsik<"), "dsik of LDom ldg1: there is no such resource"),
    ("service of a guest", LDOMS.replace(">mau<", ">vds<"), "services belong to primary"),
    ("no number", LDOMS.replace(">60<", ">soon<"), "disk of LDom ldg1: timeout='soon' has no meaning"),
    ("negative", LDOMS.replace(">8<", ">-8<"), "AllocationUnits '-8' has no meaning"),
    ("endless number", LDOMS.replace(">4G<", f">{'9' * 5000}G<"), "AllocationUnits .* has no meaning"),
    ("no such memory", LDOMS.replace(">4G<", ">99999999999999999G<"), "AllocationUnits .* has no meaning"),
    ("missing property", LDOMS.replace('key="vnet_name"', 'key="x"'), "network of LDom ldg1: it has no vnet_name"),
    ("broken JSON", LDOMS.replace('"linkprop"', '"linkprop" encoding="json"'), "is not the JSON"),
    ("deep JSON", LDOMS.replace('key="linkprop">phys-state', f'key="linkprop" encoding="json">{"[" * 30_000}'), "is not"),
    ("nul", LDOMS.replace("phys-state", "\0"), "line"),
    ("half a character", LDOMS.replace("phys-state", "\ud800"), "not text in UTF-8"),
    ("variable without a name", LDOMS.replace('key="name">auto', 'key="nme">auto'), "var of LDom ldg1: it has no name"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_what_is_hostile_is_refused_in_a_sentence(text: str, reason: str) -> None:
    """At once, without following anything that it points to."""
    began = time.monotonic()
    with pytest.raises(RequestError, match=reason) as caught:
        read_description(text)
    assert caught.value.code == "bad-xml"
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    assert "root:" not in caught.value.message
    assert time.monotonic() - began < 2


def test_a_lying_encoding_is_not_believed() -> None:
    """It comes as text: what the document says of its encoding does not matter."""
    described = read_description(LDOMS.replace('version="1.0"', 'version="1.0" encoding="utf-16"', 1))
    assert described.domains[0].domain.name == "ldg1"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broken_descriptions_are_read_or_refused(data: st.DataObject) -> None:
    """A description with anything at all in it never makes anything but a description or one sentence."""
    text = LDOMS
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        text = text[:start] + data.draw(st.text(max_size=20)) + text[end:]
    refusal = None
    try:
        read_description(text)
    except RequestError as error:
        refusal = error
    assert refusal is None or (refusal.code == "bad-xml" and "\n" not in refusal.message)
