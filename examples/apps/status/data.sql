-- Two days: two monitors, probed from two regions every 30 seconds, with two bad times.
INSERT INTO monitoring_data (monitor_tag, region, "timestamp", status, latency)
SELECT monitor, region, at, status, CASE WHEN status <> 'DOWN' THEN 20 + h % 1800 * 0.25 END
FROM unnest(ARRAY['api', 'web']) monitor, unnest(ARRAY['east', 'west']) region,
    generate_series(1740787200, 1740787200 + 2 * 86400 - 1, 30) at,
    LATERAL (SELECT abs(hashtext(concat(monitor, region, at))) AS h) hash,
    LATERAL (SELECT CASE
        WHEN monitor = 'api' AND at BETWEEN 1740800000 AND 1740801700 THEN 'DOWN'
        WHEN h % 200 = 0 THEN 'DOWN'
        WHEN h % 90 = 1 OR region = 'west' AND at BETWEEN 1740900000 AND 1740903000 THEN 'DEGRADED'
        ELSE 'UP' END AS status) state;

ANALYZE monitoring_data;
