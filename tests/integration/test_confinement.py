"""Threads of real guests run where their domain's strands are, and no longer than those allow."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ldoms.lab.lab import HostPlan
from support import SOURCE, make_hosts

STRANDS_PER_CPU = 4
PROGRAMS_PER_CPU = 12
LOOK_S = 5.0


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
            (main,) = [thread for _, thread in threads if thread == hosts.qemus(guest["domain"]["uuid"])[SOURCE].pid]
            for count in (1, 3, 2):
                hosts.ldm(SOURCE, "set-vcpu", str(count), "primary")
                assert quota_of(main) == pytest.approx(count / STRANDS_PER_CPU), "what copies memory is not limited"
        hosts.remove_guest(name)


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Many programs that want all the CPU time there is."""
    count = PROGRAMS_PER_CPU * len(os.sched_getaffinity(0))
    programs = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
        for program in programs:
            program.wait()


def cpu_seconds(process: psutil.Process, thread: int) -> float:
    """That a thread has used so far."""
    return next(one.user_time + one.system_time for one in process.threads() if one.id == thread)


def test_a_busy_machine_leaves_a_domain_its_strands() -> None:
    """One of four strands of a CPU is a quarter of it, however many other programs want it: most of that it gets."""
    with make_hosts(1, HostPlan(strands_per_cpu=STRANDS_PER_CPU, confine=True)) as hosts:
        if hosts.lab.client(SOURCE).get("/host")["facts"]["confinement"] == "affinity":
            pytest.skip("this machine has no control groups that can be used")
        name = hosts.add_guest(pulse_size=16, pulse_rate=100_000)
        hosts.boot(name)
        view = hosts.view(SOURCE, name)
        assert view is not None
        process = hosts.qemus(view["domain"]["uuid"])[SOURCE]
        (vcpu,) = [thread for comm, thread in threads_of(process) if comm.startswith("CPU ")]
        with busy_machine():
            time.sleep(1)
            begun, used = time.monotonic(), cpu_seconds(process, vcpu)
            time.sleep(LOOK_S)
            share = (cpu_seconds(process, vcpu) - used) / (time.monotonic() - begun)
        assert share == pytest.approx(1 / STRANDS_PER_CPU, rel=0.4)
        hosts.remove_guest(name)
