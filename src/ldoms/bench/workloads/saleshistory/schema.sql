-- SalesHistory, the tables: a star schema after the public description of SwingBench's SalesHistory.
--
-- Keys and indexes come in data.sql, after the rows.

set client_min_messages = warning;
drop schema if exists sh cascade;
create schema sh;

-- What was loaded, and a digest of each table.
create table sh.metadata (
    name  text not null,
    value bigint not null
);

create table sh.countries (
    country_id       int not null,
    country_iso_code text not null,
    country_name     text not null,
    country_region   text not null
);

create table sh.customers (
    cust_id       int not null,
    first_name    text not null,
    last_name     text not null,
    gender        text not null,
    year_of_birth int not null,
    city          text not null,
    country_id    int not null,
    income_level  text not null,
    credit_limit  int not null
);

create table sh.products (
    prod_id          int not null,
    prod_name        text not null,
    prod_subcategory text not null,
    prod_category    text not null,
    list_price       numeric(8, 2) not null
);

create table sh.channels (
    channel_id    int not null,
    channel_desc  text not null,
    channel_class text not null
);

create table sh.promotions (
    promo_id       int not null,
    promo_name     text not null,
    promo_category text not null
);

create table sh.times (
    time_id               date not null,
    calendar_year         int not null,
    calendar_quarter_desc text not null,
    calendar_month_desc   text not null,
    calendar_week_number  int not null,
    day_name              text not null
);

create table sh.sales (
    prod_id       int not null,
    cust_id       int not null,
    time_id       date not null,
    channel_id    int not null,
    promo_id      int not null,
    quantity_sold int not null,
    amount_sold   numeric(10, 2) not null
);

-- The answers to some questions, as they were after loading.
create table sh.answers (
    kind   text not null,
    seed   int not null,
    answer bigint not null
);
