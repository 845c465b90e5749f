-- OrderEntry, the tables: an order-processing workload after the public description of SwingBench's OrderEntry.
--
-- Keys and indexes come in data.sql, after the rows. Inventories, orders and customers are updated in place, so
-- their pages leave room for new row versions.

set client_min_messages = warning;
drop schema if exists oe cascade;
create schema oe;

-- What was loaded, so that a load started later draws from the right range.
create table oe.orderentry_metadata (
    name  text not null,
    value bigint not null
);

create table oe.customers (
    customer_id       bigint not null,
    first_name        text not null,
    last_name         text not null,
    email             text not null,
    language          text not null,
    territory         text not null,
    credit_limit      numeric(8, 2) not null,
    account_manager   int not null,
    customer_class    text not null,
    customer_since    date not null,
    birth_date        date not null,
    preferred_address bigint,
    preferred_card    bigint
) with (fillfactor = 90);

create table oe.addresses (
    address_id   bigint not null,
    customer_id  bigint not null,
    created_on   date not null,
    house        text not null,
    street       text not null,
    town         text not null,
    country      text not null,
    postcode     text not null
);

create table oe.card_details (
    card_id       bigint not null,
    customer_id   bigint not null,
    card_type     text not null,
    card_number   bigint not null,
    expires_on    date not null,
    is_valid      boolean not null,
    security_code smallint not null
);

create table oe.warehouses (
    warehouse_id   int not null,
    warehouse_name text not null,
    location_id    int not null
);

create table oe.product_information (
    product_id      int not null,
    product_name    text not null,
    category_id     int not null,
    weight_class    smallint not null,
    warranty_months smallint not null,
    supplier_id     int not null,
    product_status  text not null,
    list_price      numeric(8, 2) not null,
    minimum_price   numeric(8, 2) not null,
    catalogue_path  text not null
);

create table oe.product_descriptions (
    product_id             int not null,
    language               text not null,
    translated_name        text not null,
    translated_description text not null
);

create view oe.products as
select
    p.product_id, d.language, coalesce(d.translated_name, p.product_name) as product_name, p.category_id,
    d.translated_description as product_description, p.weight_class, p.warranty_months, p.supplier_id,
    p.product_status, p.list_price, p.minimum_price, p.catalogue_path
from oe.product_information p
left join oe.product_descriptions d on d.product_id = p.product_id and d.language = 'en';

create table oe.inventories (
    product_id       int not null,
    warehouse_id     int not null,
    quantity_on_hand int not null
) with (fillfactor = 90);

-- A status up to 4 waits for its warehouse, from 5 on it has been worked on.
create table oe.orders (
    order_id         bigint not null,
    ordered_at       timestamptz not null,
    order_mode       text not null,
    customer_id      bigint not null,
    order_status     smallint not null,
    order_total      numeric(12, 2) not null,
    sales_rep        int not null,
    warehouse_id     int not null,
    delivery_type    text not null,
    delivery_address bigint,
    card_id          bigint
) with (fillfactor = 85);

-- Items of the loaded orders were delivered before the stock was counted; one piece more of an item (BO) is not taken
-- from stock either. So stock can be proved: what was there at first, less what was taken.
create table oe.order_items (
    order_id         bigint not null,
    line_item        smallint not null,
    product_id       int not null,
    unit_price       numeric(8, 2) not null,
    quantity         int not null,
    taken_from_stock int not null,
    gift_wrapped     boolean not null,
    estimated_on     date not null
) with (fillfactor = 90);

create table oe.logon (
    logon_id     bigint not null,
    customer_id  bigint not null,
    logged_on_at timestamptz not null
);

-- One row for each transaction, written by it. There is no unique key: a transaction that happened twice must show.
create table oe.ledger (
    run    bigint not null,
    client int not null,
    seq    bigint not null,
    kind   text not null,
    at     timestamptz not null default clock_timestamp()
);

create sequence oe.customers_seq;
create sequence oe.addresses_seq;
create sequence oe.cards_seq;
create sequence oe.orders_seq;
create sequence oe.logon_seq;

-- Numbers for runs; those up to 1,000 are for callers that choose their own.
create sequence oe.runs_seq start 1001;
