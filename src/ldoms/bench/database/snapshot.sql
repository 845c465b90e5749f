-- Counters of a PostgreSQL server (15 or later) at one moment: a line for each row, its section and the row as JSON.
-- Run by psql, which decides by version, extensions and rights what there is to be asked. Nothing is changed or reset.

\set taken_at `date +%s.%N`
\echo clock|{"taken_at": :taken_at}
begin read only;        -- one transaction, so that it counts as one
set local jit = off;
set local search_path = pg_catalog, pg_temp;        -- of nobody's functions but the server's
select current_setting('server_version_num')::int as version,
       current_setting('server_version_num')::int < 150000 as is_too_old,
       current_setting('server_version_num')::int >= 160000 as has_io,
       current_setting('server_version_num')::int >= 170000 as has_checkpointer \gset
\echo version|{"version": :version}
\if :is_too_old
  \quit
\endif

with extension as (
    select extname::text as name, extnamespace::regnamespace::text as schema from pg_extension
    where extname in ('pg_stat_statements', 'pg_wait_sampling', 'pg_walinspect')
)
select coalesce((select schema from extension where name = 'pg_stat_statements'), '') as statements_schema,
       coalesce((select schema from extension where name = 'pg_wait_sampling'), '') as waits_schema,
       coalesce((select schema from extension where name = 'pg_walinspect'), '') as wal_schema,
       exists (select from extension where name = 'pg_stat_statements')
           and current_setting('pg_stat_statements.max', true) is not null as has_statements,
       exists (select from extension where name = 'pg_wait_sampling')
           and current_setting('pg_wait_sampling.profile_period', true) is not null as has_waits,
       pg_has_role('pg_read_all_stats', 'usage') as sees_all,
       pg_has_role('pg_read_server_files', 'usage') as reads_files,
       has_function_privilege('pg_get_shmem_allocations()', 'execute') as sees_memory \gset

select 'facts', json_build_object(
    'version_text', version(),
    'system', (select system_identifier::text from pg_control_system()),
    'started_at', extract(epoch from pg_postmaster_start_time()),
    'server_clock', extract(epoch from clock_timestamp()),
    'host', host(inet_server_addr()),
    'port', current_setting('port'),
    'cluster', current_setting('cluster_name'),
    'database', current_database(),
    'database_oid', (select oid::bigint from pg_database where datname = current_database()),
    'role', current_user,
    'block_size', current_setting('block_size')::int,
    'wal_segment_size', (select setting::bigint from pg_settings where name = 'wal_segment_size'),
    'is_standby', pg_is_in_recovery(),
    'lsn', case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end,
    'statements_schema', :'statements_schema',
    'waits_schema', :'waits_schema',
    'wal_schema', :'wal_schema',
    'statements_loaded', current_setting('pg_stat_statements.max', true) is not null,
    'waits_loaded', current_setting('pg_wait_sampling.profile_period', true) is not null,
    'times_plans', coalesce(current_setting('pg_stat_statements.track_planning', true)::bool, false),
    'times_io', current_setting('track_io_timing')::bool,
    'times_wal', current_setting('track_wal_io_timing')::bool,
    'wait_period_ms', current_setting('pg_wait_sampling.profile_period', true)::int,
    'sees_all', :'sees_all'::bool,
    'reads_files', :'reads_files'::bool
);

select 'database', to_json(d) from pg_stat_database d;
select 'wal', to_json(w) from pg_stat_wal w;
select 'bgwriter', to_json(b) from pg_stat_bgwriter b;
\if :has_checkpointer
  select 'checkpointer', to_json(c) from pg_stat_checkpointer c;
\endif
\if :has_io
  select 'io', to_json(i) from pg_stat_io i where coalesce(reads, writes, extends, fsyncs) is not null;
\endif
select 'slru', to_json(s) from pg_stat_slru s;

\if :has_statements
  select 'statements', to_json(s) from (
      select dbid::bigint, coalesce(queryid, 0) as queryid, toplevel, sum(calls) as calls, sum(plans) as plans,
             sum(total_plan_time) as total_plan_time, sum(total_exec_time) as total_exec_time, sum(rows) as rows,
             sum(shared_blks_hit) as shared_blks_hit, sum(shared_blks_read) as shared_blks_read,
             sum(shared_blks_dirtied) as shared_blks_dirtied, sum(shared_blks_written) as shared_blks_written,
             sum(temp_blks_written) as temp_blks_written, sum(wal_records) as wal_records,
             sum(wal_fpi) as wal_fpi, sum(wal_bytes) as wal_bytes
      from :statements_schema.pg_stat_statements(showtext => false) group by 1, 2, 3
  ) s;
  select 'statements_info', to_json(i) from :statements_schema.pg_stat_statements_info i;
\endif

\if :has_waits
  select 'waits', to_json(w) from (
      select event_type, event, sum(count) as count from :waits_schema.pg_wait_sampling_profile
      where event is not null group by 1, 2
  ) w;
\endif

-- The functions below the views pg_stat_all_* and pg_statio_all_*: the same for tables, indexes and TOAST.
select 'segments', to_json(s) from (
    select c.oid::bigint, n.nspname as schema, c.relname as name, c.relkind as kind,
           pg_relation_filenode(c.oid)::bigint as filenode,
           pg_stat_get_numscans(c.oid) as scans,
           pg_stat_get_tuples_returned(c.oid) as tuples_returned,
           pg_stat_get_tuples_fetched(c.oid) as tuples_fetched,
           pg_stat_get_tuples_inserted(c.oid) as inserted,
           pg_stat_get_tuples_updated(c.oid) as updated,
           pg_stat_get_tuples_hot_updated(c.oid) as hot_updated,
           pg_stat_get_tuples_deleted(c.oid) as deleted,
           pg_stat_get_blocks_fetched(c.oid) as blocks_fetched,
           pg_stat_get_blocks_hit(c.oid) as blocks_hit,
           case when c.relkind in ('r', 'm', 't') then pg_stat_get_autovacuum_count(c.oid) end as autovacuums
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'i', 't', 'm', 'S')
      and greatest(pg_stat_get_blocks_fetched(c.oid), pg_stat_get_tuples_inserted(c.oid), pg_stat_get_numscans(c.oid)) > 0
) s;

select 'settings', json_build_object('name', name, 'value', current_setting(name, true)) from pg_settings
where source in ('configuration file', 'command line', 'environment variable', 'global', 'database', 'user')
   or name in ('checkpoint_completion_target', 'checkpoint_timeout', 'data_checksums', 'fsync', 'full_page_writes',
               'maintenance_work_mem', 'max_connections', 'max_wal_size', 'shared_buffers', 'synchronous_commit',
               'track_io_timing', 'track_wal_io_timing', 'wal_buffers', 'wal_level', 'work_mem');

\if :reads_files
  -- What the kernel below the server says; a server that does not run on Linux has no such file.
  select 'files', json_build_object('name', name, 'text', pg_read_file(name, 0, 65536, true))
  from unnest(array['/proc/stat', '/proc/loadavg', '/proc/meminfo']) as name;
\endif
\if :sees_memory
  select 'memory', json_build_object('allocated', sum(allocated_size)) from pg_shmem_allocations;
\endif
commit;
