-- 16 days: six flags, three applications, two environments, with hours in which nothing was asked.
INSERT INTO client_metrics_env
SELECT 'flag-' || flag, 'app-' || app, (ARRAY['development', 'production'])[env], at, h % 900, h % 70
FROM generate_series(1, 6) flag, generate_series(1, 3) app, generate_series(1, 2) env,
    generate_series('2025-03-01Z'::timestamptz, '2025-03-16T23:00Z', '1 hour') at,
    LATERAL (SELECT abs(hashtext(concat(flag, app, env, extract(epoch FROM at)))) AS h) hash
WHERE h % 5 > 0;

INSERT INTO client_metrics_env_variants
SELECT feature_name, app_name, environment, "timestamp", variant, yes / n
FROM client_metrics_env, unnest(ARRAY['blue', 'green', 'disabled']) WITH ORDINALITY v (variant, n)
WHERE feature_name < 'flag-4';

ANALYZE client_metrics_env, client_metrics_env_variants;
