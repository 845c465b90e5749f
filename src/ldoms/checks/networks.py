"""Rules about what the target must be able to do for the domain's networks."""

from __future__ import annotations

from collections.abc import Iterator

from ldoms.checks.rule import Findings
from ldoms.model.domain import VirtualNetwork
from ldoms.model.findings import Finding, Severity
from ldoms.model.migration import CheckFacts
from ldoms.model.services import DEFAULT_VLAN
from ldoms.model.vnet import NetworkAbility


def network_abilities(facts: CheckFacts) -> Findings:
    """What is enforced for a network here must be enforced there, before the guest runs there."""
    target = facts.target
    switches = {switch.name: switch for switch in target.services.switches}
    for network in facts.domain.domain.networks:
        if network.switch not in switches:
            continue  # `switches` says so
        for ability, wish in _needs(network, on_vlans=switches[network.switch].uses_vlans):
            if ability in target.network_abilities:
                continue
            if ability is NetworkAbility.VLAN_FILTERING:
                yield Finding(
                    "vlan-filtering",
                    Severity.ERROR,
                    f"network {network.name} has {wish}, and virtual switch {network.switch} on {target.host.name}"
                    " cannot tell VLANs apart",
                    "use a kernel there with CONFIG_BRIDGE_VLAN_FILTERING, or a bridge that has vlan_filtering on",
                )
            else:
                yield Finding(
                    "packet-filter",
                    Severity.ERROR,
                    f"network {network.name} has {wish}, which {target.host.name} cannot enforce",
                    "install the package nftables there",
                )


def default_vlans(facts: CheckFacts) -> Findings:
    """A network that names no VLAN is in the default one of its switch: it should be the same one there."""
    theirs = {switch.name: switch.default_vlan_id for switch in facts.target.services.switches}
    for network in facts.domain.domain.networks:
        mine, other = facts.domain.default_vlans.get(network.switch), theirs.get(network.switch)
        if network.pvid != DEFAULT_VLAN or mine is None or other is None or mine == other:
            continue
        yield Finding(
            "default-vlans",
            Severity.OVERRIDABLE,
            f"network {network.name} is in the default VLAN of virtual switch {network.switch}, which is {mine} on"
            f" {facts.source.name} and {other} on {facts.target.host.name}",
            f"set it there: ldm set-vsw default-vlan-id={mine} {network.switch}",
        )


def _needs(network: VirtualNetwork, *, on_vlans: bool) -> Iterator[tuple[NetworkAbility, str]]:
    """What must be possible for a network, with the property that needs it."""
    if network.vids:
        yield NetworkAbility.VLAN_FILTERING, f"vid={','.join(map(str, network.vids))}"
    elif network.pvid != DEFAULT_VLAN or on_vlans:
        yield NetworkAbility.VLAN_FILTERING, f"pvid={network.pvid}"
    if network.protection:
        yield NetworkAbility.PACKET_FILTER, f"protection={','.join(network.protection)}"
    elif network.pvlan is not None:
        yield NetworkAbility.PACKET_FILTER, f"pvlan={network.pvlan}"
