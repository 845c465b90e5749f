"""Sections about virtual services, alone or with those who use them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ldoms.cli.text import Section, columns, record
from ldoms.model.domain import Domain
from ldoms.model.services import Services

VCC_WIDTHS = (16,)
VSW_WIDTHS = (16, 17, 9, 4, 10, 10, 15, 4, 20, 5, 6)
VDS_WIDTHS = (16, 14, 16, 14)
OWNER_WIDTH = 16
_VSW_HEADING = [
    *("NAME", "MAC", "NET-DEV", "ID", "DEVICE", "LINKPROP", "DEFAULT-VLAN-ID", "PVID", "VID", "MTU", "MODE"),
    "INTER-VNET-LINK",
]
_INDENT = " " * 4


def concentrators(services: Services, domains: Sequence[Domain] = (), *, owner: bool = False) -> Iterable[Section]:
    """Console concentrators; `domains` are looked through for clients, `owner` adds the service domain."""
    if not services.concentrators:
        return
    lines = [_row(VCC_WIDTHS, ["NAME", "PORT-RANGE"], "LDOM", owner)]
    records = []
    for service in services.concentrators:
        ports = f"{service.port_min}-{service.port_max}"
        lines.append(_row(VCC_WIDTHS, [service.name, ports], service.domain, owner))
        records.append(record("VCC", name=service.name, port_range=ports))
        clients = [
            (f"{domain.console_group}@{service.name}", domain.bindings.console_port)
            for domain in domains
            if domain.bindings and domain.bindings.console_service == service.name
        ]
        if clients:
            lines.append(_INDENT + columns((27,), ["CLIENT", "PORT"]))
        for client, port in clients:
            lines.append(_INDENT + columns((27,), [client, port]))
            records.append(record("", client=client, port=port))
    yield Section("VCC", lines, records)


def switches(services: Services, domains: Sequence[Domain] = (), *, owner: bool = False) -> Iterable[Section]:
    """Virtual switches."""
    if not services.switches:
        return
    lines, records = [_row(VSW_WIDTHS, _VSW_HEADING, "LDOM", owner)], []
    for switch in services.switches:
        device, vids = f"switch@{switch.id}", ",".join(map(str, switch.vids))
        values = [
            *(switch.name, switch.mac, switch.net_dev, switch.id, device, switch.linkprop, switch.default_vlan_id),
            *(switch.pvid, vids, switch.mtu, switch.mode, switch.inter_vnet_link),
        ]
        lines.append(_row(VSW_WIDTHS, values, switch.domain, owner))
        records.append(
            record(
                "VSW",
                name=switch.name,
                mac_addr=switch.mac,
                net_dev=switch.net_dev,
                dev=device,
                id=switch.id,
                default_vlan_id=switch.default_vlan_id,
                pvid=switch.pvid,
                vid=vids,
                mtu=switch.mtu,
                linkprop=switch.linkprop,
                mode=switch.mode,
                inter_vnet_link=switch.inter_vnet_link,
            )
        )
        peers = [
            (f"{network.name}@{domain.name}", network, network.mtu or switch.mtu)
            for domain in domains
            if domain.is_bound
            for network in domain.networks
            if network.switch == switch.name
        ]
        widths = (27, 17, 4, 20, 5, 6, 10)
        if peers:
            heading = ["PEER", "MAC", "PVID", "VID", "MTU", "MODE", "LINKPROP", "INTERVNETLINK"]
            lines.append(_INDENT + columns(widths, heading))
        for peer, network, mtu in peers:
            mac, pvid, linkprop = network.mac, network.pvid, network.linkprop
            vids, mode = ",".join(map(str, network.vids)), dict(network.kept).get("mode", "")
            lines.append(_INDENT + columns(widths, [peer, mac, pvid, vids, mtu, mode, linkprop]))
            records.append(record("", peer=peer, mac_addr=mac, pvid=pvid, vid=vids, mtu=mtu, linkprop=linkprop))
    yield Section("VSW", lines, records)


def disk_services(
    services: Services, domains: Sequence[Domain], *, clients: bool = False, owner: bool = False
) -> Iterable[Section]:
    """Virtual disk servers and their volumes; `domains` count as their clients, and are listed with `clients`."""
    if not services.disk_services:
        return
    lines = [_row(VDS_WIDTHS, ["NAME", "VOLUME", "OPTIONS", "MPGROUP", "DEVICE"], "LDOM", owner)]
    records = []
    for service in services.disk_services:
        users = [
            (f"{disk.name}@{domain.name}", disk.volume)
            for domain in domains
            if domain.is_bound
            for disk in domain.disks
            if disk.service == service.name
        ]
        if not service.volumes:
            lines.append(_row(VDS_WIDTHS, [service.name], service.domain, owner))
        records.append(record("VDS", name=service.name, nclients=len(users)))
        for number, volume in enumerate(service.volumes):
            options = ",".join(volume.options)
            values = [volume.name, options, volume.mpgroup, volume.backend]
            name, domain_name = (service.name, service.domain) if number == 0 else ("", "")
            lines.append(_row(VDS_WIDTHS, [name, *values], domain_name, owner))
            records.append(record("", vol=volume.name, opts=options, dev=volume.backend, mpgroup=volume.mpgroup))
        if not clients:
            continue
        if users:
            lines.append(_INDENT + columns((27,), ["CLIENT", "VOLUME"]))
        for client, volume_name in users:
            lines.append(_INDENT + columns((27,), [client, volume_name]))
            records.append(record("", client=client, vol=volume_name))
    yield Section("VDS", lines, records)


def _row(widths: Sequence[int], values: Sequence[object], domain: str, owner: bool) -> str:
    """A row; in ``list-services`` the second column is the service domain."""
    if owner:
        return columns((widths[0], OWNER_WIDTH, *widths[1:]), [values[0], domain, *values[1:]])
    return columns(widths, values)
