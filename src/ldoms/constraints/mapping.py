"""Which field of the model stands where in the XML: the table that writing and reading share.

A field that LDoms has is under the key that LDoms uses. All others are under their own name, with hyphens: a new field
of the model needs no line here, is written as soon as it has a value other than its default, and is read back.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, get_args, get_origin

from ldoms.model.codec import from_wire, to_wire
from ldoms.model.domain import ConsoleConstraint, Constraints, Domain, VirtualDisk, VirtualNetwork
from ldoms.model.policy import Policy
from ldoms.model.services import ConsoleConcentrator, VirtualDiskService, VirtualSwitch, Volume

OVF = "./schemas/envelope"
RASD = "./schemas/CIM_ResourceAllocationSettingData"
GPROP = "./schemas/GenericProperty"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
NAMESPACES: Mapping[str, str] = {
    "xsi": XSI,
    "ovf": OVF,
    "rasd": RASD,
    "vssd": "./schemas/CIM_VirtualSystemSettingData",
    "gprop": GPROP,
    "bind": "./schemas/Binding",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A sort of ``Item``, and the values of the model that it describes.

    Attributes:
        name: text of ``rasd:OtherResourceType``.
        kind: the dataclass.
        keys: where LDoms has a key of another name than the field.
        address: the field that stands in ``rasd:Address``.
        elsewhere: fields that do not stand in this item.
        always: fields that are written although they have their default.
    """

    name: str
    kind: type[Any]
    keys: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    elsewhere: frozenset[str] = frozenset()
    always: frozenset[str] = frozenset()

    def fields(self) -> Mapping[str, dataclasses.Field[Any]]:
        """The fields that stand in the item's properties, by key."""
        left_out = {*self.elsewhere, self.address}
        return {
            self.keys.get(known.name, known.name.replace("_", "-")): known
            for known in dataclasses.fields(self.kind)
            if known.name not in left_out
        }


UNITS: Mapping[str, str] = {"cpu": "vcpus", "memory": "memory_mib", "mau": "crypto_units"}
"""Items that are only an amount, and the constraint that it is."""
PLATFORM = ("boot-policy", "extended-mapin-space", "perf-counters", "rc-add-policy")
"""Properties of the platform, each of which has a key of its own in ``ldom_info``."""
PROPERTIES = ("mac-addr", "hostid", "cpu-arch", "failure-policy", "master", "shutdown-group", *PLATFORM)
"""What ``add-domain`` and ``set-domain`` take, and ``ldom_info`` has."""

INFO = Resource(
    "ldom_info",
    Constraints,
    {"masters": "master"},
    elsewhere=frozenset({*UNITS.values(), "platform"}),
    always=frozenset({"failure_policy", "cpu_arch", "shutdown_group"}),
)
NOT_DESCRIBED = frozenset({"bindings", "started_at", "order"})
"""Fields of a domain that belong to this host and this moment."""
MORE = Resource(
    "ldom_info",
    Domain,
    elsewhere=NOT_DESCRIBED
    | {"name", "uuid", "mac", "hostid", "constraints", "variables", "disks", "networks", "console", "policies"},
)
"""Fields that a domain may get some day beside those that have a place of their own."""
NETWORK = Resource(
    "network",
    VirtualNetwork,
    {"name": "vnet_name", "switch": "service_name", "vids": "vid", "alt_macs": "alt-mac-addrs"},
    address="mac",
)
DISK = Resource(
    "disk",
    VirtualDisk,
    {"name": "vdisk_name", "service": "service_name", "volume": "vol_name", "timeout_s": "timeout"},
)
POLICY = Resource(
    "policy",
    Policy,
    {
        "name": "policy_name",
        "enabled": "policy_enable",
        "priority": "policy_priority",
        "vcpu_min": "policy_vcpu_min",
        "vcpu_max": "policy_vcpu_max",
        "util_lower": "policy_util_lower",
        "util_upper": "policy_util_upper",
        "begin": "policy_tod_begin",
        "end": "policy_tod_end",
        "sample_rate_s": "policy_sample_rate",
        "attack": "policy_attack",
        "decay": "policy_decay",
        "elastic_margin": "policy_elastic_margin",
    },
)
CONSOLE = Resource("console", ConsoleConstraint, {"service": "service_name", "log": "enable-log"})
DISK_SERVICE = Resource("vds", VirtualDiskService, {"name": "service_name"}, elsewhere=frozenset({"volumes"}))
VOLUME = Resource("vds_volume", Volume, {"name": "vol_name", "backend": "block_dev", "options": "vol_opts"})
SWITCH = Resource(
    "vsw",
    VirtualSwitch,
    {"name": "service_name", "net_dev": "dev_path", "inter_vnet_link": "inter_vnet_link", "vids": "vid"},
    address="mac",
)
CONCENTRATOR = Resource(
    "vcc", ConsoleConcentrator, {"name": "service_name", "port_min": "min_port", "port_max": "max_port"}
)
RESOURCES = (INFO, MORE, NETWORK, DISK, POLICY, CONSOLE, DISK_SERVICE, VOLUME, SWITCH, CONCENTRATOR)

