"""The workloads there are."""

from __future__ import annotations

from ldoms.bench.workloads.callingcircle import CALLING_CIRCLE
from ldoms.bench.workloads.orderentry import ORDER_ENTRY
from ldoms.bench.workloads.saleshistory import SALES_HISTORY
from ldoms.bench.workloads.stored import StoredWorkload
from ldoms.bench.workloads.stresstest import STRESS_TEST
from ldoms.model.errors import RequestError

WORKLOADS: tuple[StoredWorkload, ...] = (ORDER_ENTRY, SALES_HISTORY, CALLING_CIRCLE, STRESS_TEST)


def find_workload(name: str) -> StoredWorkload:
    """The workload of a name, whatever its case.

    Raises:
        RequestError: there is none, code ``no-workload``; the message has the names of those there are.
    """
    for workload in WORKLOADS:
        if workload.name == name.lower():
            return workload
    known = ", ".join(workload.name for workload in WORKLOADS)
    raise RequestError(f"there is no workload '{name}': there are {known}", code="no-workload")
