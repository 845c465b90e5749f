"""Commands about virtual switches, and the networks of domains."""

from __future__ import annotations

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.options import UNUSED

SWITCH_PROPERTIES = (
    *("default-vlan-id", "pvid", "vid", "linkprop", "mac-addr", "net-dev", "mode", "mtu", "inter-vnet-link"),
)
NETWORK_PROPERTIES = (
    *("mac-addr", "alt-mac-addrs", "auto-alt-mac-addrs", "pvid", "vid", "pvlan", "protection", "allowed-ips"),
    *("allowed-dhcp-cids", "custom", "custom/max-mac-addrs", "custom/max-vlans", "linkprop", "mtu", "priority", "cos"),
    *("maxbw", "mode"),
)
WITHOUT_UPLINK = Option("-q", "do not look whether the uplink is there")


def _add_vsw(client: Client, words: Words) -> int:
    name, domain = words.operands
    body = {"name": name, "domain": domain, "properties": dict(words.properties), "quick": words.has("-q")}
    client.post("/switches", body)
    return 0


def _set_vsw(client: Client, words: Words) -> int:
    if not words.properties:
        raise UsageError("set-vsw: give at least one property")
    body = {"properties": dict(words.properties), "quick": words.has("-q")}
    client.patch(f"/switches/{part(words.operands[0])}", body)
    return 0


def _remove_vsw(client: Client, words: Words) -> int:
    client.delete(f"/switches/{part(words.operands[0])}", force=words.has("-f"))
    return 0


def _add_vnet(client: Client, words: Words) -> int:
    name, switch, domain = words.operands
    body = {"name": name, "switch": switch, "properties": dict(words.properties)}
    client.post(f"/domains/{part(domain)}/networks", body)
    return 0


def _set_vnet(client: Client, words: Words) -> int:
    if not words.properties:
        raise UsageError("set-vnet: give at least one property")
    name, domain = words.operands
    body = {"properties": dict(words.properties)}
    client.patch(f"/domains/{part(domain)}/networks/{part(name)}", body)
    return 0


def _remove_vnet(client: Client, words: Words) -> int:
    name, domain = words.operands
    client.delete(f"/domains/{part(domain)}/networks/{part(name)}", force=words.has("-f"))
    return 0


COMMANDS = (
    Command(
        "add-vsw",
        "vsw",
        "VSW DOM",
        "make a virtual switch",
        _add_vsw,
        options=(WITHOUT_UPLINK,),
        properties=(*SWITCH_PROPERTIES, "id"),
        details="A switch is a bridge of the host. net-dev= gives it an uplink: an interface of the host that has no"
        " address of its own, or an existing bridge, which is then used as it is. mtu= is 1500 to 16000, and 1500 if"
        " it is not given. default-vlan-id= is the VLAN of untagged frames at the uplink and of every vnet that names"
        " none; pvid= and vid= are the VLANs of the host's own interface at the switch. With linkprop=phys-state"
        " guests see the link of the uplink. inter-vnet-link= on, off or auto says whether vnets have direct links; as"
        " in LDoms their guests reach each other either way, since the bridge carries their frames. With isolated"
        " (ours) they reach only the uplink and the host; [network] isolate_vnets of ldmd.toml makes off mean the same."
        " mode= is kept and shown.",
    ),
    Command(
        "set-vsw",
        "vsw",
        "VSW",
        "change a virtual switch",
        _set_vsw,
        options=(WITHOUT_UPLINK,),
        properties=SWITCH_PROPERTIES,
        details="The properties are those of add-vsw; an empty value clears one. vid=+LIST adds VLANs, vid=-LIST"
        " removes them. Guests stay connected. A higher MTU reaches a running guest when it is started again; a lower"
        " one is refused as long as somebody needs the old one.",
    ),
    Command("remove-vsw", "vsw", "VSW", "remove a virtual switch", _remove_vsw, options=(UNUSED,)),
    Command(
        "add-vnet",
        "vnet",
        "IF-NAME VSW DOM",
        "connect a domain to a virtual switch",
        _add_vnet,
        properties=(*NETWORK_PROPERTIES, "id"),
        details="The guest sees a virtio network interface, one that runs at once. Its MAC address is picked"
        " from the automatic range of LDoms (00:14:4f:f8 to fb) unless mac-addr= gives one, and moves along."
        " Managers of the same subnet are asked first whether it is free. alt-mac-addrs= (auto = pick one) and"
        " auto-alt-mac-addrs=NUMBER give the guest more. pvid= and vid= are VLANs; pvlan=ID,isolated and"
        " pvlan=ID,community keep it apart from other members of private VLANs. maxbw= limits each direction, in"
        " megabits a second, or with K, M or G. protection= takes mac-nospoof, ip-nospoof (with allowed-ips=),"
        " dhcp-nospoof and restricted. With linkprop=phys-state the guest sees the link of the switch's uplink."
        " allowed-dhcp-cids=, custom=, custom/..., priority=, cos= and mode= are kept and shown.",
    ),
    Command(
        "set-vnet",
        "vnet",
        "IF-NAME DOM",
        "change the connection of a domain",
        _set_vnet,
        properties=(*NETWORK_PROPERTIES, "vswitch"),
        details="The properties are those of add-vnet; an empty value clears one. vswitch= moves it to another"
        " switch. vid=+LIST adds VLANs, vid=-LIST removes them. A running guest is changed at once, without noticing;"
        " only mac-addr= and mtu= cannot change while it runs.",
    ),
    Command(
        "remove-vnet",
        "vnet",
        "IF-NAME DOM",
        "disconnect a domain",
        _remove_vnet,
        options=(Option("-f", "also if the guest does not let it go: it keeps an interface without a link"),),
        details="A guest that runs is asked to let the interface go. If it has not done so within 10 seconds it keeps"
        " it, and the command fails; once it does so after all, or is reset, the interface is removed.",
    ),
)
