-- CallingCircle, the rows: the psql variable `accounts` gives the size. Each account has a line with a circle of ten
-- places, of which four to ten are used. Sets, then keys, then indexes.

set synchronous_commit = off;
set jit = off;

insert into cc.dial_codes values (0, '', '', '', 'unused');
insert into cc.dial_codes
select
    n, (1 + n % 8)::text, lpad(n::text, 3, '0'), case n % 4 when 0 then 'MOB' else 'LOC' end, 'Region ' || n
from generate_series(1, 200) n;

insert into cc.packages values
    (1, 'Near', 10, 6), (2, 'Far', 10, 7), (3, 'Anywhere', 10, 8), (4, 'Family', 10, 9);

insert into cc.accounts
select n, 'Customer ' || n, lpad((n * 7919 % 10000)::text, 4, '0'), 0, null, 0, null, timestamptz '2025-01-01 00:00+00'
from generate_series(1, :accounts) n;

insert into cc.lines
select n, n, 1 + n % 200, lpad((n / 200)::text, 8, '0'), 1 + n % 4, 0, 1000, timestamptz '2025-01-01 00:00+00'
from generate_series(1, :accounts) n;

-- Each place was unused at first. A line's own number has eight digits, those in circles have seven.
insert into cc.circle_numbers
select n, s, 0, '', timestamptz '2025-01-01 00:00+00',
    case when s <= 4 + n % 7 then timestamptz '2025-02-01 00:00+00' else 'infinity' end
from generate_series(1, :accounts) n, generate_series(1, 10) s;
insert into cc.circle_numbers
select n, s, 1 + (n * 31 + s * 20) % 200, lpad((n * 7919 % 1000000 * 10 + s - 1)::text, 7, '0'),
    timestamptz '2025-02-01 00:00+00', 'infinity'
from generate_series(1, :accounts::bigint) n, generate_series(1, 10) s
where s <= 4 + n % 7;

insert into cc.metadata
select 'numbers', count(*) from cc.circle_numbers where dial_code_id <> 0
union all select 'accounts', :accounts
union all select 'version', :version;

select setval('cc.accounts_seq', :accounts) \g /dev/null

alter table cc.metadata add primary key (name);
alter table cc.dial_codes add primary key (dial_code_id);
alter table cc.packages add primary key (package_id);
alter table cc.accounts add primary key (account_id);
alter table cc.lines add primary key (line_id);
create unique index circle_numbers_now on cc.circle_numbers (line_id, slot) where valid_to = 'infinity';
create index circle_numbers_line on cc.circle_numbers (line_id);
create unique index lines_account on cc.lines (account_id);
create unique index lines_number on cc.lines (dial_code_id, number);
-- None to packages and dial codes: each number would lock the row of its code, and those never change.
alter table cc.lines add foreign key (account_id) references cc.accounts;
alter table cc.circle_numbers add foreign key (line_id) references cc.lines;
