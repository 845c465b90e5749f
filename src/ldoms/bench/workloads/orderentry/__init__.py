"""OrderEntry: order processing by many users, after the public description of SwingBench's workload of that name.

The SQL beside this file is our own; tables are in the schema ``oe``. Weights, tables, and what is done are
SwingBench's (configuration with server-side functions), sizes are ours: SwingBench has 1,000 warehouses, and each adds
1,000 rows of stock, which is most of the loading time of a small database. Customers bring 1.5 orders each.
"""

from __future__ import annotations

from pathlib import Path

from ldoms.bench.workloads.stored import DataCheck, StoredWorkload
from ldoms.bench.workloads.workload import KindDescription

_COUNTS = """
with counted as (
    select
        (select count(*) from oe.ledger where kind = 'NCR') as ncr,
        (select count(*) from oe.ledger where kind = 'UCD') as ucd,
        (select count(*) from oe.ledger where kind = 'OP') as op,
        (select count(*) from oe.ledger where kind in ('NCR', 'OP', 'BO')) as logons,
        (select value from oe.orderentry_metadata where name = 'customers') as loaded)
select
    coalesce(sum((wanted <> there)::int), 0), count(*),
    string_agg(name || ' has ' || there || ' rows, not ' || wanted, '; ') filter (where wanted <> there)
from counted, lateral (values
    ('customers', loaded + ncr, (select count(*) from oe.customers)),
    ('addresses', loaded * 3 / 2 + ncr + ucd, (select count(*) from oe.addresses)),
    ('card_details', loaded * 3 / 2 + ncr, (select count(*) from oe.card_details)),
    ('orders', loaded * 3 / 2 + op, (select count(*) from oe.orders)),
    ('logon', logons, (select count(*) from oe.logon))) compared (name, wanted, there)
"""
_STOCK = """
with taken as (
    select o.warehouse_id, i.product_id, sum(i.taken_from_stock) as pieces
    from oe.order_items i join oe.orders o using (order_id) group by 1, 2)
select
    count(*) filter (where s.quantity_on_hand is distinct from
        oe.initial_stock(p.product_id, w.warehouse_id) - coalesce(t.pieces, 0)),
    count(*)
from oe.warehouses w
cross join oe.product_information p
left join oe.inventories s on (s.warehouse_id, s.product_id) = (w.warehouse_id, p.product_id)
left join taken t on (t.warehouse_id, t.product_id) = (w.warehouse_id, p.product_id)
"""
_LINES = """
select count(*) filter (where first <> 1 or last <> lines or o.order_id is null), count(*)
from (select order_id, min(line_item) as first, max(line_item) as last, count(*) as lines
      from oe.order_items group by order_id) i
left join oe.orders o using (order_id)
"""
_PREFERRED = """
select count(*) filter (where a.address_id is null or d.card_id is null), count(*)
from oe.customers c
left join oe.addresses a on (a.address_id, a.customer_id) = (c.preferred_address, c.customer_id)
left join oe.card_details d on (d.card_id, d.customer_id) = (c.preferred_card, c.customer_id)
"""

ORDER_ENTRY = StoredWorkload(
    name="orderentry",
    title="OrderEntry",
    schema="oe",
    directory=Path(__file__).parent,
    kinds=(
        KindDescription("NCR", "Customer Registration", 15, function="register_customer"),
        KindDescription("UCD", "Update Customer Details", 10, function="update_customer"),
        KindDescription("BP", "Browse Products", 50, function="browse_products"),
        KindDescription("OP", "Order Products", 40, function="order_products"),
        KindDescription("PO", "Process Orders", 5, function="process_order"),
        KindDescription("BO", "Browse Orders", 5, function="browse_orders"),
        KindDescription("SQ", "Sales Rep Query", 2, is_on=False, function="query_sales_rep"),
        KindDescription("WQ", "Warehouse Query", 2, is_on=False, function="query_warehouse"),
        KindDescription("WA", "Warehouse Activity Query", 2, is_on=False, function="query_warehouse_activity"),
    ),
    scales={"customers": 5_000, "warehouses": 100},
    most={"warehouses": 1_000},
    choices={"customer": "customers", "warehouse": "warehouses"},
    arguments=":run, :client_id, :seq, :customer, :warehouse, :seed, :think_min, :think_max",
    metadata="oe.orderentry_metadata",
    checks=(
        DataCheck("order totals", "orders", "select oe.wrong_totals(), (select count(*) from oe.orders)"),
        DataCheck("order items", "orders with items", _LINES),
        DataCheck("stock", "products in warehouses", _STOCK),
        DataCheck("customers' addresses and cards", "customers", _PREFERRED),
        DataCheck("rows for each transaction", "tables", _COUNTS),
    ),
)
