"""Descriptions written: domains, and the services of the control domain, as LDoms writes them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping

from lxml import etree

from ldoms.constraints.mapping import (
    CONCENTRATOR,
    CONSOLE,
    DISK,
    DISK_SERVICE,
    GPROP,
    INFO,
    MORE,
    NAMESPACES,
    NETWORK,
    OVF,
    PLATFORM,
    POLICY,
    RASD,
    SWITCH,
    UNITS,
    VOLUME,
    XSI,
    Resource,
    default_of,
    kinds_of,
    text_of,
)
from ldoms.model.domain import ConsoleConstraint, Domain
from ldoms.model.services import Services
from ldoms.model.sizes import MIB, format_size

ENCODING = "encoding"
"""Attribute of a property whose value XML cannot carry as it is: ``json`` = it is a JSON string (ours)."""
_PLAIN = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")


def write_description(domains: Iterable[Domain], services: Services) -> str:
    """Domains as XML; with the control domain come the services."""
    root = etree.Element("LDM_interface", {"version": "1.3"}, nsmap=dict(NAMESPACES))
    root.set(f"{{{XSI}}}noNamespaceSchemaLocation", "./schemas/combined-v3.xsd")
    envelope = etree.SubElement(etree.SubElement(root, "data", {"version": "3.0"}), "Envelope")
    etree.SubElement(envelope, "References")
    for domain in domains:
        content = etree.SubElement(envelope, "Content")
        content.set(f"{{{XSI}}}type", "ovf:VirtualSystem_Type")
        content.set(f"{{{OVF}}}id", domain.name)
        _write_domain(content, domain)
        if domain.is_control:
            _write_services(content, services)
    return '<?xml version="1.0"?>\n' + str(etree.tostring(root, encoding="unicode", pretty_print=True))


def _write_domain(content: etree._Element, domain: Domain) -> None:
    constraints = domain.constraints
    info = _item(content, INFO.name, "ResourceAllocationSection_Type")
    etree.SubElement(info, "uuid").text = domain.uuid
    _sub(info, RASD, "Address", domain.mac)
    platform = dict(constraints.platform)
    _properties(info, {"hostid": domain.hostid, **_texts(INFO, constraints)})
    _properties(info, {name: platform.pop(name) for name in PLATFORM if name in platform})
    if platform:
        _properties(info, {"platform": json.dumps(sorted(platform.items()))})
    _properties(info, _texts(MORE, domain))
    for type_, name in UNITS.items():
        amount = getattr(constraints, name)
        if amount:
            text = format_size(amount * MIB) if name == "memory_mib" else str(amount)
            _sub(_item(content, type_), RASD, "AllocationUnits", text)
    for network in domain.networks:
        _write(content, NETWORK, network)
    for disk in domain.disks:
        _write(content, DISK, disk)
    for name, value in domain.variables:
        _properties(_item(content, "var"), {"name": name, "value": value})
    for policy in domain.policies:
        _write(content, POLICY, policy)
    if domain.console != ConsoleConstraint():
        _write(content, CONSOLE, domain.console)


def _write_services(content: etree._Element, services: Services) -> None:
    for concentrator in services.concentrators:
        _write(content, CONCENTRATOR, concentrator)
    for switch in services.switches:
        _write(content, SWITCH, switch)
    for service in services.disk_services:
        _write(content, DISK_SERVICE, service)
        for volume in service.volumes:
            _properties(_write(content, VOLUME, volume), {"service_name": service.name})


def _write(content: etree._Element, resource: Resource, value: object) -> etree._Element:
    item = _item(content, resource.name)
    if resource.address:
        _sub(item, RASD, "Address", getattr(value, resource.address))
    _properties(item, _texts(resource, value))
    return item


def _texts(resource: Resource, value: object) -> Mapping[str, str]:
    """The properties of an item: what has no default, and what has another value than that."""
    kinds = kinds_of(resource.kind)
    texts = {}
    for key, known in resource.fields().items():
        given = getattr(value, known.name)
        default = default_of(known)
        if given != default or default is dataclasses.MISSING or known.name in resource.always:
            texts[key] = text_of(kinds[known.name], given)
    return texts


def _item(content: etree._Element, type_: str, section: str = "VirtualHardwareSection_Type") -> etree._Element:
    outer = etree.SubElement(content, "Section")
    outer.set(f"{{{XSI}}}type", f"ovf:{section}")
    item = etree.SubElement(outer, "Item")
    _sub(item, RASD, "OtherResourceType", type_)
    return item


def _sub(parent: etree._Element, namespace: str, name: str, text: str) -> etree._Element:
    element = etree.SubElement(parent, f"{{{namespace}}}{name}")
    element.text = text
    return element


def _properties(item: etree._Element, texts: Mapping[str, str]) -> None:
    for key, text in texts.items():
        is_plain = _PLAIN.fullmatch(text) and text == text.strip()
        element = _sub(item, GPROP, "GenericProperty", text if is_plain else json.dumps(text))
        element.set("key", key)
        if not is_plain:
            element.set(ENCODING, "json")
