-- SalesHistory, after loading: what autovacuum would do some minutes later, in the middle of a measurement.

set default_statistics_target = 10;
vacuum (analyze)
    sh.metadata, sh.countries, sh.customers, sh.products, sh.channels, sh.promotions, sh.times, sh.sales, sh.answers;
