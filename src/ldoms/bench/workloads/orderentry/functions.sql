-- OrderEntry, the transactions: one function each, so that a transaction is one statement and one round trip.
--
-- All take the same arguments. (run, client, seq) is what the caller knows the transaction by: exactly one row with
-- it goes to oe.ledger, in the same transaction. `customer` and `warehouse` are the caller's choice; every other
-- choice follows from `seed`. Between its steps the user thinks, `think_min` to `think_max` milliseconds; never while
-- the transaction holds locks that others wait for.
--
-- No two can deadlock. A transaction that locks more than one row of oe.inventories does so in ascending product_id
-- within one warehouse; one that locks an order and its item takes the order first; no other locks are combined.
--
-- Random numbers are put into variables before they are compared with a column: a volatile expression in a where
-- clause is evaluated for each row, which makes it a sequential scan.

-- 32 first and 64 last names: 2,048 people, so that some thousands of customers share a name now and then.
create function oe.first_name(n int) returns text language sql immutable as $$
select (array['Ada', 'Alma', 'Anton', 'Berta', 'Bruno', 'Carla', 'Cyril', 'Dora', 'Edgar', 'Elsa', 'Emil', 'Frida',
              'Georg', 'Greta', 'Hugo', 'Ida', 'Ivan', 'Jonas', 'Karin', 'Leo', 'Lina', 'Max', 'Mia', 'Nora', 'Olga',
              'Otto', 'Paul', 'Rosa', 'Sven', 'Tilda', 'Vera', 'Yann'])[1 + n % 32]
$$;

create function oe.last_name(n int) returns text language sql immutable as $$
select (array['Arm', 'Berg', 'Cold', 'Dale', 'East', 'Fern', 'Green', 'Hazel'])[1 + n % 8]
    || (array['bach', 'feld', 'ford', 'gate', 'ham', 'ley', 'stone', 'wood'])[1 + n / 8 % 8]
$$;

-- A whole number from `low` to `high`.
create function oe.pick(low int, high int) returns int language sql volatile as $$
select low + floor(random() * (high - low + 1))::int
$$;

-- The user thinks. How long does not depend on the seed, so that other choices do not depend on it.
create function oe.think(think_min int, think_max int) returns void language plpgsql volatile as $$
begin
    if think_max > 0 then
        perform pg_sleep((think_min + extract(milliseconds from clock_timestamp())::int % (think_max - think_min + 1))
            / 1000.0);
    end if;
end $$;

-- What a warehouse has of a product after loading.
create function oe.initial_stock(product int, warehouse int) returns int language sql immutable as $$
select 1000 + (product * 31 + warehouse * 17) % 1000
$$;

-- NCR: a new customer with an address and a card. Returns the customer.
create function oe.register_customer(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    new_customer bigint := nextval('oe.customers_seq');
    new_address  bigint := nextval('oe.addresses_seq');
    new_card     bigint := nextval('oe.cards_seq');
    given_name   text;
    family_name  text;
    registered   bigint;
begin
    perform setseed(seed / 2147483648.0);
    given_name := oe.first_name(oe.pick(0, 31));
    family_name := oe.last_name(oe.pick(0, 63));
    insert into oe.customers values (
        new_customer, given_name, family_name, given_name || '.' || family_name || '@example.com', 'en', 'GB',
        oe.pick(100, 5000), oe.pick(1, 1000), 'occasional', current_date, date '1950-01-01' + oe.pick(0, 20000),
        new_address, new_card);
    insert into oe.addresses values (
        new_address, new_customer, current_date, oe.pick(1, 250)::text, oe.last_name(oe.pick(0, 63)) || ' Road',
        oe.last_name(oe.pick(0, 63)), 'GB', lpad(oe.pick(0, 99999)::text, 5, '0'));
    insert into oe.card_details values (
        new_card, new_customer, 'debit', 4000000000000000 + new_card, current_date + oe.pick(365, 1460), true,
        oe.pick(0, 999));
    insert into oe.logon values (nextval('oe.logon_seq'), new_customer, clock_timestamp());
    perform oe.think(think_min, think_max);
    select c.customer_id into strict registered from oe.customers c where c.customer_id = new_customer;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'NCR');
    return registered;
end $$;

