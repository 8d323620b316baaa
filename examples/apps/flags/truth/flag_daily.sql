SELECT date_trunc('day', "timestamp", 'UTC') AS bucket, feature_name, environment, sum(yes) AS yes,
    sum(no) AS no, sum(yes + no) AS asked, count(DISTINCT app_name) AS apps,
    max("timestamp") FILTER (WHERE yes > 0) AS last_on
FROM client_metrics_env
WHERE "timestamp" < :'until'
GROUP BY 1, 2, 3
