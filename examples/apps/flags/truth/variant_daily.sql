SELECT DISTINCT ON (bucket, feature_name, environment, variant)
    date_trunc('day', "timestamp", 'UTC') AS bucket, feature_name, environment, variant,
    sum(count) OVER hours AS shown, "timestamp" AS best_hour, count AS best_hour_by
FROM client_metrics_env_variants
WHERE "timestamp" < :'until'
WINDOW hours AS (PARTITION BY date_trunc('day', "timestamp", 'UTC'), feature_name, environment, variant)
ORDER BY bucket, feature_name, environment, variant, count DESC, "timestamp" DESC
