SELECT date_trunc('week', "timestamp" AT TIME ZONE 'UTC' + interval '1 day')::date - 1 AS bucket,
    environment, sum(yes) + sum(no) AS asked, count(DISTINCT app_name) AS apps,
    count(DISTINCT feature_name) AS flags
FROM client_metrics_env
WHERE "timestamp" >= '2025-03-02Z' AND "timestamp" < :'until'
GROUP BY 1, 2
