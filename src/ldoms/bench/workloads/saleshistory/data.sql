-- SalesHistory, the rows: psql variables `sales` and `customers` give the size; there are 72 products, 23 countries, 5
-- channels, 20 promotions, and the days of five years. Sets, then keys, then indexes, then digests and answers.

set synchronous_commit = off;
set jit = off;
select setseed(0.25) \g /dev/null

insert into sh.countries
select n, c[1], c[2], c[3]
from unnest(array[
    'AR,Argentina,Americas', 'AU,Australia,Oceania', 'AT,Austria,Europe', 'BR,Brazil,Americas', 'CA,Canada,Americas',
    'CN,China,Asia', 'DK,Denmark,Europe', 'EG,Egypt,Africa', 'FR,France,Europe', 'DE,Germany,Europe', 'IN,India,Asia',
    'IE,Ireland,Europe', 'IT,Italy,Europe', 'JP,Japan,Asia', 'KE,Kenya,Africa', 'MX,Mexico,Americas',
    'NZ,New Zealand,Oceania', 'PL,Poland,Europe', 'SG,Singapore,Asia', 'ZA,South Africa,Africa', 'ES,Spain,Europe',
    'GB,United Kingdom,Europe', 'US,United States,Americas'
]) with ordinality as listed (line, n), lateral (select string_to_array(line, ',') as c) split;

-- Customers are not spread evenly over countries, nor sales over products and customers: squares make some rare.
insert into sh.customers
select
    n, 'First ' || n % 97, 'Last ' || n % 1013, case n % 2 when 0 then 'F' else 'M' end, 1940 + n * 13 % 65,
    'City ' || n % 211, 1 + floor(23 * random() ^ 2)::int, chr(65 + n % 12), 1500 * (1 + n % 10)
from generate_series(1, :customers) n;

insert into sh.products
select
    n, 'Product ' || lpad(n::text, 2, '0'), 'Subcategory ' || 1 + n % 21, 'Category ' || 1 + n % 21 % 5,
    7 + n * 7919 % 99300 / 100.0
from generate_series(1, 72) n;

insert into sh.channels values
    (1, 'Catalogue', 'Indirect'), (2, 'Direct Sales', 'Direct'), (3, 'Internet', 'Indirect'),
    (4, 'Partners', 'Others'), (5, 'Telephone', 'Direct');

insert into sh.promotions
select n, 'Promotion ' || n, case n % 4 when 0 then 'none' when 1 then 'paper' when 2 then 'radio' else 'internet' end
from generate_series(1, 20) n;

insert into sh.times
select
    d, extract(year from d), to_char(d, 'YYYY-"Q"Q'), to_char(d, 'YYYY-MM'), 1 + (extract(doy from d)::int - 1) / 7,
    to_char(d, 'FMDay')
from (select date '2019-01-01' + n as d from generate_series(0, date '2023-12-31' - date '2019-01-01') n) days;

-- In the order of time, as they would come in.
insert into sh.sales
select
    p.prod_id, 1 + floor(:customers * random() ^ 2)::int, date '2019-01-01' + (n * 1826::bigint / :sales)::int,
    1 + floor(5 * random())::int, 1 + floor(20 * random())::int, pieces, pieces * p.list_price
from (
    select n, 1 + floor(72 * random() ^ 2)::int as product, 1 + floor(4 * random() ^ 3)::int as pieces
    from generate_series(0, :sales - 1) n
    order by n
) sold
join sh.products p on p.prod_id = sold.product
order by n;

alter table sh.metadata add primary key (name);
alter table sh.countries add primary key (country_id);
alter table sh.customers add primary key (cust_id);
alter table sh.products add primary key (prod_id);
alter table sh.channels add primary key (channel_id);
alter table sh.promotions add primary key (promo_id);
alter table sh.times add primary key (time_id);

create index times_month on sh.times (calendar_month_desc);
create index sales_time on sh.sales (time_id);
create index sales_product on sh.sales (prod_id);
create index sales_customer on sh.sales (cust_id);

set local default_statistics_target = 10;
analyze sh.countries, sh.customers, sh.products, sh.channels, sh.promotions, sh.times, sh.sales;

insert into sh.metadata
select 'digest_sales', coalesce(sum(hashtext(t::text)), 0) from sh.sales t
union all select 'digest_products', sum(hashtext(t::text)) from sh.products t
union all select 'digest_customers', sum(hashtext(t::text)) from sh.customers t
union all select 'digest_countries', sum(hashtext(t::text)) from sh.countries t
union all select 'digest_times', sum(hashtext(t::text)) from sh.times t
union all select 'digest_channels', sum(hashtext(t::text)) from sh.channels t
union all select 'digest_promotions', sum(hashtext(t::text)) from sh.promotions t
union all select 'sales', count(*) from sh.sales
union all select 'customers', count(*) from sh.customers
union all select 'version', :version;

insert into sh.answers
select kind, seed, sh.answer(kind, seed)
from unnest(array['SQC', 'SWC', 'SCY', 'SRM', 'SRW', 'SCM', 'SCW', 'PSR', 'PMR', 'SMA', 'TSQ', 'TSW', 'WWC', 'PPC', 'SLU'])
    kind, unnest(array[1, 700000001, 1900000001]) seed;
