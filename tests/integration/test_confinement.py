"""Threads of real guests run where their domain's strands are, and no longer than those allow."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from ldoms.lab.lab import HostPlan
from support import SOURCE, make_hosts

STRANDS_PER_CPU = 4


def threads_of(process: psutil.Process) -> dict[int, str]:
    """Names of a process's threads, by id; a vCPU's is called ``CPU 0/KVM`` or ``CPU 0/TCG``."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return {int(task.name): (task / "comm").read_text().strip() for task in tasks}


def test_vcpu_threads_run_on_the_domain_s_strands() -> None:
    """And everything else of QEMU on the control domain's."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs, to tell strands of one from those of another")
    with make_hosts(1, HostPlan(strands_per_cpu=STRANDS_PER_CPU, confine=True)) as hosts:
        # The lab leaves half of the strands to primary: with two CPUs all of one.
        name = hosts.add_guest(pulse_fill=8)
        hosts.boot(name)
        view = hosts.view(SOURCE, name)
        primary = hosts.view(SOURCE, "primary")
        assert view is not None
        assert primary is not None
        own = {strand["strand"] // STRANDS_PER_CPU for strand in view["domain"]["bindings"]["vcpus"]}
        control = {strand["strand"] // STRANDS_PER_CPU for strand in primary["domain"]["bindings"]["vcpus"]}
        process = hosts.qemus(view["domain"]["uuid"])[SOURCE]
        cpus = sorted(os.sched_getaffinity(0))
        places = {name: os.sched_getaffinity(thread) for thread, name in threads_of(process).items()}
        vcpus = {name: place for name, place in places.items() if name.startswith("CPU ")}
        others = {name: place for name, place in places.items() if not name.startswith("CPU ")}
        assert set(map(frozenset, vcpus.values())) == {frozenset(cpus[cpu] for cpu in own)}
        assert set(map(frozenset, others.values())) == {frozenset(cpus[cpu] for cpu in control)}
        hosts.remove_guest(name)