SPARC_ONLY = frozenset(
    {"cmi", "crypto", "cwq", "hvdump", "ndpsldcc", "ndpsldcs", "physio_device", "physio_minor", "rsrc_group"}
    | {"spconfig", "vdpcc", "vdpcs", "vhba", "vldc", "vldcc", "vsan"}
)
"""Items of LDoms that mean nothing here; a domain can do without them."""

_TRUTHS = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
_AMOUNT = re.compile(r"[0-9]{1,18}")


def text_of(kind: Any, value: object) -> str:
    """A value as the text of a property; `kind` is its annotation."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, StrEnum):
        return value.value
    if kind in (str, int):
        return str(value)
    if _is_words(kind):
        words = [str(word) for word in typing.cast("tuple[object, ...]", value)]
        if all(word and "," not in word and word[0] not in '["' for word in words) and words:
            return ",".join(words)
    return json.dumps(to_wire(value))


def value_of(kind: Any, text: str) -> Any:
    """The value that a text stands for.

    Raises:
        ValueError: it stands for none.
    """
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _TRUTHS:
            raise ValueError("neither on nor off")
        return _TRUTHS[text.lower()]
    if kind is int:
        if not _AMOUNT.fullmatch(text):
            raise ValueError("not a number")
        return int(text)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(text)
    if _is_words(kind) and not text.startswith("["):
        item = get_args(kind)[0]
        return tuple(value_of(item, word) for word in text.split(",") if word)
    return from_wire(kind, json.loads(text))


def default_of(known: dataclasses.Field[Any]) -> Any:
    """The default of a field; `dataclasses.MISSING` if it has none."""
    if known.default_factory is not dataclasses.MISSING:
        return known.default_factory()
    return known.default


def kinds_of(kind: Any) -> Mapping[str, Any]:
    """The annotation of each field of a dataclass."""
    return _hints(kind)


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def info_properties(domain: Domain) -> dict[str, str]:
    """The properties of a domain as ``add-domain`` takes them."""
    constraints, kinds = domain.constraints, kinds_of(Constraints)
    known = {
        key: text_of(kinds[entry.name], getattr(constraints, entry.name))
        for key, entry in INFO.fields().items()
        if key in PROPERTIES
    }
    known["master"] = ",".join(constraints.masters)
    platform = {name: value for name, value in constraints.platform if name in PLATFORM}
    return {"mac-addr": domain.mac, "hostid": domain.hostid, **known, **platform}


def _is_words(kind: Any) -> bool:
    """Whether it is a tuple of words or numbers, which are written with commas between."""
    return get_origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,) and get_args(kind)[0] in (str, int)
