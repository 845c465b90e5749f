-- SalesHistory, the transactions: one function each, so that a transaction is one statement and one round trip.
--
-- Each takes a seed, from which follows what it asks about, and returns a digest of the whole answer: the sum of the
-- hashes of its rows. So every column is needed and none of the work is left out, and the same question can be asked
-- again to see whether it still has the same answer. Nothing is changed.
--
-- Periods are of the five years from 2019 to 2023. What is drawn at random is put into variables before it is compared
-- with a column: a volatile expression in a where clause is evaluated for each row.

-- A whole number from `low` to `high`.
create function sh.pick(low int, high int) returns int language sql volatile as $$
select low + floor(random() * (high - low + 1))::int
$$;

-- Some quarters that follow each other, such as 2021-Q3.
create function sh.pick_quarters(low int, high int) returns text[] language plpgsql volatile as $$
declare
    many  int := sh.pick(low, high);
    first int := sh.pick(0, 20 - many);
begin
    return array(select 2019 + q / 4 || '-Q' || 1 + q % 4 from generate_series(first, first + many - 1) q);
end $$;

-- Some months that follow each other, such as 2021-08.
create function sh.pick_months(low int, high int) returns text[] language plpgsql volatile as $$
declare
    many  int := sh.pick(low, high);
    first int := sh.pick(0, 60 - many);
begin
    return array(
        select 2019 + m / 12 || '-' || lpad((1 + m % 12)::text, 2, '0') from generate_series(first, first + many - 1) m);
end $$;

-- Some countries, channels or products that follow each other: from a list in order.
create function sh.pick_some(list text[], low int, high int) returns text[] language plpgsql volatile as $$
declare
    many  int := sh.pick(low, high);
    first int := sh.pick(1, cardinality(list) - many + 1);
begin
    return list[first : first + many - 1];
end $$;

create function sh.countries_list() returns text[] language sql stable as $$
select array_agg(country_iso_code order by country_id) from sh.countries
$$;

create function sh.channels_list() returns text[] language sql stable as $$
select array_agg(channel_desc order by channel_id) from sh.channels
$$;

create function sh.products_list() returns text[] language sql stable as $$
select array_agg(prod_name order by prod_id) from sh.products
$$;

-- SQC: turnover of some countries in some quarters.
create function sh.sales_by_quarter_country(seed int) returns bigint language plpgsql volatile as $$
declare
    quarters text[];
    countries text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    quarters := sh.pick_quarters(2, 4);
    countries := sh.pick_some(sh.countries_list(), 2, 4);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select n.country_name, t.calendar_quarter_desc, sum(s.amount_sold) as turnover, sum(s.quantity_sold) as pieces
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.customers c on c.cust_id = s.cust_id
        join sh.countries n on n.country_id = c.country_id
        where t.calendar_quarter_desc = any (quarters) and n.country_iso_code = any (countries)
        group by n.country_name, t.calendar_quarter_desc
    ) answer;
    return digest;
end $$;

-- SWC: turnover of some countries in some weeks.
create function sh.sales_by_week_country(seed int) returns bigint language plpgsql volatile as $$
declare
    year int;
    first_week int;
    countries text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    year := sh.pick(2019, 2023);
    first_week := sh.pick(1, 48);
    countries := sh.pick_some(sh.countries_list(), 2, 4);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select n.country_name, t.calendar_week_number, sum(s.amount_sold) as turnover, sum(s.quantity_sold) as pieces
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.customers c on c.cust_id = s.cust_id
        join sh.countries n on n.country_id = c.country_id
        where t.calendar_year = year and t.calendar_week_number between first_week and first_week + 4
            and n.country_iso_code = any (countries)
        group by n.country_name, t.calendar_week_number
    ) answer;
    return digest;
end $$;

-- SCY: turnover of each country in a year, and its share.
create function sh.sales_by_country_for_year(seed int) returns bigint language plpgsql volatile as $$
declare
    year int;
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    year := sh.pick(2019, 2023);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select
            n.country_name, sum(s.amount_sold) as turnover,
            round(100 * sum(s.amount_sold) / sum(sum(s.amount_sold)) over (), 2) as share
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.customers c on c.cust_id = s.cust_id
        join sh.countries n on n.country_id = c.country_id
        where t.calendar_year = year
        group by n.country_name
    ) answer;
    return digest;
