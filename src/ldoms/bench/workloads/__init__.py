"""Workloads after SwingBench: their data, their transactions, their results, and the proof that nothing was lost."""

from __future__ import annotations

from ldoms.bench.workloads.records import load_record
from ldoms.bench.workloads.registry import WORKLOADS, find_workload
from ldoms.bench.workloads.thinking import ThinkTimes
from ldoms.bench.workloads.workload import KindDescription, Workload, default_weights

__all__ = [
    "WORKLOADS",
    "KindDescription",
    "ThinkTimes",
    "Workload",
    "default_weights",
    "find_workload",
    "load_record",
]
