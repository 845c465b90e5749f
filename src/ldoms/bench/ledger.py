"""Was anything lost, done twice or made up? What clients were told, against what the database has.

Each acknowledged transaction is a line in pgbench's log; each transaction that took place is a row in the workload's
ledger.
Both carry the client, the client's number for it and its kind, and are matched by all three: a count that is right
by chance does not pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ldoms.bench.log import LoadResult, Outcome, Transaction
from ldoms.bench.server import Server, query

_MOST_EXAMPLES = 10


@dataclass(frozen=True, slots=True, order=True)
class LedgerEntry:
    """A transaction by what both sides know it by."""

    client: int
    seq: int
    kind: str


@dataclass(frozen=True, slots=True)
class LedgerComparison:
    """What came of it.

    Attributes:
        acknowledged: transactions that a client was told are done.
        rows: in the ledger of the run.
        missing: acknowledged, but not in the ledger.
        doubled: in the ledger more than once.
        invented: in the ledger, though the client never had an answer and had gone on to others, or was told that
            it failed.
        in_doubt: in the ledger, and the next one that its client would have had: it was under way when the client
            ended, so that nobody was told. At most one for each client, unless the log is not complete.
        log_is_complete: False: pgbench was killed and the end of its log is lost, so all rows after a client's last
            line are in doubt. It takes nothing from `missing` and `doubled`.
        examples: the first few of each sort of fault.
    """

    acknowledged: int
    rows: int
    missing: int
    doubled: int
    invented: int
    in_doubt: int
    log_is_complete: bool
    examples: Mapping[str, tuple[LedgerEntry, ...]]

    @property
    def is_clean(self) -> bool:
        """Whether every acknowledged transaction is there once, and nothing else."""
        return not (self.missing or self.doubled or self.invented)


def read_rows(
    server: Server, run: int, *, table: str = "oe.ledger", prefix: Sequence[str] = (), timeout_s: float = 120.0
) -> list[LedgerEntry]:
    """Read the ledger of one run.

    Raises:
        HostError: as `ldoms.bench.server.query`.
    """
    sql = f"select client, seq, kind from {table} where run = {int(run)}"  # noqa: S608  a number, and a name of ours
    rows = query(server, sql, prefix=prefix, timeout_s=timeout_s)
    return [LedgerEntry(int(client), int(seq), kind) for client, seq, kind in rows]


def compare(
    transactions: Iterable[Transaction], rows: Iterable[LedgerEntry], *, log_is_complete: bool = True
) -> LedgerComparison:
    """Match the log of a run with its rows in the ledger."""
    acknowledged: set[LedgerEntry] = set()
    last: dict[int, int] = {}
    for one in transactions:
        last[one.client] = max(one.seq, last.get(one.client, 0))
        if one.outcome is Outcome.ACKNOWLEDGED:
            acknowledged.add(LedgerEntry(one.client, one.seq, one.kind))
    counts = Counter(rows)
    unasked = [entry for entry in counts if entry not in acknowledged]
    in_doubt = {entry for entry in unasked if _is_open(entry, last.get(entry.client, 0), log_is_complete)}
    faults = {
        "missing": sorted(acknowledged - counts.keys()),
        "doubled": sorted(entry for entry, count in counts.items() if count > 1),
        "invented": sorted(set(unasked) - in_doubt),
    }
    return LedgerComparison(
        acknowledged=len(acknowledged),
        rows=counts.total(),
        missing=len(faults["missing"]),
        doubled=len(faults["doubled"]),
        invented=len(faults["invented"]),
        in_doubt=len(in_doubt),
        log_is_complete=log_is_complete,
        examples={fault: tuple(entries[:_MOST_EXAMPLES]) for fault, entries in faults.items() if entries},
    )


def check_ledger(
    server: Server, run: int, result: LoadResult, *, table: str = "oe.ledger", prefix: Sequence[str] = ()
) -> LedgerComparison:
    """Read the ledger of a run that has ended, and compare.

    Raises:
        HostError: as `ldoms.bench.server.query`.
    """
    rows = read_rows(server, run, table=table, prefix=prefix)
    return compare(result.transactions, rows, log_is_complete=result.is_complete)


def _is_open(entry: LedgerEntry, last: int, log_is_complete: bool) -> bool:
    return entry.seq == last + 1 if log_is_complete else entry.seq > last
