-- CallingCircle, the tables: after the public description of SwingBench's CallingCircle.
--
-- Keys and indexes come in data.sql, after the rows. Accounts, lines and numbers are updated in place, so their pages
-- leave room for new row versions.

set client_min_messages = warning;
drop schema if exists cc cascade;
create schema cc;

-- What was loaded, so that a load started later draws from the right range.
create table cc.metadata (
    name  text not null,
    value bigint not null
);

-- 0 is the code of a place in a circle that is not used.
create table cc.dial_codes (
    dial_code_id int not null,
    country_code text not null,
    region_code  text not null,
    region_type  text not null,
    region_name  text not null
);

create table cc.packages (
    package_id   int not null,
    package_name text not null,
    slots        int not null,
    most_mobile  int not null
);

create table cc.accounts (
    account_id        bigint not null,
    account_name      text not null,
    pin               text not null,
    logins            bigint not null,
    last_login        timestamptz,
    failed_logins     int not null,
    last_failed_login timestamptz,
    valid_from        timestamptz not null
) with (fillfactor = 80);

create table cc.lines (
    line_id         bigint not null,
    account_id      bigint not null,
    dial_code_id    int not null,
    number          text not null,
    package_id      int not null,
    updates         int not null,
    updates_allowed int not null,
    valid_from      timestamptz not null
) with (fillfactor = 80);

-- What is in a place of a line's circle, and what was: the present number is valid to infinity, and each one follows
-- its predecessor without a gap.
create table cc.circle_numbers (
    line_id      bigint not null,
    slot         int not null,
    dial_code_id int not null,
    number       text not null,
    valid_from   timestamptz not null,
    valid_to     timestamptz not null
) with (fillfactor = 90);

-- One row for each transaction, written by it: how often it logged in, and how many numbers it set. There is no unique
-- key: a transaction that happened twice must show.
create table cc.ledger (
    run     bigint not null,
    client  int not null,
    seq     bigint not null,
    kind    text not null,
    at      timestamptz not null default clock_timestamp(),
    logins  int not null,
    changes int not null
);

create sequence cc.accounts_seq;

-- Numbers for runs; those up to 1,000 are for callers that choose their own.
create sequence cc.runs_seq start 1001;
