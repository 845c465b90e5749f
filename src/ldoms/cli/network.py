"""Commands about virtual switches, and the networks of domains."""

from __future__ import annotations

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Words
from ldoms.cli.options import FORCE, UNUSED


def _add_vsw(client: Client, words: Words) -> int:
    name, domain = words.operands
    client.post("/switches", {"name": name, "domain": domain, "properties": dict(words.properties)})
    return 0


def _remove_vsw(client: Client, words: Words) -> int:
    client.delete(f"/switches/{part(words.operands[0])}", force=words.has("-f"))
    return 0


def _add_vnet(client: Client, words: Words) -> int:
    name, switch, domain = words.operands
    body = {"name": name, "switch": switch, "properties": dict(words.properties)}
    client.post(f"/domains/{part(domain)}/networks", body)
    return 0


def _remove_vnet(client: Client, words: Words) -> int:
    name, domain = words.operands
    client.delete(f"/domains/{part(domain)}/networks/{part(name)}")
    return 0


COMMANDS = (
    Command(
        "add-vsw",
        "vsw",
        "VSW DOM",
        "make a virtual switch",
        _add_vsw,
        properties=("net-dev", "mtu", "mac-addr", "id", "linkprop", "mode", "inter-vnet-link"),
        details="A switch is a bridge of the host. net-dev= gives it an uplink: an interface of the host that has no"
        " address of its own, or an existing bridge, which is then used as it is. mtu= is 1500 to 16000, and 1500 if"
        " it is not given. linkprop=, mode= and inter-vnet-link= are kept and shown.",
    ),
    Command("remove-vsw", "vsw", "VSW", "remove a virtual switch", _remove_vsw, options=(UNUSED,)),
    Command(
        "add-vnet",
        "vnet",
        "IF-NAME VSW DOM",
        "connect a domain to a virtual switch",
        _add_vnet,
        properties=("mac-addr", "id", "mtu", "linkprop"),
        details="The domain must not be bound. The guest sees a virtio network interface. Its MAC address is picked"
        " from the automatic range of LDoms (00:14:4f:f8 to fb) unless mac-addr= gives one, and moves along."
        " Managers of the same subnet are asked first whether it is free.",
    ),
    Command("remove-vnet", "vnet", "IF-NAME DOM", "disconnect a domain", _remove_vnet, options=(FORCE,)),
)
