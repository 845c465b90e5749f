"""Sections about the resource management policies of a domain."""

from __future__ import annotations

from collections.abc import Iterable

from ldoms.cli.text import Section, columns, percent, record
from ldoms.model.domain import DomainView
from ldoms.model.policy import Policy

POLICY_WIDTHS = (6, 4, 4, 4, 3, 3, 8, 8, 4, 3, 3, 3)
STATS_WIDTHS = (16, 6, 6, 8, 8, 8)


def policies(view: DomainView) -> Iterable[Section]:
    """Policies with their properties; STATUS is whether one is enabled."""
    if not view.domain.policies:
        return
    heading = ["STATUS", "PRI", "MIN", "MAX", "LO", "UP", "BEGIN", "END", "RATE", "EM", "ATK", "DK", "NAME"]
    lines, records = [columns(POLICY_WIDTHS, heading)], ["POLICY"]
    for policy in view.domain.policies:
        values = _values(policy)
        lines.append(columns(POLICY_WIDTHS, [*values.values(), policy.name]))
        records.append(record("", **values, name=policy.name))
    yield Section("POLICY", lines, records)


def _values(policy: Policy) -> dict[str, object]:
    return {
        "status": "on" if policy.enabled else "off",
        "pri": policy.priority,
        "min": policy.vcpu_min,
        "max": _amount(policy.vcpu_max),
        "lo": policy.util_lower,
        "up": policy.util_upper,
        "begin": policy.begin,
        "end": policy.end,
        "rate": policy.sample_rate_s,
        "em": policy.elastic_margin,
        "atk": _amount(policy.attack),
        "dk": _amount(policy.decay),
    }


def _amount(number: int | None) -> object:
    return "U" if number is None else number


def statistics(view: DomainView) -> Iterable[Section]:
    """What policies have done since the manager was started; ours, as no layout of it is known."""
    if not view.status.policies:
        return
    lines = [columns(STATS_WIDTHS, ["NAME", "ACTIVE", "UTIL", "SAMPLES", "ADDED", "REMOVED", "NOTE"])]
    records = ["STATS"]
    for status in view.status.policies:
        active, used = "yes" if status.active else "no", percent(status.utilisation)
        values = [status.name, active, used, status.samples, status.added, status.removed, status.note]
        lines.append(columns(STATS_WIDTHS, values))
        records.append(
            record(
                "",
                name=status.name,
                active=active,
                util=used.rstrip("%"),
                samples=status.samples,
                added=status.added,
                removed=status.removed,
                note=status.note,
            )
        )
    yield Section("STATS", lines, records)
