SELECT to_timestamp("timestamp" / 60 * 60) AS bucket, monitor_tag,
    count(*) AS checks,
    sum((status = 'UP')::int) AS up,
    sum((status = 'DEGRADED')::int) AS degraded,
    bool_or(status = 'DOWN') AS was_down,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY latency) AS latency_p50,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY latency) AS latency_p95,
    percentile_disc(0.99) WITHIN GROUP (ORDER BY latency) AS latency_p99,
    avg(latency) AS mean,
    ARRAY[count(*) FILTER (WHERE latency < 100),
        count(*) FILTER (WHERE latency >= 100 AND latency < 300),
        count(*) FILTER (WHERE latency >= 300 AND latency < 450),
        count(*) FILTER (WHERE latency >= 450)] AS slow,
    (array_agg(status ORDER BY "timestamp" DESC, status COLLATE "C" DESC))[1] AS last_status,
    max("timestamp") AS last_status_by
FROM monitoring_data
WHERE type <> 'maintenance' AND "timestamp" < extract(epoch FROM :'until'::timestamptz)
GROUP BY 1, 2
