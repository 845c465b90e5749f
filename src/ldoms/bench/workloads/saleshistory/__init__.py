"""SalesHistory: questions of management to a star schema, after SwingBench's workload of that name. Nothing is changed.

The fifteen transactions are SwingBench's by name and purpose. Ours are the SQL, the weights (all alike: none are
published), the short names, the sizes, and the data; the tables of costs and of demographics, which no transaction
reads, are left out. Tables are in the schema ``sh``.

There is no ledger: a transaction that changes nothing leaves nothing to lose. What can be proved is that the data are
still those that were loaded, and that every question still has the answer that it had then.
"""

from __future__ import annotations

from pathlib import Path

from ldoms.bench.workloads.stored import DataCheck, StoredWorkload
from ldoms.bench.workloads.workload import KindDescription

_DIGEST = """
select (wanted is distinct from digest)::int * rows, rows, 'they are not those that were loaded'
from (select count(*) as rows, coalesce(sum(hashtext(t::text)), 0)::bigint as digest from sh.{table} t) found,
    (select (select value from sh.metadata where name = 'digest_{table}') as wanted) loaded
"""
_ROWS = """
select abs(there - wanted), wanted, there || ' are there, not ' || wanted
from (select
    (select count(*) from sh.sales) as there, (select value from sh.metadata where name = 'sales') as wanted) compared
"""
_REFERENCES = """
select count(*) filter (where p is null or c is null or n is null or t is null or h is null or o is null), count(*)
from sh.sales s
left join sh.products p using (prod_id)
left join sh.customers c using (cust_id)
left join sh.countries n using (country_id)
left join sh.times t using (time_id)
left join sh.channels h using (channel_id)
left join sh.promotions o using (promo_id)
"""
_ANSWERS = """
select
    count(*) filter (where again <> answer), count(*),
    'of ' || string_agg(distinct kind, ', ') filter (where again <> answer)
from (select kind, answer, sh.answer(kind, seed) as again from sh.answers) asked
"""
_DIMENSIONS = ("products", "customers", "countries", "times", "channels", "promotions")

SALES_HISTORY = StoredWorkload(
    name="saleshistory",
    title="SalesHistory",
    schema="sh",
    directory=Path(__file__).parent,
    kinds=(
        KindDescription("SQC", "Sales by Quarter and Country", 1, function="sales_by_quarter_country"),
        KindDescription("SWC", "Sales by Week and Country", 1, function="sales_by_week_country"),
        KindDescription("SCY", "Sales by Country for a Year", 1, function="sales_by_country_for_year"),
        KindDescription("SRM", "Sales Rollup by Month", 1, function="sales_rollup_by_month"),
        KindDescription("SRW", "Sales Rollup by Week", 1, function="sales_rollup_by_week"),
        KindDescription("SCM", "Sales Cube by Month", 1, function="sales_cube_by_month"),
        KindDescription("SCW", "Sales Cube by Week", 1, function="sales_cube_by_week"),
        KindDescription("PSR", "Product Sales Rollup", 1, function="product_sales_rollup"),
        KindDescription("PMR", "Product Monthly Sales Rollup", 1, function="product_monthly_sales_rollup"),
        KindDescription("SMA", "Sales Moving Average", 1, function="sales_moving_average"),
        KindDescription("TSQ", "Top Sales within Quarter", 1, function="top_sales_within_quarter"),
        KindDescription("TSW", "Top Sales within Week", 1, function="top_sales_within_week"),
        KindDescription("WWC", "Week to Week Comparison", 1, function="week_to_week_comparison"),
        KindDescription("PPC", "Period to Period Comparison", 1, function="period_to_period_comparison"),
        KindDescription("SLU", "Simple Look-up", 1, function="simple_look_up"),
    ),
    scales={"sales": 100_000, "customers": 5_000},
    arguments=":seed",
    metadata="sh.metadata",
    checks=(
        DataCheck("rows", "sales", _ROWS),
        DataCheck("sales", "sales", _DIGEST.format(table="sales")),
        *(DataCheck(table, table, _DIGEST.format(table=table)) for table in _DIMENSIONS),
        DataCheck("references", "sales", _REFERENCES),
        DataCheck("answers", "answers", _ANSWERS),
    ),
    has_ledger=False,
)
