-- StressTest, the table: after the public description of SwingBench's StressTest.

set client_min_messages = warning;
drop schema if exists st cascade;
create schema st;

-- What was loaded: how many rows, and the sum of their aint.
create table st.metadata (
    name  text not null,
    value bigint not null
);

create table st.stresstesttable (
    id            int not null,
    aint          int not null,
    afloat        double precision not null,
    asmallvarchar varchar(10) not null,
    abigvarchar   varchar(1000) not null,
    adate         date not null
) with (fillfactor = 90);

-- One row for each transaction, written by it: how many rows the table has more, and by how much the sum of aint has
-- changed. There is no unique key: a transaction that happened twice must show.
create table st.ledger (
    run    bigint not null,
    client int not null,
    seq    bigint not null,
    kind   text not null,
    at     timestamptz not null default clock_timestamp(),
    rows   int not null default 0,
    change bigint not null default 0
);

create sequence st.ids_seq as int;

-- Numbers for runs; those up to 1,000 are for callers that choose their own.
create sequence st.runs_seq start 1001;