end $$;

-- SRM: turnover by channel, month and country, with totals from the right.
create function sh.sales_rollup_by_month(seed int) returns bigint language plpgsql volatile as $$
declare
    months text[];
    channels text[];
    countries text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    months := sh.pick_months(2, 4);
    channels := sh.pick_some(sh.channels_list(), 2, 3);
    countries := sh.pick_some(sh.countries_list(), 2, 4);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select h.channel_desc, t.calendar_month_desc, n.country_iso_code, sum(s.amount_sold) as turnover
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.channels h on h.channel_id = s.channel_id
        join sh.customers c on c.cust_id = s.cust_id
        join sh.countries n on n.country_id = c.country_id
        where t.calendar_month_desc = any (months) and h.channel_desc = any (channels) and n.country_iso_code = any (countries)
        group by rollup (h.channel_desc, t.calendar_month_desc, n.country_iso_code)
    ) answer;
    return digest;
end $$;

-- SRW: turnover by channel, week and country, with totals from the right.
create function sh.sales_rollup_by_week(seed int) returns bigint language plpgsql volatile as $$
declare
    year int;
    first_week int;
    channels text[];
    countries text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    year := sh.pick(2019, 2023);
    first_week := sh.pick(1, 48);
    channels := sh.pick_some(sh.channels_list(), 2, 3);
    countries := sh.pick_some(sh.countries_list(), 2, 4);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select h.channel_desc, t.calendar_week_number, n.country_iso_code, sum(s.amount_sold) as turnover
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.channels h on h.channel_id = s.channel_id
        join sh.customers c on c.cust_id = s.cust_id
        join sh.countries n on n.country_id = c.country_id
        where t.calendar_year = year and t.calendar_week_number between first_week and first_week + 4
            and h.channel_desc = any (channels) and n.country_iso_code = any (countries)
        group by rollup (h.channel_desc, t.calendar_week_number, n.country_iso_code)
    ) answer;
    return digest;
end $$;

-- SCM: turnover by channel, month and country, with totals in every combination.
create function sh.sales_cube_by_month(seed int) returns bigint language plpgsql volatile as $$
declare
    months text[];
    channels text[];
    countries text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    months := sh.pick_months(2, 4);
    channels := sh.pick_some(sh.channels_list(), 2, 3);
    countries := sh.pick_some(sh.countries_list(), 2, 4);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select h.channel_desc, t.calendar_month_desc, n.country_iso_code, sum(s.amount_sold) as turnover
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.channels h on h.channel_id = s.channel_id
        join sh.customers c on c.cust_id = s.cust_id
        join sh.countries n on n.country_id = c.country_id
        where t.calendar_month_desc = any (months) and h.channel_desc = any (channels) and n.country_iso_code = any (countries)
        group by cube (h.channel_desc, t.calendar_month_desc, n.country_iso_code)
    ) answer;
    return digest;
end $$;

-- SCW: turnover by channel, week and country, with totals in every combination.
create function sh.sales_cube_by_week(seed int) returns bigint language plpgsql volatile as $$
declare
    year int;
    first_week int;
    channels text[];
    countries text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    year := sh.pick(2019, 2023);
    first_week := sh.pick(1, 48);
    channels := sh.pick_some(sh.channels_list(), 2, 3);
    countries := sh.pick_some(sh.countries_list(), 2, 4);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select h.channel_desc, t.calendar_week_number, n.country_iso_code, sum(s.amount_sold) as turnover
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.channels h on h.channel_id = s.channel_id
        join sh.customers c on c.cust_id = s.cust_id
        join sh.countries n on n.country_id = c.country_id
        where t.calendar_year = year and t.calendar_week_number between first_week and first_week + 4
            and h.channel_desc = any (channels) and n.country_iso_code = any (countries)
        group by cube (h.channel_desc, t.calendar_week_number, n.country_iso_code)
    ) answer;
    return digest;
end $$;

