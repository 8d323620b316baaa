SELECT date_bin('5 minutes', started_at, '2025-01-01Z') AS bucket, workflow_id, mode,
    count(*) FILTER (WHERE status = 'success') AS succeeded,
    count(*) FILTER (WHERE status = 'error' OR status = 'crashed') AS failed,
    sum(seconds) AS seconds,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY seconds) AS duration_p50,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY seconds) AS duration_p95,
    (array_agg(status ORDER BY stopped_at DESC, status DESC)
        FILTER (WHERE stopped_at IS NOT NULL))[1] AS last_status,
    max(stopped_at) AS last_status_by
FROM (SELECT *, extract(epoch FROM stopped_at - started_at) AS seconds FROM execution) run
WHERE mode <> 'manual' AND deleted_at IS NULL AND started_at >= :'since' AND started_at < :'until'
GROUP BY 1, 2, 3
