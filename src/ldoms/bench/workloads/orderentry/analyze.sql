-- OrderEntry, after loading: what autovacuum would do some minutes later, in the middle of a measurement.
--
-- Values are spread evenly, so a small sample tells the planner enough, in a third of the time.

set default_statistics_target = 10;
vacuum (analyze)
    oe.orderentry_metadata, oe.customers, oe.addresses, oe.card_details, oe.warehouses, oe.product_information,
    oe.product_descriptions, oe.inventories, oe.orders, oe.order_items;
