-- CallingCircle, the transactions: one function each, so that a transaction is one statement and one round trip.
--
-- All take the same arguments. (run, client, seq) is what the caller knows the transaction by: exactly one row with
-- it goes to cc.ledger, in the same transaction. `account` is the caller's choice; every other choice follows from
-- `seed`. The user thinks between log-ins, `think_min` to `think_max` milliseconds.
--
-- No two can deadlock: a transaction is about one account and its one line, and locks the account first.

-- A whole number from `low` to `high`.
create function cc.pick(low int, high int) returns int language sql volatile as $$
select low + floor(random() * (high - low + 1))::int
$$;

-- The user thinks. How long does not depend on the seed, so that other choices do not depend on it.
create function cc.think(think_min int, think_max int) returns void language plpgsql volatile as $$
begin
    if think_max > 0 then
        perform pg_sleep((think_min + extract(milliseconds from clock_timestamp())::int % (think_max - think_min + 1))
            / 1000.0);
    end if;
end $$;

-- The customer logs in; once in fifty times with a wrong number first.
create function cc.log_in(account bigint) returns void language plpgsql as $$
declare
    seen  record;
    typed text;
begin
    select a.account_name, a.pin, a.failed_logins into strict seen from cc.accounts a where a.account_id = account;
    typed := case when cc.pick(1, 50) = 1 then 'wrong' else seen.pin end;
    if typed <> seen.pin then
        update cc.accounts a
        set failed_logins = a.failed_logins + 1, last_failed_login = clock_timestamp() where a.account_id = account;
    end if;
    update cc.accounts a
    set logins = a.logins + 1, last_login = clock_timestamp(), failed_logins = 0 where a.account_id = account;
end $$;

-- The customer chooses the account's line. Returns it, locked for nobody else to change its circle.
create function cc.choose_line(account bigint) returns cc.lines language plpgsql as $$
declare
    chosen cc.lines;
begin
    select l.* into strict chosen from cc.lines l where l.account_id = account for no key update;
    perform p.package_name, d.region_name
    from cc.packages p, cc.dial_codes d
    where p.package_id = chosen.package_id and d.dial_code_id = chosen.dial_code_id;
    return chosen;
end $$;

-- The numbers that are in a circle now. Returns how many are used.
create function cc.read_circle(line bigint) returns int language plpgsql as $$
declare
    used int;
begin
    select count(*) filter (where c.dial_code_id <> 0) into used
    from (
        select n.dial_code_id, n.number, d.region_name
        from cc.circle_numbers n join cc.dial_codes d on d.dial_code_id = n.dial_code_id
        where n.line_id = line and n.valid_to = 'infinity'
        order by n.slot
    ) c;
    return used;
end $$;

-- A number is put into a place of a circle, unless a rule is against it. Returns how many were set: 0 or 1.
create function cc.set_number(chosen cc.lines, place int, code int, new_number text) returns int language plpgsql as $$
declare
    before  cc.circle_numbers;
    rule    cc.packages;
    mobile  int;
    changed timestamptz;
begin
    select n.* into strict before
    from cc.circle_numbers n where n.line_id = chosen.line_id and n.slot = place and n.valid_to = 'infinity';
    select p.* into strict rule from cc.packages p where p.package_id = chosen.package_id;
    select count(*) into mobile
    from cc.circle_numbers n join cc.dial_codes d on d.dial_code_id = n.dial_code_id
    where n.line_id = chosen.line_id and n.valid_to = 'infinity' and n.slot <> place and d.region_type = 'MOB';
    if before.dial_code_id <> 0 and chosen.updates >= chosen.updates_allowed
        or (code, new_number) = (chosen.dial_code_id, chosen.number)
        or mobile >= rule.most_mobile
            and exists (select from cc.dial_codes d where d.dial_code_id = code and d.region_type = 'MOB')
        or exists (
            select from cc.circle_numbers n
            where n.line_id = chosen.line_id and n.valid_to = 'infinity'
                and (n.dial_code_id, n.number) = (code, new_number))
    then
        return 0;
    end if;
    -- A clock may be set back, when a guest moves for example; history is not.
    changed := greatest(clock_timestamp(), before.valid_from + interval '1 microsecond');
    update cc.circle_numbers n set valid_to = changed
    where n.line_id = chosen.line_id and n.slot = place and n.valid_to = 'infinity';
    insert into cc.circle_numbers values (chosen.line_id, place, code, new_number, changed, 'infinity');
    if before.dial_code_id <> 0 then
        update cc.lines l set updates = l.updates + 1 where l.line_id = chosen.line_id;
    end if;
    return 1;
