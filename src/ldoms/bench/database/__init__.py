"""What a PostgreSQL server did between two moments, told in the manner of Oracle's AWR report.

`take_snapshot` reads the server's counters, `database_report` compares two snapshots for each stretch of time, and
`render` shows the report as text. The definition of every statistic is in docs/reference/database-report.md.
"""

from __future__ import annotations

from ldoms.bench.database.report import database_report
from ldoms.bench.database.snapshot import Snapshot, take_snapshot
from ldoms.bench.database.text import render

__all__ = ["Snapshot", "database_report", "render", "take_snapshot"]
