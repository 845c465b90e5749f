"""Block changes, counted in the write-ahead log.

Oracle counts each change of a block as it makes it (``db block changes``). PostgreSQL has no such counter, but its
log names the blocks that each record changes, and the extension ``pg_walinspect`` reads the log: a reference to a
block is a change of a block. What changes a block without logging it (hint bits without checksums, unlogged and
temporary tables) is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ldoms.bench.database.snapshot import Snapshot
from ldoms.bench.server import Server, query
from ldoms.model.errors import HostError

_LIMIT_S = 120.0

# Grouped by block first, and then by file: ten times as fast as counting different blocks in one step. The end is cut
# to what is on disk: the functions refuse what is not.
_COUNT = """
set search_path = pg_catalog, pg_temp;
with block as (
    {blocks}
    group by 1, 2, 3
)
select 'relation', file, sum(changes), count(*) from block group by 2
union all
select 'commits', '', coalesce(sum(count), 0), 0
from {schema}.pg_get_wal_stats('{begin}', least('{end}', pg_current_wal_flush_lsn()), true) as stats
where stats."resource_manager/record_type" like 'Transaction/COMMIT%'
"""
_BLOCKS = """
    select reltablespace || '/' || reldatabase || '/' || relfilenode as file,
           relforknumber, relblocknumber, count(*) as changes
    from {schema}.pg_get_wal_block_info('{begin}', least('{end}', pg_current_wal_flush_lsn()), false)
"""
# In words, such as: blkref #0: rel 1663/5/16443 fork main blk 1 blkref #1: ...
_BLOCKS_15 = """
    select split_part(reference, ' ', 3) as file,
           split_part(reference, ' ', 5), split_part(reference, ' ', 7), count(*) as changes
    from {schema}.pg_get_wal_records_info('{begin}', least('{end}', pg_current_wal_flush_lsn())),
         string_to_table(block_ref, 'blkref #') as reference
    where reference <> ''
"""


@dataclass(frozen=True, slots=True)
class WalChanges:
    """What a stretch of the write-ahead log says.

    Attributes:
        changes: of blocks: references to blocks in its records.
        blocks: different blocks that were changed.
        commits: of transactions that changed something.
        relations: changes and different blocks by file, as ``tablespace/database/filenode``.
    """

    changes: int
    blocks: int
    commits: int
    relations: Mapping[str, tuple[int, int]]


NOTHING = WalChanges(0, 0, 0, {})


def read_wal(server: Server, begin: Snapshot, end: Snapshot, *, prefix: Sequence[str] = ()) -> WalChanges | str:
    """Count the block changes between two snapshots; if that is not possible, a sentence says why.

    The log of that time must still be there: the server keeps it at least until the next checkpoint but one.
    """
    if obstacle := _obstacle(end):
        return obstacle
    if begin.facts["lsn"] == end.facts["lsn"]:
        return NOTHING
    places = {"schema": end.facts["wal_schema"], "begin": begin.facts["lsn"], "end": end.facts["lsn"]}
    blocks = (_BLOCKS if end.version >= 160000 else _BLOCKS_15).format(**places)
    sql = _COUNT.format(blocks=blocks, **places)
    try:
        return parse_wal(query(server, sql, prefix=prefix, timeout_s=_LIMIT_S))
    except HostError as error:
        return _reason(error)


def parse_wal(rows: Sequence[Sequence[str]]) -> WalChanges:
    """Make sense of the rows of the queries: what, file, count, different blocks."""
    relations = {name: (int(changes), int(blocks)) for what, name, changes, blocks in rows if what == "relation"}
    return WalChanges(
        changes=sum(changes for changes, _ in relations.values()),
        blocks=sum(blocks for _, blocks in relations.values()),
        commits=sum(int(count) for what, _, count, _ in rows if what == "commits"),
        relations=relations,
    )


def _obstacle(snapshot: Snapshot) -> str:
    facts = snapshot.facts
    if facts["is_standby"]:
        return "the server is a standby, which writes no log of its own"
    if not facts["wal_schema"]:
        return "the extension is not in this database: CREATE EXTENSION pg_walinspect"
    if not facts["reads_files"]:
        return f"the role {facts['role']} may not read the log: GRANT pg_read_server_files TO {facts['role']}"
    return ""


def _reason(error: HostError) -> str:
    if error.code == "program-slow":
        return f"reading the log took longer than {_LIMIT_S:g} s"
    if "could not find a valid record" in error.message:
        return "the log has no whole record of that time"
    return f"the log could not be read: {error.message.partition('ERROR:')[2].strip() or error.message}"
