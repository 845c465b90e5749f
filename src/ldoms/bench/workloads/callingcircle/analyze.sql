-- CallingCircle, after loading: what autovacuum would do some minutes later, in the middle of a measurement.

set default_statistics_target = 10;
vacuum (analyze) cc.metadata, cc.dial_codes, cc.packages, cc.accounts, cc.lines, cc.circle_numbers;
