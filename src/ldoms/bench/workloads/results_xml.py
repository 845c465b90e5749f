"""A run's results as XML, with the element names that programs which read SwingBench's results look for.

Those programs read ``TotalRunTime``, ``TotalCompletedTransactions``, ``TotalFailedTransactions``,
``AverageTransactionsPerSecond``, ``MaximumTransactionRate``, and for each transaction a ``Result`` with its title as
``id``, with ``AverageResponse``, ``MinimumResponse``, ``MaximumResponse`` and, after these, ``TransactionCount``. Some
go line by line, so each element has a line of its own. What we do not measure is not there: statements by sort, and the
CPU of the server.
"""

from __future__ import annotations

import time
from typing import Any

from lxml import etree

from ldoms.bench.workloads.summary import Responses, RunSummary

_PERCENTILES = {
    "10": "TenthPercentile",
    "20": "TwentiethPercentile",
    "30": "ThirtiethPercentile",
    "40": "FortiethPercentile",
    "50": "FiftiethPercentile",
    "60": "SixtiethPercentile",
    "70": "SeventiethPercentile",
    "80": "EightiethPercentile",
    "90": "NinetiethPercentile",
    "95": "NinetyFifthPercentile",
    "99": "NinetyNinthPercentile",
}


def results_xml(summary: RunSummary) -> bytes:
    """The whole file."""
    root = etree.Element("Results")
    overview = etree.SubElement(root, "Overview")
    _add(overview, "BenchmarkName", summary.title)
    _add(overview, "TimeOfRun", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(summary.began_at)))
    _add(overview, "TotalRunTime", run_time(summary.ended_at - summary.began_at))
    _add(overview, "TotalCompletedTransactions", summary.transactions)
    _add(overview, "TotalFailedTransactions", summary.failed)
    _add(overview, "AverageTransactionsPerSecond", f"{summary.tps:.2f}")
    _add(overview, "MaximumTransactionRate", summary.max_tpm)
    configuration = etree.SubElement(root, "Configuration")
    _add(configuration, "ConnectString", summary.server)
    _add(configuration, "NumberOfUsers", summary.users)
    for name, element in (
        ("min_ms", "MinDelay"),
        ("max_ms", "MaxDelay"),
        ("intermin_ms", "InterMinDelay"),
        ("intermax_ms", "InterMaxDelay"),
    ):
        _add(configuration, element, summary.think_ms[name])
    statements = etree.SubElement(root, "DMLResults")
    _add(statements, "CommitStatements", summary.transactions)
    _add(statements, "RollbackStatements", summary.failed)
    transactions = etree.SubElement(root, "TransactionResults")
    for kind in summary.kinds:
        result = etree.SubElement(transactions, "Result", id=kind.title)
        _add(result, "ShortName", kind.short)
        _add_responses(result, kind.responses)
        _add(result, "TransactionCount", kind.transactions)
        _add(result, "FailedTransactionCount", kind.failed)
    return etree.tostring(root, pretty_print=True, xml_declaration=True, encoding="UTF-8")  # type: ignore[no-any-return]


def run_time(seconds: float) -> str:
    """A time as ``h:mm:ss``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _add(parent: Any, name: str, value: object) -> None:
    etree.SubElement(parent, name).text = str(value)


def _add_responses(result: Any, found: Responses | None) -> None:
    _add(result, "AverageResponse", "0" if found is None else f"{found.mean_ms:.3f}")
    _add(result, "MinimumResponse", "0" if found is None else f"{found.min_ms:.3f}")
    _add(result, "MaximumResponse", "0" if found is None else f"{found.max_ms:.3f}")
    if found is None:
        return
    _add(result, "StandardDeviation", f"{found.deviation_ms:.3f}")
    for percent, value in found.percentiles_ms.items():
        _add(result, _PERCENTILES[percent], f"{value:.3f}")
