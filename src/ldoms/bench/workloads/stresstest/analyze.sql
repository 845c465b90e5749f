-- StressTest, after loading: what autovacuum would do some minutes later, in the middle of a measurement.

set default_statistics_target = 10;
vacuum (analyze) st.metadata, st.stresstesttable;
