"""Commands about what only SPARC servers have: they are there, and answer in one line or list nothing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ldoms.api.client import Client
from ldoms.cli.command import Command, Option, Support, Words
from ldoms.cli.options import JSON, LONG, PARSE
from ldoms.cli.output import say, say_json
from ldoms.cli.text import PARSE_VERSION
from ldoms.model.errors import RequestError

_DEVICES = "devices of the host are not assigned to domains here; use add-vdisk and add-vnet"
_SCSI = "there are no virtual SCSI host adapters here; use add-vdsdev and add-vdisk"
_GROUPS = "a host is one group of resources here; 'ldm list-devices -a' lists them"
_SOCKETS = "sockets are no units of allocation here; use the commands for vcpu, core and memory"
_CMI = "there are no CMI devices here; use the commands for core and memory"
_PERMITS = "every CPU of the host may be used here; 'ldm list-devices -a core' lists them"
_DUMPS = "QEMU is an ordinary process here, and writes a core file like any other"
_CHANNELS = "there are no data plane channels here"

# Name, group, operands as LDoms has them, what it does there, and what is to be said here.
_REFUSED: tuple[tuple[str, str, str, str, str], ...] = (
    ("add-io", "io", "DEVICE DOM", "give a domain a physical device", _DEVICES),
    ("set-io", "io", "DEVICE", "change a physical device", _DEVICES),
    ("remove-io", "io", "DEVICE DOM", "take a physical device from a domain", _DEVICES),
    ("create-vf", "io", "DEVICE", "make virtual functions of a device", _DEVICES),
    ("destroy-vf", "io", "DEVICE...", "remove virtual functions of a device", _DEVICES),
    ("evacuate-io", "io", "DOM", "take an I/O domain out of use", _DEVICES),
    ("restore-io", "io", "DOM", "put an I/O domain back into use", _DEVICES),
    ("add-vsan", "vsan", "IPORT VSAN DOM", "make a virtual storage area network", _SCSI),
    ("set-vsan", "vsan", "IPORT VSAN", "change a virtual storage area network", _SCSI),
    ("remove-vsan", "vsan", "VSAN", "remove a virtual storage area network", _SCSI),
    ("add-vhba", "vhba", "VHBA VSAN DOM", "give a domain a virtual SCSI host adapter", _SCSI),
    ("set-vhba", "vhba", "VHBA DOM", "change a virtual SCSI host adapter", _SCSI),
    ("remove-vhba", "vhba", "VHBA DOM", "take a virtual SCSI host adapter from a domain", _SCSI),
    ("rescan-vhba", "vhba", "VHBA DOM", "look for disks behind a virtual SCSI host adapter", _SCSI),
    ("list-hba", "vhba", "DOM", "list SCSI host adapters", _SCSI),
    ("list-rsrc-group", "rsrc-group", "[GROUP] [DOM...]", "list resource groups", _GROUPS),
    ("set-socket", "socket", "DOM", "bind a domain to sockets", _SOCKETS),
    ("list-socket", "socket", "[DOM...]", "list sockets", _SOCKETS),
    ("grow-socket", "socket", "DOM", "give a domain more of its sockets", _SOCKETS),
    ("shrink-socket", "socket", "DOM", "take parts of sockets from a domain", _SOCKETS),
    ("add-cmi", "cmi", "NUMBER DOM", "give a domain CMI devices", _CMI),
    ("set-cmi", "cmi", "NUMBER DOM", "set the CMI devices of a domain", _CMI),
    ("remove-cmi", "cmi", "NUMBER DOM", "take CMI devices from a domain", _CMI),
    ("grow-cmi", "cmi", "DOM", "give a domain more of its CMI devices", _CMI),
    ("shrink-cmi", "cmi", "DOM", "take parts of CMI devices from a domain", _CMI),
    ("list-cmi", "cmi", "[DOM...]", "list CMI devices", _CMI),
    ("list-permits", "permits", "", "list the permits to use CPUs", _PERMITS),
    ("set-hvdump", "hvdump", "", "say whether the hypervisor is dumped", _DUMPS),
    ("list-hvdump", "hvdump", "", "list whether the hypervisor is dumped", _DUMPS),
    ("start-hvdump", "hvdump", "", "dump the hypervisor", _DUMPS),
    ("add-vdpcs", "vdpcs", "SERVICE DOM", "make a data plane channel service", _CHANNELS),
    ("remove-vdpcs", "vdpcs", "SERVICE", "remove a data plane channel service", _CHANNELS),
    ("add-vdpcc", "vdpcc", "VDPCC SERVICE DOM", "give a domain a data plane channel", _CHANNELS),
    ("remove-vdpcc", "vdpcc", "VDPCC DOM", "take a data plane channel from a domain", _CHANNELS),
)  # fmt: skip


def _refuse(name: str, why: str, client: Client, words: Words) -> int:
    raise RequestError(f"{name} is not supported on this platform: {why}", code="not-supported")


def _refused() -> Iterable[Command]:
    for name, group, operands, summary, why in _REFUSED:
        yield Command(
            name,
            group,
            operands,
            summary,
            partial(_refuse, name, why),
            details=f"It is not supported on this platform: {why}. Options and properties of LDoms are accepted.",
            support=Support.REFUSES,
        )


def _list_io(client: Client, words: Words) -> int:
    """No device of the host is ever assigned: nothing under the headings that LDoms prints."""
    if words.has("--json"):
        say_json([])
    elif words.has("-p"):
        say(PARSE_VERSION)
    else:
        say("NAME                                      TYPE   BUS      DOMAIN   STATUS")
        say("----                                      ----   ---      ------   ------")
    return 0


COMMANDS = (
    Command(
        "list-io",
        "io",
        "[DEVICE]",
        "list physical devices that can be assigned: none",
        _list_io,
        options=(LONG, Option("-d", "list details of a device"), PARSE, JSON),
        details="Devices of the host are not assigned to domains on this platform, so that nothing is below the"
        " headings.",
        support=Support.EMPTY,
    ),
    *_refused(),
)
