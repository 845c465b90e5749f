"""The plan of a migration as text: what was chosen, and why."""

from __future__ import annotations

from collections.abc import Iterable

from ldoms.model.migration import MigrationPlan, MigrationReport


def plan_lines(report: MigrationReport) -> Iterable[str]:
    """What a dry run shows after the checks; nothing where no memory is to be copied."""
    if report.plan is None:
        return
    yield "PLAN"
    yield from reason_lines(report.plan)


def reason_lines(plan: MigrationPlan) -> Iterable[str]:
    """Each choice on a line, with its reason."""
    width = max((len(choice) for choice in plan.reasons), default=0)
    for choice, reason in plan.reasons.items():
        yield f"    {choice:<{max(12, width)}} {reason}"