-- UCD: a customer found by name (or `customer`, when nobody has the name) moves house. Returns the address.
create function oe.update_customer(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    new_address bigint := nextval('oe.addresses_seq');
    given_name  text;
    family_name text;
    namesakes   bigint[];
    chosen      bigint := customer;
begin
    perform setseed(seed / 2147483648.0);
    given_name := lower(oe.first_name(oe.pick(0, 31)));
    family_name := lower(oe.last_name(oe.pick(0, 63)));
    namesakes := array(
        select c.customer_id from oe.customers c
        where lower(c.last_name) = family_name and lower(c.first_name) = given_name limit 4);
    perform oe.think(think_min, think_max);
    if cardinality(namesakes) > 0 then
        chosen := namesakes[oe.pick(1, cardinality(namesakes))];
    end if;
    insert into oe.addresses values (
        new_address, chosen, current_date, oe.pick(1, 250)::text, oe.last_name(oe.pick(0, 63)) || ' Street',
        oe.last_name(oe.pick(0, 63)), 'GB', lpad(oe.pick(0, 99999)::text, 5, '0'));
    update oe.customers c set preferred_address = new_address where c.customer_id = chosen;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'UCD');
    return new_address;
end $$;

-- BP: a customer looks at 1 to 24 products and whether the warehouse has them. Returns how many are in stock.
create function oe.browse_products(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    shopper  record;
    seen     record;
    wanted   int;
    in_stock bigint := 0;
begin
    perform setseed(seed / 2147483648.0);
    select c.first_name, c.last_name, c.credit_limit into strict shopper
    from oe.customers c where c.customer_id = customer;
    for lookup in 1 .. oe.pick(1, 24) loop
        wanted := oe.pick(1, 1000);
        select p.product_name, p.product_description, p.list_price, i.quantity_on_hand into strict seen
        from oe.products p join oe.inventories i on i.product_id = p.product_id
        where p.product_id = wanted and i.warehouse_id = warehouse;
        if seen.quantity_on_hand > 0 then
            in_stock := in_stock + 1;
        end if;
        perform oe.think(think_min, think_max);
    end loop;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'BP');
    return in_stock;
end $$;

-- OP: a customer browses 1 to 24 categories and orders up to three products that are in stock. Returns the order.
create function oe.order_products(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    new_order bigint := nextval('oe.orders_seq');
    buyer     record;
    addresses int;
    cards     int;
    wanted    int;
    offered   int[];
    basket    int[] := '{}';
    item      record;
    pieces    int;
    line      int := 0;
    total     numeric(12, 2) := 0;
begin
    perform setseed(seed / 2147483648.0);
    insert into oe.logon values (nextval('oe.logon_seq'), customer, clock_timestamp());
    select c.preferred_address, c.preferred_card, c.credit_limit into strict buyer
    from oe.customers c where c.customer_id = customer;
    select count(*) into addresses from oe.addresses a where a.customer_id = customer;
    select count(*) into cards from oe.card_details d where d.customer_id = customer and d.is_valid;
    for visit in 1 .. oe.pick(1, 24) loop
        wanted := oe.pick(1, 199);
        offered := array(
            select p.product_id
            from oe.product_information p join oe.inventories i on i.product_id = p.product_id
            where p.category_id = wanted and i.warehouse_id = warehouse and i.quantity_on_hand > 0
            limit 3);
        basket := basket || offered;
        perform oe.think(think_min, think_max);
    end loop;
    insert into oe.orders values (
        new_order, clock_timestamp(), 'online', customer, 0, 0, oe.pick(1, 1000), warehouse, 'standard',
        buyer.preferred_address, buyer.preferred_card);
    -- Ascending, so that two orders lock the stock of a warehouse in the same order.
    for item in
        select p.product_id, p.list_price
        from (select distinct b from unnest(basket) b order by b limit oe.pick(2, 3)) chosen
        join oe.product_information p on p.product_id = chosen.b
        order by p.product_id
    loop
        pieces := oe.pick(1, 5);
        update oe.inventories i set quantity_on_hand = i.quantity_on_hand - pieces
        where i.product_id = item.product_id and i.warehouse_id = warehouse and i.quantity_on_hand >= pieces;
        if found then
            line := line + 1;
            insert into oe.order_items values (
                new_order, line, item.product_id, item.list_price, pieces, pieces, false, current_date + 7);
            total := total + pieces * item.list_price;
        end if;
    end loop;
    update oe.orders o set order_total = total, order_status = oe.pick(1, 4) where o.order_id = new_order;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'OP');
    return new_order;
end $$;

