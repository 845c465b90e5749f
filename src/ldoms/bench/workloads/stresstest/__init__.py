"""StressTest: single rows of one table inserted, changed, read and deleted, after SwingBench's workload of that name.

Table, index and transactions are SwingBench's; the weights are ours (a quarter each: none are published), and so is
the number of rows that are there at first (SwingBench begins with none). Tables are in the schema ``st``.
"""

from __future__ import annotations

from pathlib import Path

from ldoms.bench.workloads.stored import DataCheck, StoredWorkload
from ldoms.bench.workloads.workload import KindDescription

_ROWS = """
select abs(there - wanted), wanted, there || ' are there, not ' || wanted
from (select
    (select count(*) from st.stresstesttable) as there,
    (select value from st.metadata where name = 'rows')
        + (select coalesce(sum(rows), 0) from st.ledger)::bigint as wanted) compared
"""
_SUM = """
select abs(there - wanted), wanted, 'the sum of aint is ' || there || ', not ' || wanted
from (select
    (select coalesce(sum(aint), 0) from st.stresstesttable)::bigint as there,
    (select value from st.metadata where name = 'aint')
        + (select coalesce(sum(change), 0) from st.ledger)::bigint as wanted) compared
"""
_CONTENT = """
select
    count(*) filter (where is_wrong), count(*),
    'such as ' || string_agg(id::text, ', ') filter (where is_wrong and nth <= 3)
from (
    select id, is_wrong, row_number() over (partition by is_wrong order by id) as nth
    from (
        select id, (asmallvarchar, abigvarchar) is distinct from (st.small_text(id), st.big_text(id)) as is_wrong
        from st.stresstesttable
    ) looked_at
) counted
"""

STRESS_TEST = StoredWorkload(
    name="stresstest",
    title="StressTest",
    schema="st",
    directory=Path(__file__).parent,
    kinds=(
        KindDescription("INS", "Stress Test Insert", 25, function="insert_row"),
        KindDescription("UPD", "Stress Test Update", 25, function="update_row"),
        KindDescription("SEL", "Stress Test Select", 25, function="select_row"),
        KindDescription("DEL", "Stress Test Delete", 25, function="delete_row"),
    ),
    scales={"rows": 20_000},
    arguments=":run, :client_id, :seq, :seed",
    metadata="st.metadata",
    checks=(
        DataCheck("rows", "rows", _ROWS),
        DataCheck("balance", "units", _SUM),
        DataCheck("contents", "rows", _CONTENT),
    ),
)
