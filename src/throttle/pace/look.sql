-- How busy the server is beside Tallymark, as any role can see it. The probe counts for about 5 ms,
-- which takes longer where its processor is shared: a shorter one would end within one turn of the
-- scheduler.
-- The length of each nap, and of the probe, is measured by the server's clock. Without `track_counts`
-- the server counts no blocks.
SELECT extract(epoch FROM clock_timestamp())::float8 AS at,
       pg_is_in_recovery() AS is_replica,
       s.transactions, s.blocks, o.sessions, n.nap_ms, p.counted,
       extract(epoch FROM p.done - p.begun)::float8 * 1000 AS probe_ms
FROM (SELECT sum(xact_commit + xact_rollback)::float8 AS transactions,
             sum(blks_read) FILTER (WHERE current_setting('track_counts') = 'on')::float8 AS blocks
      FROM pg_stat_database) AS s,
     ({others}) AS o,
     (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ms) AS nap_ms
      FROM (SELECT extract(epoch FROM woke - slept)::float8 * 1000 AS ms
            FROM (SELECT clock_timestamp() AS slept, pg_catalog.pg_sleep(0.0008) AS nap,
                         clock_timestamp() AS woke
                  FROM generate_series(1, 3)) AS each) AS lengths) AS n,
     (SELECT clock_timestamp() AS begun,
             (SELECT count(*) FROM generate_series(1, 400) AS a, generate_series(1, 400) AS b
              WHERE (a + b) % 7 = 3) AS counted,
             clock_timestamp() AS done) AS p
