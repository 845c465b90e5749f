"""Host CPU, as the kernel below the server counts it: in a guest, the CPUs of the guest."""

from __future__ import annotations

from ldoms.bench.database.interval import Interval, ratio
from ldoms.bench.database.snapshot import Snapshot
from ldoms.bench.database.tables import Intervals, labels, rounded
from ldoms.bench.record import Table

_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""Of a line of ``/proc/stat``; guest time is part of user time (proc(5))."""

LINES = (
    ("%User", "user + nice", ("user", "nice")),
    ("%System", "system + irq + softirq", ("system", "irq", "softirq")),
    ("%WIO", "iowait", ("iowait",)),
    ("%Idle", "idle", ("idle",)),
    ("-", "steal", ("steal",)),
)
"""AWR's name, the fields of ``/proc/stat`` in words, and the fields."""


def host_table(intervals: Intervals) -> Table:
    """Shares of the time of all CPUs, their number, and the load average at the end of each interval."""
    note = "Of /proc/stat and /proc/loadavg of the machine that the server runs on."
    columns = ("AWR", "Linux", *labels(intervals, "%"))
    shares = [cpu_shares(interval) for interval in intervals.values()]
    if not any(shares):
        return Table("Host CPU", columns, (), "Not to be had: the role may not read /proc (pg_read_server_files).")
    rows = [
        (awr, fields, *(rounded(sum(share[name] for name in names)) if share else None for share in shares))
        for awr, fields, names in LINES
    ]
    ends = [interval.end for interval in intervals.values()]
    rows.append(("CPUs", "cpu lines, at the end", *map(cpus, ends)))
    rows.append(("Load Average End", "loadavg, 1 minute", *map(load_average, ends)))
    return Table("Host CPU", columns, tuple(rows), note)


def cpu_shares(interval: Interval) -> dict[str, float] | None:
    """Percent of all CPU time that went to each use; None = nobody could look."""
    begin, end = _ticks(interval.begin), _ticks(interval.end)
    if begin is None or end is None:
        return None
    # A counter of the kernel may step back a little (iowait, proc(5)).
    spent = {name: max(0, end[name] - begin[name]) for name in _FIELDS}
    whole = sum(spent.values())
    return {name: ratio(ticks, whole, 100.0) or 0.0 for name, ticks in spent.items()}


def cpus(snapshot: Snapshot) -> int | None:
    """How many the machine has online."""
    text = _file(snapshot, "/proc/stat")
    return sum(1 for line in text.splitlines() if line.startswith("cpu") and line[3:4].isdigit()) or None


def load_average(snapshot: Snapshot) -> float | None:
    """Of the last minute."""
    text = _file(snapshot, "/proc/loadavg")
    return float(text.split()[0]) if text else None


def memory_mib(snapshot: Snapshot) -> int | None:
    """That the machine has."""
    for line in _file(snapshot, "/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def _ticks(snapshot: Snapshot) -> dict[str, int] | None:
    text = _file(snapshot, "/proc/stat")
    if not text.startswith("cpu "):
        return None
    return dict(zip(_FIELDS, map(int, text.splitlines()[0].split()[1:9]), strict=True))


def _file(snapshot: Snapshot, name: str) -> str:
    return next((row["text"] or "" for row in snapshot.rows("files") if row["name"] == name), "")
