"""Descriptions read: whatever somebody sends is a description, or is refused in one sentence.

XML is a language with traps: entities that grow, documents that point to files and hosts, endless depth. None of that
is followed: no document type is accepted at all, and size and depth have limits.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lxml import etree

from ldoms.constraints.mapping import (
    CONCENTRATOR,
    CONSOLE,
    DISK,
    DISK_SERVICE,
    GPROP,
    INFO,
    MORE,
    NETWORK,
    OVF,
    PLATFORM,
    POLICY,
    PROPERTIES,
    RASD,
    SPARC_ONLY,
    SWITCH,
    UNITS,
    VOLUME,
    Resource,
    kinds_of,
    value_of,
)
from ldoms.constraints.write import ENCODING
from ldoms.model.domain import ConsoleConstraint, Constraints, Domain
from ldoms.model.errors import RequestError
from ldoms.model.identity import CONTROL_DOMAIN
from ldoms.model.policy import Policy
from ldoms.model.services import Services, VirtualDiskService
from ldoms.model.sizes import MAX_DESCRIPTION_BYTES, parse_size_mib

MAX_DEPTH = 24
MAX_DOMAINS = 1000
MAX_TEXT = 64 * 1024
"""Characters of one property."""

MAX_AMOUNT = 1 << 40

_ROOTS = ("LDM_interface", "Envelope")
_PLACES: Mapping[str, tuple[str, ...]] = {
    "OtherResourceType": (RASD,),
    "AllocationUnits": (RASD,),
    "Address": (RASD,),
    "GenericProperty": (GPROP,),
    **dict.fromkeys(("LDM_interface", "cmd", "data", "Envelope", "Content", "Section", "Item", "uuid"), ("", OVF)),
}
"""Elements that mean something, and the namespaces in which they do."""


@dataclass(frozen=True, slots=True)
class Described:
    """A domain that was read.

    Attributes:
        domain: what was not given is empty: UUID, MAC addresses, host id.
        properties: those of `PROPERTIES` that were given, as they were.
    """

    domain: Domain
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Description:
    """What was read.

    Attributes:
        services: those of the control domain; a MAC address that was not given is empty.
        warnings: what was left out, in sentences.
    """

    domains: tuple[Described, ...]
    services: Services
    warnings: tuple[str, ...] = ()


@dataclass
class _Item:
    """An ``Item`` as it stands there."""

    type: str
    owner: str
    uuid: str = ""
    address: str = ""
    units: str = ""
    properties: dict[str, str] = field(default_factory=dict)

    def bad(self, reason: str) -> RequestError:
        return _bad(f"{self.type} of LDom {self.owner}: {reason}")


def read_description(text: str) -> Description:
    """Read what ``list-constraints -x`` has written, or somebody else.

    Raises:
        RequestError: code ``bad-xml``: it is no such description; the sentence says where.
    """
    root = _parse(text)
    _check(root)
    contents = [element for element in root.iter() if _name(element) == "Content"]
    if not contents:
        raise _bad("there is no Content in it, which would describe a domain")
    if len(contents) > MAX_DOMAINS:
        raise _bad(f"it describes {len(contents)} domains, and {MAX_DOMAINS} are allowed")
    warnings: list[str] = []
    domains, services = [], Services()
    for content in contents:
        name = content.get(f"{{{OVF}}}id") or content.get("id") or ""
        items = _items(content, name)
        domains.append(_domain(name, items, warnings))
        if name == CONTROL_DOMAIN:
            services = _services(items, warnings)
    names = [described.domain.name for described in domains]
    for name in names:
        if names.count(name) > 1:
            raise _bad(f"LDom {name} is described twice")
    return Description(tuple(domains), services, tuple(dict.fromkeys(warnings)))


# From text to items


def _parse(text: str) -> etree._Element:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise _bad("it is not text in UTF-8") from error
    if len(data) > MAX_DESCRIPTION_BYTES:
        raise _bad(f"it is larger than {MAX_DESCRIPTION_BYTES >> 20} MiB")
    parser = etree.XMLParser(
        encoding="utf-8",  # whatever the document says of itself: it has come as text
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        strip_cdata=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        said = " ".join(re.sub(r"\(<string>.*\)$", "", str(error)).split())
        raise _bad(said or "it is no XML") from error
    if root is None:
        raise _bad("it is empty")
    if root.getroottree().docinfo.internalDTD is not None:
        raise _bad("a document type (DOCTYPE) is not allowed")
    return root


def _check(root: etree._Element) -> None:
    """Look at every element once: its depth, and whether it is where it means something."""
    if etree.QName(root).localname not in _ROOTS:
        raise _bad(f"its root is {etree.QName(root).localname}, and not one of {', '.join(_ROOTS)}")
    depth = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > MAX_DEPTH:
            raise _bad(f"it is more than {MAX_DEPTH} elements deep")
        if event == "end":
            continue
        if not isinstance(element.tag, str):
            raise _bad("entities are not allowed")
        name = etree.QName(element)
        allowed = _PLACES.get(name.localname)
        if allowed is not None and (name.namespace or "") not in allowed:
            wanted = allowed[-1]
            raise _bad(f"{name.localname} in line {element.sourceline} is not of the namespace {wanted}")
        if len(element.text or "") > MAX_TEXT:
            raise _bad(f"the text in line {element.sourceline} is longer than {MAX_TEXT} characters")


def _items(content: etree._Element, owner: str) -> Sequence[_Item]:
    if not owner:
        raise _bad(f"the Content in line {content.sourceline} has no id, which is the name of the domain")
    return [_item(element, owner) for element in content.iter() if _name(element) == "Item"]


def _item(element: etree._Element, owner: str) -> _Item:
    item = _Item("", owner)
    for child in element:
        text = (child.text or "").strip()
        match _name(child):
            case "OtherResourceType":
                item.type = text
            case "uuid":
                item.uuid = text
            case "Address":
                item.address = text
            case "AllocationUnits":
                item.units = text
            case "GenericProperty":
                item.properties[child.get("key") or ""] = _text(child, text)
    if not item.type:
        raise _bad(f"the Item in line {element.sourceline} has no rasd:OtherResourceType")
    return item


def _text(element: etree._Element, text: str) -> str:
    if element.get(ENCODING) != "json":
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"the property in line {element.sourceline} is not the JSON that it says it is") from error
    if not isinstance(value, str):
        raise _bad(f"the property in line {element.sourceline} is not a text")
    return value


# From items to the model


def _domain(name: str, items: Sequence[_Item], warnings: list[str]) -> Described:
    base = Domain(uuid="", name=name, mac="", hostid="", order=0)
    properties: dict[str, str] = {}
    constraints: dict[str, Any] = {}
    variables: dict[str, str] = {}
    disks, networks, policies, console = [], [], [], ConsoleConstraint()
    for item in items:
        match item.type:
            case INFO.name:
                base, properties, constraints = _info(base, item, constraints, warnings)
            case type_ if type_ in UNITS:
                constraints[UNITS[type_]] = _amount(item)
            case NETWORK.name:
                networks.append(_values(NETWORK, item, warnings, {"id": -1}))
            case DISK.name:
                disks.append(_values(DISK, item, warnings, {"id": -1}))
            case POLICY.name:
                policies.append(Policy(**_values(POLICY, item, warnings)))
            case CONSOLE.name:
                console = ConsoleConstraint(**_values(CONSOLE, item, warnings))
            case "var":
                if not item.properties.get("name"):
                    raise item.bad("it has no name")
                variables[item.properties["name"]] = item.properties.get("value", "")
            case type_ if type_ in SPARC_ONLY:
                warnings.append(f"{type_} of LDom {name} means nothing on this platform, and is left out")
            case type_ if type_ in _SERVICE_TYPES:
                if name != CONTROL_DOMAIN:
                    raise item.bad(f"services belong to {CONTROL_DOMAIN} on this platform")
            case _:
                raise item.bad("there is no such resource")
    return Described(
        replace(
            base,
            constraints=replace(base.constraints, **constraints),
            variables=tuple(sorted(variables.items())),
            disks=tuple(DISK.kind(**values) for values in _numbered(disks)),
            networks=tuple(NETWORK.kind(**values) for values in _numbered(networks)),
            console=console,
            policies=tuple(policies),
        ),
        properties,
    )


_SERVICE_TYPES = frozenset({DISK_SERVICE.name, VOLUME.name, SWITCH.name, CONCENTRATOR.name})


def _info(
    base: Domain, item: _Item, constraints: dict[str, Any], warnings: list[str]
) -> tuple[Domain, dict[str, str], dict[str, Any]]:
    given = dict(item.properties)
    properties = {key: given[key] for key in PROPERTIES if key in given}
    if item.address:
        properties["mac-addr"] = item.address
    platform = [(key, given.pop(key)) for key in PLATFORM if key in given]
    if "platform" in given:
        platform += [(str(name), str(value)) for name, value in _json_pairs(item, given.pop("platform"))]
    hostid = given.pop("hostid", "")
    typed = {key: value for key, value in given.items() if key in INFO.fields()}
    for key in [key for key in typed if key in properties]:
        # What `add-domain` reads by itself may say more than the model has words for: SPARC classes of CPUs.
        known = INFO.fields()[key]
        try:
            constraints[known.name] = value_of(kinds_of(Constraints)[known.name], typed.pop(key))
        except (ValueError, RecursionError):
            continue
    constraints |= _values(INFO, _with(item, typed), warnings, partial=True)
    rest = {key: value for key, value in given.items() if key not in INFO.fields()}
    more = _values(MORE, _with(item, rest), warnings, partial=True)
    constraints["platform"] = tuple(sorted(platform))
    return replace(base, uuid=item.uuid, mac=item.address, hostid=hostid, **more), properties, constraints


def _with(item: _Item, properties: dict[str, str]) -> _Item:
    """The same item with other properties."""
    return replace(item, properties=properties)


def _json_pairs(item: _Item, text: str) -> Iterable[tuple[Any, Any]]:
    try:
        pairs = json.loads(text)
        return [(name, value) for name, value in pairs]
    except (ValueError, TypeError, RecursionError) as error:
        raise item.bad("platform is not a list of names and values") from error


def _services(items: Sequence[_Item], warnings: list[str]) -> Services:
    switches, concentrators = [], []
    volumes: dict[str, list[Any]] = {}
    disk_services: dict[str, VirtualDiskService] = {}
    for item in items:
        match item.type:
            case SWITCH.name:
                switches.append(_values(SWITCH, item, warnings, {"id": -1}))
            case CONCENTRATOR.name:
                concentrators.append(CONCENTRATOR.kind(**_values(CONCENTRATOR, item, warnings)))
            case DISK_SERVICE.name:
                service = VirtualDiskService(**_values(DISK_SERVICE, item, warnings))
                disk_services[service.name] = service
            case VOLUME.name:
                properties = dict(item.properties)
                owner = properties.pop("service_name", "")
                volume = VOLUME.kind(**_values(VOLUME, _with(item, properties), warnings))
                volumes.setdefault(owner, []).append(volume)
    for owner in volumes.keys() - disk_services.keys():
        raise _bad(f"volume {volumes[owner][0].name} is of a vds '{owner}' that is not described")
    return Services(
        disk_services=tuple(
            replace(service, volumes=tuple(volumes.get(name, ()))) for name, service in disk_services.items()
        ),
        switches=tuple(SWITCH.kind(**values) for values in _numbered(switches)),
        concentrators=tuple(concentrators),
    )


def _values(
    resource: Resource,
    item: _Item,
    warnings: list[str],
    defaults: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> dict[str, Any]:
    """The values of an item's fields; with `partial` some may be missing although they have no default."""
    fields, kinds = resource.fields(), kinds_of(resource.kind)
    values: dict[str, Any] = dict(defaults or {})
    if resource.address:
        values[resource.address] = item.address
    for key, text in item.properties.items():
        if key not in fields:
            warnings.append(f"property {key} of {item.type} is not known here, and is left out")
            continue
        name = fields[key].name
        try:
            values[name] = value_of(kinds[name], text)
        except (ValueError, RecursionError) as error:
            raise item.bad(f"{key}={text[:40]!r} has no meaning") from error
    for key, known in fields.items():
        has_default = known.default is not dataclasses.MISSING or known.default_factory is not dataclasses.MISSING
        if known.name not in values and not has_default and not partial:
            raise item.bad(f"it has no {key}")
    return values


def _numbered(entries: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Entries that have an id; those without get the lowest that is free, in their order."""
    taken = {entry["id"] for entry in entries}
    free = (number for number in range(len(entries) + len(taken)) if number not in taken)
    return [{**entry, "id": next(free) if entry["id"] < 0 else entry["id"]} for entry in entries]


def _amount(item: _Item) -> int:
    try:
        amount = parse_size_mib(item.units) if item.type == "memory" else int(value_of(int, item.units))
        if amount > MAX_AMOUNT:
            raise ValueError("too much")
        return amount
    except (ValueError, RequestError) as error:
        raise item.bad(f"AllocationUnits {item.units[:40]!r} has no meaning") from error


def _name(element: etree._Element) -> str:
    return str(etree.QName(element).localname) if isinstance(element.tag, str) else ""


def _bad(reason: str) -> RequestError:
    return RequestError(f"the XML cannot be used: {reason}", code="bad-xml")
