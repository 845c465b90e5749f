"""Threads of real guests run where their domain's strands are, and no longer than those allow."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from ldoms.lab.lab import HostPlan
from support import SOURCE, make_hosts

STRANDS_PER_CPU = 4


def threads_of(process: psutil.Process) -> list[tuple[str, int]]:
    """Name and id of each thread of a process; a vCPU's name is ``CPU 0/KVM`` or ``CPU 0/TCG``."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return [((task / "comm").read_text().strip(), int(task.name)) for task in tasks]


def quota_of(thread: int) -> float:
    """CPUs that the cgroup of a thread may use, by what the kernel keeps."""
    lines = Path(f"/proc/{thread}/cgroup").read_text().splitlines()
    groups = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    v1 = next((path for controllers, path in groups.items() if "cpu" in controllers.split(",")), None)
    if v1 is not None:
        group = Path("/sys/fs/cgroup/cpu" + v1)
        return int((group / "cpu.cfs_quota_us").read_text()) / int((group / "cpu.cfs_period_us").read_text())
    quota, period = (Path("/sys/fs/cgroup" + groups[""]) / "cpu.max").read_text().split()
    return int(quota) / int(period)


def test_vcpu_threads_run_on_the_domain_s_strands() -> None:
    """And everything else of QEMU on the control domain's; one strand of four is a quarter of a CPU."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs, to tell strands of one from those of another")
    with make_hosts(1, HostPlan(strands_per_cpu=STRANDS_PER_CPU, confine=True)) as hosts:
        # The lab leaves half of the strands to primary: with two CPUs all of one.
        name = hosts.add_guest(pulse_fill=8)
        hosts.boot(name)
        cpus = sorted(os.sched_getaffinity(0))
        expected = {}
        for domain in (name, "primary"):
            view = hosts.view(SOURCE, domain)
            assert view is not None
            strands = [vcpu["strand"] for vcpu in view["domain"]["bindings"]["vcpus"]]
            expected[domain] = {cpus[strand // STRANDS_PER_CPU] for strand in strands}
        assert expected[name] != expected["primary"]
        guest = hosts.view(SOURCE, name)
        assert guest is not None
        threads = threads_of(hosts.qemus(guest["domain"]["uuid"])[SOURCE])
        vcpus = [thread for comm, thread in threads if comm.startswith("CPU ")]
        assert len(vcpus) == 1
        for comm, thread in threads:
            owner = name if thread in vcpus else "primary"
            assert os.sched_getaffinity(thread) == expected[owner], f"thread {comm} is not where {owner} is"
        if hosts.lab.client(SOURCE).get("/host")["facts"]["confinement"] != "affinity":
            assert quota_of(vcpus[0]) == pytest.approx(1 / STRANDS_PER_CPU)
        hosts.remove_guest(name)