-- PO: a warehouse works on one of up to nine orders that wait for it. Returns the order, or null if none waits.
create function oe.process_order(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    waiting    bigint[];
    chosen     bigint;
    lines      int;
    new_status int;
    processed  bigint;
begin
    perform setseed(seed / 2147483648.0);
    waiting := array(
        select o.order_id from oe.orders o where o.warehouse_id = warehouse and o.order_status <= 4 limit 9);
    if cardinality(waiting) > 0 then
        chosen := waiting[oe.pick(1, cardinality(waiting))];
        select count(*) into lines
        from oe.orders o
        join oe.customers c on c.customer_id = o.customer_id
        join oe.order_items i on i.order_id = o.order_id
        where o.order_id = chosen;
        perform oe.think(think_min, think_max);
        new_status := oe.pick(5, 10);
        update oe.orders o set order_status = new_status where o.order_id = chosen and o.order_status <= 4
        returning o.order_id into processed;
    end if;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'PO');
    return processed;
end $$;

-- BO: a customer looks at up to four orders and takes one piece more of an item. Returns the order, or null.
create function oe.browse_orders(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    buyer   record;
    own     bigint[];
    chosen  bigint;
    lines   int;
    changed smallint;
    price   numeric(8, 2);
begin
    perform setseed(seed / 2147483648.0);
    insert into oe.logon values (nextval('oe.logon_seq'), customer, clock_timestamp());
    select c.first_name, c.last_name, a.street, a.town into strict buyer
    from oe.customers c left join oe.addresses a on a.address_id = c.preferred_address
    where c.customer_id = customer;
    own := array(select o.order_id from oe.orders o where o.customer_id = customer limit 4);
    if cardinality(own) > 0 then
        chosen := own[oe.pick(1, cardinality(own))];
        select count(*) into lines from oe.order_items i where i.order_id = chosen;
        if lines > 0 then
            perform oe.think(think_min, think_max);
            changed := oe.pick(1, lines);
            perform 1 from oe.orders o where o.order_id = chosen for no key update;
            update oe.order_items i set quantity = i.quantity + 1
            where i.order_id = chosen and i.line_item = changed returning i.unit_price into strict price;
            update oe.orders o set order_total = o.order_total + price where o.order_id = chosen;
        end if;
    end if;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'BO');
    return chosen;
end $$;

-- SQ: the orders of a sales representative, ranked by their totals. Returns how many there are.
create function oe.query_sales_rep(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    rep   int;
    found bigint;
begin
    perform setseed(seed / 2147483648.0);
    rep := oe.pick(1, 1000);
    -- The sum of the hashes needs every column, so that none of the work is left out.
    select count(*) into found
    from (
        select ranked.*, sum(hashtext(ranked::text)) over () as needed
        from (
            select
                o.order_id, o.order_total, c.last_name, o.order_status,
                rank() over (order by o.order_total desc) as place,
                sum(o.order_total) over (partition by o.order_status) as status_total
            from oe.orders o join oe.customers c on c.customer_id = o.customer_id
            where o.sales_rep = rep
        ) ranked
    ) answer
    where answer.needed is not null;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'SQ');
    return found;
end $$;

-- WQ: orders and turnover of a warehouse, by status and delivery in every combination. Returns the rows.
create function oe.query_warehouse(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    found  bigint;
    needed bigint;
begin
    select count(*), sum(hashtext(answer::text)) into found, needed
    from (
        select o.order_status, o.order_mode, o.delivery_type, count(*) as orders, sum(o.order_total) as turnover
        from oe.orders o where o.warehouse_id = warehouse
        group by cube (o.order_status, o.order_mode, o.delivery_type)
    ) answer;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'WQ');
    return found;
end $$;

-- WA: what a warehouse was ordered in each five minutes of the last hour. Returns the orders.
create function oe.query_warehouse_activity(
    run bigint, client int, seq bigint, customer bigint, warehouse int, seed int,
    think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    found  bigint;
    needed bigint;
begin
    select sum(answer.orders), sum(hashtext(answer::text)) into found, needed
    from (
        select bucket, count(o.order_id) as orders, coalesce(sum(o.order_total), 0) as turnover
        from generate_series(0, 11) bucket
        left join oe.orders o
            on o.warehouse_id = warehouse
            and o.ordered_at >= now() - (bucket + 1) * interval '5 minutes'
            and o.ordered_at < now() - bucket * interval '5 minutes'
        group by bucket
    ) answer;
    insert into oe.ledger (run, client, seq, kind) values (run, client, seq, 'WA');
    return found;
end $$;

-- Orders whose total is not the sum of their items. Every transaction keeps it so; damage to pages does not.
create function oe.wrong_totals() returns bigint language sql stable as $$
select count(*)
from oe.orders o
left join (select order_id, sum(unit_price * quantity) as total from oe.order_items group by order_id) i
    on i.order_id = o.order_id
where o.order_total <> coalesce(i.total, 0)
$$;
