"""Cgroups of both versions, on trees of plain files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ldoms.hypervisor.confinement import (
    MIN_QUOTA_US,
    PERIOD_US,
    PRECEDENCE,
    CgroupV1,
    CgroupV2,
    Confinement,
    detect,
    quota_us,
    set_affinity,
)


def v1_root(tmp_path: Path) -> Path:
    root = tmp_path / "v1"
    (root / "cpu" / "ldoms").mkdir(parents=True)
    (root / "cpu" / "tasks").touch()
    return root


def v2_root(tmp_path: Path, controllers: str = "cpuset cpu io") -> Path:
    root = tmp_path / "v2"
    root.mkdir()
    (root / "cgroup.controllers").write_text(controllers)
    return root


def test_v2_groups_are_threaded_below_a_slice(tmp_path: Path) -> None:
    """The controller is handed down, the group is threaded before a limit is set, and threads go into its own file."""
    root = v2_root(tmp_path)
    confinement = detect("t4-1", root, cpus=4)
    assert isinstance(confinement, CgroupV2)
    assert confinement.kind == "cgroup-v2"
    base = root / "ldoms.slice" / "t4-1"
    for parent in (root, root / "ldoms.slice", base):
        assert (parent / "cgroup.subtree_control").read_text() == "+cpu"
    assert (root / "ldoms.slice" / "cpu.weight").read_text() == str(4 * PRECEDENCE * 100)
    assert (base / "cpu.weight").read_text() == "400"
    confinement.set_group("ldg1", 1.5, 1.5)
    assert (base / "ldg1" / "cpu.weight").read_text() == "150"
    assert (base / "ldg1" / "cgroup.type").read_text() == "threaded"
    assert (base / "ldg1" / "cpu.max").read_text() == f"{PERIOD_US * 3 // 2} {PERIOD_US}"
    confinement.add_process(41)
    confinement.add_threads("ldg1", [42])
    assert (base / "cgroup.procs").read_text() == "41"
    assert (base / "ldg1" / "cgroup.threads").read_text() == "42"
    confinement.set_group("ldg1", None)
    assert (base / "ldg1" / "cpu.max").read_text() == f"max {PERIOD_US}"


def test_v1_groups_are_in_the_cpu_controller(tmp_path: Path) -> None:
    """With a quota for each period."""
    root = v1_root(tmp_path)
    confinement = detect("t4-1", root, cpus=4)
    assert isinstance(confinement, CgroupV1)
    base = root / "cpu" / "ldoms" / "t4-1"
    assert (base.parent / "cpu.shares").read_text() == str(4 * PRECEDENCE * 1024)
    assert (base / "cpu.shares").read_text() == "4096"
    group = base / "ldg1"
    confinement.set_group("ldg1", 0.5, 0.5)
    assert (group / "cpu.shares").read_text() == "512"
    assert (group / "cpu.cfs_period_us").read_text() == str(PERIOD_US)
    assert (group / "cpu.cfs_quota_us").read_text() == str(PERIOD_US // 2)
    confinement.add_threads("ldg1", [42])
    assert (group / "tasks").read_text() == "42"
    confinement.set_group("ldg1", None)
    assert (group / "cpu.cfs_quota_us").read_text() == "-1"


def test_v2_is_preferred(tmp_path: Path) -> None:
    """On a machine that has both."""
    root = v2_root(tmp_path)
    (root / "cpu").mkdir()
    (root / "cpu" / "tasks").touch()
    assert detect("t4-1", root).kind == "cgroup-v2"


def test_v1_serves_where_v2_lacks_the_controller(tmp_path: Path) -> None:
    """A hybrid machine: the unified tree is there, the cpu controller is in the old one."""
    root = v2_root(tmp_path, controllers="pids")
    (root / "cpu").mkdir()
    (root / "cpu" / "tasks").touch()
    assert detect("t4-1", root).kind == "cgroup-v1"


def test_a_machine_without_cgroups_has_affinity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so once, and every call does nothing."""
    confinement = detect("t4-1", tmp_path)
    assert type(confinement) is Confinement
    assert capsys.readouterr().out.count("no-cgroups") == 1
    confinement.set_group("ldg1", 1.0)
    confinement.add_threads("ldg1", [1])
    confinement.remove_group("ldg1")
    confinement.close()
    assert list(tmp_path.iterdir()) == []


def test_a_tree_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    """Somebody else's cgroup: a container."""
    root = v2_root(tmp_path)
    (root / "ldoms.slice").touch()  # in the way of the directory
    assert detect("t4-1", root).kind == "affinity"


def test_what_was_made_is_taken_away(tmp_path: Path) -> None:
    """A group that the kernel still calls busy is tried again the next time."""
    confinement = CgroupV1(tmp_path / "base", 2)
    for name in ("a", "b"):
        (tmp_path / "base" / name).mkdir()
    (tmp_path / "base" / "a" / "busy").touch()
    confinement.remove_group("a")
    assert (tmp_path / "base" / "a").exists()
    (tmp_path / "base" / "a" / "busy").unlink()
    confinement.remove_group("b")
    assert not [path for path in (tmp_path / "base").iterdir() if path.is_dir()]
    (tmp_path / "base" / "cpu.shares").unlink()  # the kernel removes such files with their directory
    confinement.close()
    assert not (tmp_path / "base").exists()


def test_a_thread_that_has_ended_is_passed_over() -> None:
    """Threads of QEMU come and go."""
    thread = threading.Thread(target=lambda: None)
    thread.start()
    assert thread.native_id is not None
    thread.join()
    here = os.sched_getaffinity(0)
    set_affinity([thread.native_id], here)
    assert os.sched_getaffinity(0) == here


@pytest.mark.parametrize(("quota", "microseconds"), [(1.0, PERIOD_US), (0.25, PERIOD_US // 4), (0.001, MIN_QUOTA_US)])
def test_quotas(quota: float, microseconds: int) -> None:
    """Of each period; the kernel takes no less than a millisecond."""
    assert quota_us(quota) == microseconds


@pytest.mark.parametrize(
    ("programs", "v1", "v2"), [(1, 1024, 100), (0.25, 256, 25), (0.0001, 2, 1), (1000, 262_144, 10_000)]
)
def test_weights(programs: float, v1: int, v2: int) -> None:
    """In ordinary programs, as far as the kernel takes them."""
    assert (CgroupV1.weight(programs), CgroupV2.weight(programs)) == (v1, v2)