-- PSR: turnover by category, subcategory and product in some quarters, with totals from the right.
create function sh.product_sales_rollup(seed int) returns bigint language plpgsql volatile as $$
declare
    quarters text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    quarters := sh.pick_quarters(1, 3);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select
            p.prod_category, p.prod_subcategory, p.prod_name, sum(s.amount_sold) as turnover,
            grouping(p.prod_category, p.prod_subcategory, p.prod_name) as level
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.products p on p.prod_id = s.prod_id
        where t.calendar_quarter_desc = any (quarters)
        group by rollup (p.prod_category, p.prod_subcategory, p.prod_name)
    ) answer;
    return digest;
end $$;

-- PMR: turnover of some products by month and channel, with totals from the right.
create function sh.product_monthly_sales_rollup(seed int) returns bigint language plpgsql volatile as $$
declare
    year int;
    products text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    year := sh.pick(2019, 2023);
    products := sh.pick_some(sh.products_list(), 3, 6);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select p.prod_name, t.calendar_month_desc, h.channel_desc, sum(s.amount_sold) as turnover, count(*) as sales
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        join sh.products p on p.prod_id = s.prod_id
        join sh.channels h on h.channel_id = s.channel_id
        where t.calendar_year = year and p.prod_name = any (products)
        group by rollup (p.prod_name, t.calendar_month_desc, h.channel_desc)
    ) answer;
    return digest;
end $$;

-- SMA: turnover of each day of some months, and its average over five days.
create function sh.sales_moving_average(seed int) returns bigint language plpgsql volatile as $$
declare
    months text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    months := sh.pick_months(1, 3);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select
            t.time_id, sum(s.amount_sold) as turnover,
            round(avg(sum(s.amount_sold)) over (
                order by t.time_id range between interval '2 days' preceding and interval '2 days' following), 2) as average
        from sh.sales s
        join sh.times t on t.time_id = s.time_id
        where t.calendar_month_desc = any (months)
        group by t.time_id
    ) answer;
    return digest;
end $$;

-- TSQ: the fifteen products with the highest turnover of each of some quarters.
create function sh.top_sales_within_quarter(seed int) returns bigint language plpgsql volatile as $$
declare
    quarters text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    quarters := sh.pick_quarters(1, 3);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select ranked.*
        from (
            select
                t.calendar_quarter_desc, p.prod_name, sum(s.amount_sold) as turnover,
                rank() over (partition by t.calendar_quarter_desc order by sum(s.amount_sold) desc) as place
            from sh.sales s
            join sh.times t on t.time_id = s.time_id
            join sh.products p on p.prod_id = s.prod_id
            where t.calendar_quarter_desc = any (quarters)
            group by t.calendar_quarter_desc, p.prod_name
        ) ranked
        where ranked.place < 16
    ) answer;
    return digest;
end $$;

-- TSW: the fifteen products with the highest turnover of each of some weeks.
create function sh.top_sales_within_week(seed int) returns bigint language plpgsql volatile as $$
declare
    year int;
    first_week int;
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    year := sh.pick(2019, 2023);
    first_week := sh.pick(1, 48);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select ranked.*
        from (
            select
                t.calendar_week_number, p.prod_name, sum(s.amount_sold) as turnover,
                rank() over (partition by t.calendar_week_number order by sum(s.amount_sold) desc) as place
            from sh.sales s
            join sh.times t on t.time_id = s.time_id
            join sh.products p on p.prod_id = s.prod_id
            where t.calendar_year = year and t.calendar_week_number between first_week and first_week + 4
            group by t.calendar_week_number, p.prod_name
        ) ranked
        where ranked.place < 16
    ) answer;
    return digest;
end $$;

