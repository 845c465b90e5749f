"""CallingCircle: customers of a telephone company look after the numbers that they call at a lower price.

After the public description of SwingBench's workload of that name, whose three transactions and rules for a circle it
has. Ours are the SQL, the sizes, the weights (none are published), numbers that are drawn when they are needed instead
of being read from files that run out, 1,000 changes of a line in place of 30 for the same reason, and one commit for
each transaction, where SwingBench's commit after every log-in and every number. Tables are in the schema ``cc``.
"""

from __future__ import annotations

from pathlib import Path

from ldoms.bench.workloads.stored import DataCheck, StoredWorkload
from ldoms.bench.workloads.workload import KindDescription

_ROWS = """
select
    coalesce(sum((wanted <> there)::int), 0), count(*),
    string_agg(name || ' has ' || there || ' rows, not ' || wanted, '; ') filter (where wanted <> there)
from (select
    (select value from cc.metadata where name = 'accounts')
        + (select count(*) from cc.ledger where kind = 'NC') as wanted) counted,
lateral (values
    ('accounts', (select count(*) from cc.accounts)),
    ('lines', (select count(*) from cc.lines))) compared (name, there)
"""
_CIRCLES = """
select
    count(*) filter (where c.lowest is distinct from 1 or c.highest <> p.slots or c.numbers <> p.slots), count(*)
from cc.lines l
join cc.packages p using (package_id)
left join (
    select line_id, min(slot) as lowest, max(slot) as highest, count(*) as numbers
    from cc.circle_numbers where valid_to = 'infinity' group by line_id
) c using (line_id)
"""
_HISTORY = """
select
    count(*) filter (where valid_to is distinct from coalesce(next_from, 'infinity') or valid_to <= valid_from),
    count(*)
from (
    select valid_from, valid_to, lead(valid_from) over (partition by line_id, slot order by valid_from) as next_from
    from cc.circle_numbers
) numbers
"""
_UPDATES = """
select count(*) filter (where l.updates <> coalesce(c.updates, 0)), count(*)
from cc.lines l
left join (
    select line_id, count(*) filter (where dial_code_before <> 0) as updates
    from (
        select line_id, lag(dial_code_id) over (partition by line_id, slot order by valid_from) as dial_code_before
        from cc.circle_numbers
    ) numbers
    group by line_id
) c using (line_id)
"""
_CHANGES = """
select abs(there - wanted), wanted, there || ' are there, not ' || wanted
from (select
    (select count(*) from cc.circle_numbers where dial_code_id <> 0) as there,
    (select value from cc.metadata where name = 'numbers')
        + (select coalesce(sum(changes), 0) from cc.ledger)::bigint as wanted) compared
"""
_LOGINS = """
select abs(there - wanted), wanted, there || ' are there, not ' || wanted
from (select
    (select coalesce(sum(logins), 0) from cc.accounts)::bigint as there,
    (select coalesce(sum(logins), 0) from cc.ledger)::bigint as wanted) compared
"""
_RULES = """
select count(*) filter (where c.times > 1 or (c.dial_code_id, c.number) = (l.dial_code_id, l.number)), count(*)
from (
    select line_id, dial_code_id, number, count(*) as times
    from cc.circle_numbers where valid_to = 'infinity' and dial_code_id <> 0
    group by line_id, dial_code_id, number
) c
join cc.lines l using (line_id)
"""

CALLING_CIRCLE = StoredWorkload(
    name="callingcircle",
    title="CallingCircle",
    schema="cc",
    directory=Path(__file__).parent,
    kinds=(
        KindDescription("NC", "New Customer", 25, function="new_customer"),
        KindDescription("UC", "Update Customer Details", 50, function="update_customer"),
        KindDescription("RC", "Retrieve Customer Details", 25, function="retrieve_customer"),
    ),
    scales={"accounts": 5_000},
    choices={"account": "accounts"},
    arguments=":run, :client_id, :seq, :account, :seed, :think_min, :think_max",
    metadata="cc.metadata",
    checks=(
        DataCheck("rows for each transaction", "tables", _ROWS),
        DataCheck("circles", "lines", _CIRCLES),
        DataCheck("history of circles", "numbers and their predecessors", _HISTORY),
        DataCheck("updates of lines", "lines", _UPDATES),
        DataCheck("numbers that were set", "numbers", _CHANGES),
        DataCheck("log-ins", "log-ins", _LOGINS),
        DataCheck("rules of circles", "numbers in circles", _RULES),
    ),
)
