"""Where threads run and how much CPU time they get: affinity always, cgroups where the machine has them.

A group is a set of threads that share a quota, and a weight against others that want the same CPU. With cgroup v2 it is
a threaded cgroup (Documentation/admin-guide/cgroup-v2.rst, "Threads"), with v1 a cgroup of the ``cpu`` controller;
without either a quota has no effect and affinity alone divides the machine. The kernel divides a weight among the
CPUs that its threads are on: with the weight of one ordinary program for each CPU it counts as one on each of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog

PERIOD_US = 20_000
"""Of a quota. Short, so that a group that has used its share does not wait long in the middle of a suspension."""
MIN_QUOTA_US = 1_000
PRECEDENCE = 8
"""All domains of this machine together count as so many ordinary programs on each CPU: strands are promised."""
_V1_PROGRAM, _V1_MIN, _V1_MAX = 1024, 2, 262_144
_V2_PROGRAM, _V2_MIN, _V2_MAX = 100, 1, 10_000

_log = structlog.get_logger(__name__)


def set_affinity(threads: Iterable[int], cpus: Iterable[int]) -> None:
    """Let threads run on the given host CPUs only. Threads that have ended are passed over."""
    allowed = frozenset(cpus)
    for thread in threads:
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread, allowed)


class Confinement:
    """Groups of threads with a quota of CPU time; this one has no means to enforce it."""

    kind = "affinity"

    def set_group(self, name: str, quota: float | None, share: float = 1.0) -> None:
        """Make a group, or change it.

        Args:
            name: of the group.
            quota: CPU time that it gets at most, in CPUs; None = no limit.
            share: what it counts against other groups, in CPUs.
        """

    def add_process(self, pid: int) -> None:
        """Take a new process in, so that its threads can be moved into groups."""

    def add_threads(self, name: str, threads: Iterable[int]) -> None:
        """Move threads into a group."""

    def remove_group(self, name: str) -> None:
        """Remove a group whose threads have ended."""

    def close(self) -> None:
        """Remove what is empty of everything that was made; guests that go on running keep theirs."""


class _CgroupConfinement(Confinement):
    threads_file = ""

    weight_file = ""

    def __init__(self, base: Path, cpus: int) -> None:
        """Make groups below `base`, on a machine with so many CPUs."""
        self._base = base
        self._leftovers: set[Path] = set()
        base.mkdir(parents=True, exist_ok=True)
        (base.parent / self.weight_file).write_text(str(self.weight(cpus * PRECEDENCE)))
        (base / self.weight_file).write_text(str(self.weight(cpus)))

    @staticmethod
    def weight(programs: float) -> int:
        """The weight that counts as much as so many ordinary programs."""
        raise NotImplementedError

    def add_threads(self, name: str, threads: Iterable[int]) -> None:
        for thread in threads:
            with suppress(ProcessLookupError):
                (self._base / name / self.threads_file).write_text(str(thread))

    def remove_group(self, name: str) -> None:
        self._leftovers.add(self._base / name)
        # The kernel says "busy" for a moment after the last thread has ended: tried again next time.
        self._leftovers = {group for group in self._leftovers if not _remove(group)}

    def close(self) -> None:
        for group in (*(child for child in self._base.iterdir() if child.is_dir()), self._base):
            _remove(group)


class CgroupV1(_CgroupConfinement):
    """Groups of the v1 ``cpu`` controller."""

    kind = "cgroup-v1"
    threads_file = "tasks"
    weight_file = "cpu.shares"

    @staticmethod
    def weight(programs: float) -> int:
        """The weight that counts as much as so many ordinary programs."""
        return min(_V1_MAX, max(_V1_MIN, round(programs * _V1_PROGRAM)))

    def set_group(self, name: str, quota: float | None, share: float = 1.0) -> None:
        """Make a group, or change it."""
        group = self._base / name
        group.mkdir(exist_ok=True)
        (group / self.weight_file).write_text(str(self.weight(share)))
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us(quota)) if quota is not None else "-1")


class CgroupV2(_CgroupConfinement):
    """Threaded groups of the unified hierarchy."""

    kind = "cgroup-v2"
    threads_file = "cgroup.threads"
    weight_file = "cpu.weight"

    @staticmethod
    def weight(programs: float) -> int:
        """The weight that counts as much as so many ordinary programs."""
        return min(_V2_MAX, max(_V2_MIN, round(programs * _V2_PROGRAM)))

    def set_group(self, name: str, quota: float | None, share: float = 1.0) -> None:
        """Make a group, or change it."""
        group = self._base / name
        if not group.is_dir():
            group.mkdir()
            (group / "cgroup.type").write_text("threaded")
        (group / self.weight_file).write_text(str(self.weight(share)))
        limit = str(quota_us(quota)) if quota is not None else "max"
        (group / "cpu.max").write_text(f"{limit} {PERIOD_US}")

    def add_process(self, pid: int) -> None:
        """Take a new process into the threaded subtree, which its threads can then not leave."""
        (self._base / "cgroup.procs").write_text(str(pid))


def quota_us(quota: float) -> int:
    """A quota in CPUs as microseconds of each period."""
    return max(MIN_QUOTA_US, round(quota * PERIOD_US))


def detect(instance: str, root: Path = Path("/sys/fs/cgroup"), cpus: int = 0) -> Confinement:
    """The best confinement that this machine allows, under a name of its own for each `instance` of the manager.

    v2 is used below ``ldoms.slice``, v1 below ``ldoms``; both are made if they are not there. `cpus` is how many the
    machine has; 0 = it is asked.
    """
    attempts = (
        (CgroupV2, root / "ldoms.slice" / instance, _prepare_v2),
        (CgroupV1, root / "cpu" / "ldoms" / instance, lambda base: None),
    )
    for kind, base, prepare in attempts:
        if not _has_cpu_controller(kind, root):
            continue
        try:
            prepare(base)
            confinement = kind(base, cpus or os.cpu_count() or 1)
            confinement.set_group("probe", 1.0)
            confinement.remove_group("probe")
            return confinement
        except OSError as error:
            _log.info("cgroup-unusable", kind=kind.kind, path=str(base), reason=str(error))
    _log.warning("no-cgroups", consequence="CPU use is divided by affinity alone; quotas have no effect")
    return Confinement()


def _has_cpu_controller(kind: type[Confinement], root: Path) -> bool:
    if kind is CgroupV1:
        return (root / "cpu" / "tasks").exists()
    controllers = root / "cgroup.controllers"
    return controllers.exists() and "cpu" in controllers.read_text().split()


def _prepare_v2(base: Path) -> None:
    slice_ = base.parent
    slice_.mkdir(exist_ok=True)
    for parent in (slice_.parent, slice_):
        (parent / "cgroup.subtree_control").write_text("+cpu")
    base.mkdir(exist_ok=True)
    # The children are threaded, which makes this the root of a threaded subtree.
    (base / "cgroup.subtree_control").write_text("+cpu")


def _remove(group: Path) -> bool:
    """Remove a group; False if threads are still in it."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