-- WWC: turnover of some products in the weeks of two years, and the difference to the week before.
create function sh.week_to_week_comparison(seed int) returns bigint language plpgsql volatile as $$
declare
    year int;
    first_week int;
    products text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    year := sh.pick(2019, 2022);
    first_week := sh.pick(1, 48);
    products := sh.pick_some(sh.products_list(), 1, 2);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select
            dense.*,
            turnover - lag(turnover) over (partition by prod_name, calendar_year order by calendar_week_number) as difference
        from (
            select p.prod_name, w.calendar_year, w.calendar_week_number, coalesce(sum(s.amount_sold), 0) as turnover
            from (select distinct t.calendar_year, t.calendar_week_number from sh.times t) w
            cross join sh.products p
            left join (sh.sales s join sh.times t on t.time_id = s.time_id)
                on s.prod_id = p.prod_id
                and (t.calendar_year, t.calendar_week_number) = (w.calendar_year, w.calendar_week_number)
            where w.calendar_year between year and year + 1 and p.prod_name = any (products)
                and w.calendar_week_number between first_week and first_week + 4
            group by p.prod_name, w.calendar_year, w.calendar_week_number
        ) dense
    ) answer;
    return digest;
end $$;

-- PPC: turnover since the beginning of the year, week by week, beside that of the year before.
create function sh.period_to_period_comparison(seed int) returns bigint language plpgsql volatile as $$
declare
    year int;
    first_week int;
    products text[];
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    year := sh.pick(2020, 2023);
    first_week := sh.pick(1, 48);
    products := sh.pick_some(sh.products_list(), 1, 2);
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select compared.*
        from (
            select
                so_far.*,
                lag(so_far.turnover) over (partition by prod_name, calendar_week_number order by calendar_year) as year_before
            from (
                select
                    p.prod_name, w.calendar_year, w.calendar_week_number,
                    sum(coalesce(sum(s.amount_sold), 0)) over (
                        partition by p.prod_name, w.calendar_year order by w.calendar_week_number) as turnover
                from (select distinct t.calendar_year, t.calendar_week_number from sh.times t) w
                cross join sh.products p
                left join (sh.sales s join sh.times t on t.time_id = s.time_id)
                    on s.prod_id = p.prod_id
                    and (t.calendar_year, t.calendar_week_number) = (w.calendar_year, w.calendar_week_number)
                where w.calendar_year between year - 1 and year and p.prod_name = any (products)
                group by p.prod_name, w.calendar_year, w.calendar_week_number
            ) so_far
        ) compared
        where compared.calendar_year = year and compared.calendar_week_number between first_week and first_week + 4
    ) answer;
    return digest;
end $$;

-- SLU: how many sales some customers brought, and when the last was.
create function sh.simple_look_up(seed int) returns bigint language plpgsql volatile as $$
declare
    first_customer int;
    digest bigint;
begin
    perform setseed(seed / 2147483648.0);
    first_customer := sh.pick(1, (select max(cust_id) from sh.customers));
    select coalesce(sum(hashtext(answer::text)), 0) into digest
    from (
        select c.cust_id, c.last_name, count(s.cust_id) as sales, sum(s.amount_sold) as turnover, max(s.time_id) as last
        from sh.customers c
        left join sh.sales s on s.cust_id = c.cust_id
        where c.cust_id between first_customer and first_customer + 4
        group by c.cust_id, c.last_name
    ) answer;
    return digest;
end $$;

-- The answer to a question of any kind.
create function sh.answer(kind text, seed int) returns bigint language plpgsql volatile as $$
begin
    return case kind
        when 'SQC' then sh.sales_by_quarter_country(seed)
        when 'SWC' then sh.sales_by_week_country(seed)
        when 'SCY' then sh.sales_by_country_for_year(seed)
        when 'SRM' then sh.sales_rollup_by_month(seed)
        when 'SRW' then sh.sales_rollup_by_week(seed)
        when 'SCM' then sh.sales_cube_by_month(seed)
        when 'SCW' then sh.sales_cube_by_week(seed)
        when 'PSR' then sh.product_sales_rollup(seed)
        when 'PMR' then sh.product_monthly_sales_rollup(seed)
        when 'SMA' then sh.sales_moving_average(seed)
        when 'TSQ' then sh.top_sales_within_quarter(seed)
        when 'TSW' then sh.top_sales_within_week(seed)
        when 'WWC' then sh.week_to_week_comparison(seed)
        when 'PPC' then sh.period_to_period_comparison(seed)
        when 'SLU' then sh.simple_look_up(seed)
    end;
end $$;
