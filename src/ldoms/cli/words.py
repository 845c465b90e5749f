"""What may stand in place of the words of a synopsis: names that exist, or fixed words. Shells offer them.

A command says what its operands are by the words that it uses for them: ``DOM`` is a domain in every synopsis. A word
that is not here is the user's own, such as a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """A sort of name that can be looked up."""

    DOMAIN = "domain"
    DISK_SERVICE = "vds"
    VOLUME = "vdsdev"
    DISK = "vdisk"
    SWITCH = "vsw"
    NETWORK = "vnet"
    CONCENTRATOR = "vcc"
    SPCONFIG = "spconfig"
    TRUSTED = "trust"
    VARIABLE = "variable"
    POLICY = "policy"
    FILE = "file"


Offer = Kind | tuple[str, ...]

OPERANDS: Mapping[str, Offer] = {
    "DOM": Kind.DOMAIN,
    "SERVICE": Kind.DISK_SERVICE,
    "VOLUME@SERVICE": Kind.VOLUME,
    "DISK": Kind.DISK,
    "VSW": Kind.SWITCH,
    "IF-NAME": Kind.NETWORK,
    "VCC": Kind.CONCENTRATOR,
    "CONFIG": Kind.SPCONFIG,
    "AUTOSAVE": Kind.SPCONFIG,
    "HOST": Kind.TRUSTED,
    "USER@HOST:NEWNAME": Kind.TRUSTED,
    "VARIABLE": Kind.VARIABLE,
    "POLICY": Kind.POLICY,
    "LOG=STATE": tuple(
        f"{kind}={state}" for kind in ("cmd", "debug", "fatal", "info", "notice", "warning") for state in ("on", "off")
    ),
    "MAP": ("cidmap=", "mblockmap="),
    "NAME=VALUE": ("auto-boot?=", "boot-args=", "boot-device=", "boot-file=", "boot-initrd="),
    "LIMIT=VALUE": ("max-bandwidth=", "max-suspend=", "max-time="),
    "BACKEND": Kind.FILE,
    "FILE": Kind.FILE,
    "KIND": ("core", "cpu", "memory", "io", "crypto", "mau", "cmi"),
    "OPERATION": ("migration", "reconf", "memdr"),
}
"""By the word, without brackets and dots."""

_ON_OFF = ("on", "off")
PROPERTIES: Mapping[str, Offer] = {
    "boot-policy": ("enforce", "none", "warning"),
    "cmd": _ON_OFF,
    "cpu-arch": ("native", "generic", "migration-class1", "sparc64-class1"),
    "custom": ("enable", "disable"),
    "debug": _ON_OFF,
    "enable": ("yes", "no"),
    "extended-mapin-space": _ON_OFF,
    "failure-policy": ("ignore", "panic", "reset", "stop"),
    "fatal": _ON_OFF,
    "info": _ON_OFF,
    "inter-vnet-link": ("on", "off", "auto", "isolated"),
    "linkprop": ("phys-state",),
    "log": _ON_OFF,
    "master": Kind.DOMAIN,
    "max-cores": ("unlimited",),
    "mode": ("sc",),
    "name": Kind.POLICY,
    "notice": _ON_OFF,
    "options": ("ro", "slice", "excl"),
    "policy priority": (),
    "priority": ("high", "medium", "low"),
    "protection": ("mac-nospoof", "ip-nospoof", "dhcp-nospoof", "restricted"),
    "rc-add-policy": ("iov",),
    "service": Kind.CONCENTRATOR,
    "threading": ("max-throughput", "max-ipc"),
    "volume": Kind.VOLUME,
    "vswitch": Kind.SWITCH,
    "warning": _ON_OFF,
}
"""By the name of the property; where one of a group of commands is another thing than elsewhere, with the group."""


def values_of(group: str, name: str) -> Offer:
    """What a property of a command of that group may be."""
    return PROPERTIES.get(f"{group} {name}", PROPERTIES.get(name, ()))


def plain(word: str) -> str:
    """A word of a synopsis without brackets and dots: ``DOM`` for ``[DOM...]``."""
    return re.sub(r"[][().]", "", word)


def is_optional(word: str) -> bool:
    """Whether a word of a synopsis may be left out: ``[DOM...]``, but not ``[USER@]HOST``."""
    return re.fullmatch(r"\[[^][]*\]", word) is not None
