-- StressTest, the rows: the psql variable `rows` gives how many.

set synchronous_commit = off;
set jit = off;

insert into st.stresstesttable
select n, n % 1000, n / 7.0, st.small_text(n), st.big_text(n), date '2025-01-01' + n % 365
from generate_series(1, :rows) n;

insert into st.metadata
select 'rows', count(*) from st.stresstesttable
union all select 'aint', coalesce(sum(aint), 0) from st.stresstesttable
union all select 'version', :version;

select setval('st.ids_seq', :rows) \g /dev/null

alter table st.metadata add primary key (name);
alter table st.stresstesttable add primary key (id);
create index stresstesttable_asmallvarchar on st.stresstesttable (asmallvarchar);
