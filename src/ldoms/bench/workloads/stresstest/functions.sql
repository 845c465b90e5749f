-- StressTest, the transactions: one function each, so that a transaction is one statement and one round trip.
--
-- (run, client, seq) is what the caller knows the transaction by: exactly one row with it goes to st.ledger, in the
-- same transaction. Every choice follows from `seed` and from how many ids have been given out. No two can deadlock:
-- each locks one row.

-- What a row holds, by its id, so that a page that was damaged shows.
create function st.small_text(id int) returns text language sql immutable as $$
select 's' || id % 100000000
$$;

create function st.big_text(id int) returns text language sql immutable as $$
select left(repeat(md5(id::text), 32), 1 + (id * 7919::bigint % 999)::int)
$$;

-- An id that has been given out, of a row that may be gone by now.
create function st.pick_id(seed int) returns int language plpgsql volatile as $$
declare
    last bigint;
begin
    perform setseed(seed / 2147483648.0);
    select s.last_value into strict last from st.ids_seq s;
    return 1 + floor(random() * last)::int;
end $$;

-- INS: one row more. Returns its id.
create function st.insert_row(run bigint, client int, seq bigint, seed int) returns bigint language plpgsql as $$
declare
    new_id int := nextval('st.ids_seq');
begin
    insert into st.stresstesttable values (
        new_id, new_id % 1000, new_id / 7.0, st.small_text(new_id), st.big_text(new_id), current_date);
    insert into st.ledger (run, client, seq, kind, rows, change)
    values (run, client, seq, 'INS', 1, new_id % 1000);
    return new_id;
end $$;

-- UPD: one more in a row. Returns its id, or null if it is gone.
create function st.update_row(run bigint, client int, seq bigint, seed int) returns bigint language plpgsql as $$
declare
    wanted  int := st.pick_id(seed);
    changed int;
begin
    update st.stresstesttable t set aint = t.aint + 1 where t.id = wanted returning t.id into changed;
    insert into st.ledger (run, client, seq, kind, change)
    values (run, client, seq, 'UPD', case when changed is null then 0 else 1 end);
    return changed;
end $$;

-- SEL: a row is read. Returns its id, or null if it is gone.
create function st.select_row(run bigint, client int, seq bigint, seed int) returns bigint language plpgsql as $$
declare
    wanted int := st.pick_id(seed);
    seen   record;
begin
    select t.id, t.aint, t.afloat, t.asmallvarchar, t.abigvarchar, t.adate into seen
    from st.stresstesttable t where t.id = wanted;
    insert into st.ledger (run, client, seq, kind) values (run, client, seq, 'SEL');
    return seen.id;
end $$;

-- DEL: a row is deleted. Returns its id, or null if it was gone.
create function st.delete_row(run bigint, client int, seq bigint, seed int) returns bigint language plpgsql as $$
declare
    wanted  int := st.pick_id(seed);
    deleted record;
begin
    delete from st.stresstesttable t where t.id = wanted returning t.id, t.aint into deleted;
    insert into st.ledger (run, client, seq, kind, rows, change)
    values (run, client, seq, 'DEL', case when deleted.id is null then 0 else -1 end, -coalesce(deleted.aint, 0));
    return deleted.id;
end $$;
