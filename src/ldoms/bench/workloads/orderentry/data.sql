-- OrderEntry, the rows: psql variables `customers` and `warehouses` give the size; products are always 1,000.
--
-- Sets, then keys, then indexes: a guest whose instructions are emulated loads some thousands of customers in
-- seconds. Per customer 1.5 addresses, 1.5 cards, 1.5 orders and, per order, 2 to 4 items.

set synchronous_commit = off;
set jit = off;
select setseed(0.25) \g /dev/null

insert into oe.orderentry_metadata values
    ('customers', :customers), ('warehouses', :warehouses), ('products', 1000), ('categories', 199),
    ('version', :version);

insert into oe.warehouses
select n, 'Warehouse ' || n, 1 + n % 99 from generate_series(1, :warehouses) n;

insert into oe.product_information
select
    n, 'Product ' || n, 1 + n % 199, 1 + n % 5, 12 + n % 3 * 12, 1 + n % 63, 'orderable',
    5 + n * 7919 % 49500 / 100.0, 2 + n * 7919 % 49500 / 200.0, '/catalogue/' || n
from generate_series(1, 1000) n;

insert into oe.product_descriptions
select n, 'en', 'Product ' || n, 'Description of product ' || n || ', ' || repeat('good to have ', 4)
from generate_series(1, 1000) n;

insert into oe.inventories
select p, w, oe.initial_stock(p, w)
from generate_series(1, :warehouses) w, generate_series(1, 1000) p;

insert into oe.customers
select
    n, f, l, f || '.' || l || '@example.com', 'en', 'GB', 100 + n * 37 % 4900, 1 + n % 1000,
    case n % 4 when 0 then 'prime' when 1 then 'business' else 'occasional' end,
    date '2015-01-01' + (n % 3000)::int, date '1950-01-01' + (n * 13 % 20000)::int, n, n
from (
    select n, oe.first_name(floor(random() * 32)::int) as f, oe.last_name(floor(random() * 64)::int) as l
    from generate_series(1, :customers) n
) people;

insert into oe.addresses
select
    n, 1 + (n - 1) % :customers, date '2015-01-01' + (n % 3000)::int, (1 + n % 250)::text,
    oe.last_name((n % 64)::int) || ' Road', oe.last_name((n / 64 % 64)::int), 'GB', lpad((n * 7 % 100000)::text, 5, '0')
from generate_series(1, :customers * 3 / 2) n;

insert into oe.card_details
select
    n, 1 + (n - 1) % :customers, case n % 2 when 0 then 'debit' else 'credit' end, 4000000000000000 + n,
    date '2030-01-01' + (n % 1000)::int, n % 20 <> 0, n % 1000
from generate_series(1, :customers * 3 / 2) n;

insert into oe.order_items
select n, line, p.product_id, p.list_price, 1 + (n + line) % 5, 0, false, date '2025-01-01'
from generate_series(1, :customers * 3 / 2) n
cross join generate_series(1, 4) line
join oe.product_information p on p.product_id = 1 + (n * 7 + line * 251) % 1000
where line <= 2 + n % 3;

insert into oe.orders
select
    n, timestamptz '2025-01-01 00:00+00' + n * interval '1 minute', case n % 2 when 0 then 'direct' else 'online' end,
    1 + n * 7919 % :customers, n % 11, i.total, 1 + n % 1000, 1 + n % :warehouses, 'standard',
    1 + n * 7919 % :customers, 1 + n * 7919 % :customers
from (select order_id as n, sum(unit_price * quantity) as total from oe.order_items group by order_id) i;

select setval('oe.customers_seq', :customers), setval('oe.addresses_seq', :customers * 3 / 2),
    setval('oe.cards_seq', :customers * 3 / 2), setval('oe.orders_seq', :customers * 3 / 2) \g /dev/null

alter table oe.orderentry_metadata add primary key (name);
alter table oe.customers add primary key (customer_id);
alter table oe.addresses add primary key (address_id);
alter table oe.card_details add primary key (card_id);
alter table oe.warehouses add primary key (warehouse_id);
alter table oe.product_information add primary key (product_id);
alter table oe.product_descriptions add primary key (product_id, language);
alter table oe.inventories add primary key (warehouse_id, product_id);
alter table oe.orders add primary key (order_id);
alter table oe.order_items add primary key (order_id, line_item);
alter table oe.logon add primary key (logon_id);

create index customers_name on oe.customers (lower(last_name), lower(first_name));
create index addresses_customer on oe.addresses (customer_id);
create index card_details_customer on oe.card_details (customer_id);
create index product_information_category on oe.product_information (category_id);
create index orders_customer on oe.orders (customer_id);
create index orders_sales_rep on oe.orders (sales_rep);
create index orders_waiting on oe.orders (warehouse_id, order_status);

-- None to products and warehouses: each item would lock the row of its product, and those never change.
alter table oe.addresses add foreign key (customer_id) references oe.customers;
alter table oe.card_details add foreign key (customer_id) references oe.customers;
alter table oe.orders add foreign key (customer_id) references oe.customers;
alter table oe.order_items add foreign key (order_id) references oe.orders;
alter table oe.inventories add check (quantity_on_hand >= 0);