end $$;

-- The customer goes through some places of the circle and gives each a new number, logging in for each. Returns how
-- many were set.
create function cc.change_circle(account bigint, places int, think_min int, think_max int) returns int
language plpgsql as $$
declare
    chosen cc.lines;
    first  int;
    done   int := 0;
begin
    first := cc.pick(0, 9);
    for step in 1 .. places loop
        perform cc.think(think_min, think_max);
        perform cc.log_in(account);
        chosen := cc.choose_line(account);
        perform cc.read_circle(chosen.line_id);
        done := done + cc.set_number(
            chosen, 1 + (first + step) % 10, cc.pick(1, 200), lpad(cc.pick(0, 9999999)::text, 7, '0'));
    end loop;
    return done;
end $$;

-- NC: a new customer with a line, who fills the circle. Returns how many numbers are in it.
create function cc.new_customer(
    run bigint, client int, seq bigint, account bigint, seed int, think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    new_account bigint := nextval('cc.accounts_seq');
    chosen      cc.lines;
    places      int;
    done        int;
begin
    perform setseed(seed / 2147483648.0);
    places := cc.pick(8, 10);
    insert into cc.accounts values (
        new_account, 'Customer ' || new_account, lpad(cc.pick(0, 9999)::text, 4, '0'), 0, null, 0, null, now());
    perform cc.log_in(new_account);
    -- Number and account go together, so that no two lines have the same number.
    insert into cc.lines values (
        new_account, new_account, 1 + new_account % 200, lpad((new_account / 200)::text, 8, '0'), cc.pick(1, 4),
        0, 1000, now());
    insert into cc.circle_numbers
    select new_account, s, 0, '', now(), 'infinity' from generate_series(1, 10) s;
    chosen := cc.choose_line(new_account);
    perform cc.read_circle(chosen.line_id);
    done := cc.change_circle(new_account, places, think_min, think_max);
    insert into cc.ledger (run, client, seq, kind, logins, changes) values (run, client, seq, 'NC', 1 + places, done);
    return cc.read_circle(chosen.line_id);
end $$;

-- UC: a customer changes the circle. Returns how many numbers are in it.
create function cc.update_customer(
    run bigint, client int, seq bigint, account bigint, seed int, think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    chosen cc.lines;
    places int;
    done   int;
begin
    perform setseed(seed / 2147483648.0);
    places := cc.pick(8, 10);
    perform cc.log_in(account);
    chosen := cc.choose_line(account);
    perform cc.read_circle(chosen.line_id);
    done := cc.change_circle(account, places, think_min, think_max);
    insert into cc.ledger (run, client, seq, kind, logins, changes) values (run, client, seq, 'UC', 1 + places, done);
    return cc.read_circle(chosen.line_id);
end $$;

-- RC: a customer looks at all numbers that ever were in the circle. Returns how many.
create function cc.retrieve_customer(
    run bigint, client int, seq bigint, account bigint, seed int, think_min int default 0, think_max int default 0
) returns bigint language plpgsql as $$
declare
    chosen cc.lines;
    lines  bigint;
    needed bigint;
begin
    perform setseed(seed / 2147483648.0);
    perform cc.log_in(account);
    chosen := cc.choose_line(account);
    -- The sum of the hashes needs every column, so that none of the work is left out.
    select count(*), sum(hashtext(history::text)) into lines, needed
    from (
        select n.slot, n.valid_from, n.valid_to, n.number, d.country_code, d.region_code, d.region_name
        from cc.circle_numbers n join cc.dial_codes d on d.dial_code_id = n.dial_code_id
        where n.line_id = chosen.line_id
    ) history;
    insert into cc.ledger (run, client, seq, kind, logins, changes) values (run, client, seq, 'RC', 1, 0);
    return lines;
end $$;
