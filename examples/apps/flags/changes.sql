-- at 2025-03-16T06:00:00Z: a client that was offline reports the hours of 9 March
INSERT INTO client_metrics_env
SELECT 'flag-2', 'app-9', 'production', at, 40, 2
FROM generate_series('2025-03-09T08:00Z'::timestamptz, '2025-03-09T11:00Z', '1 hour') at;
UPDATE client_metrics_env SET yes = yes + 7
WHERE app_name = 'app-1' AND "timestamp" = '2025-03-09T08:00Z';

-- at 2025-03-16T08:00:00Z: a flag is removed with its numbers, and another gets a new name
DELETE FROM client_metrics_env WHERE feature_name = 'flag-5';
UPDATE client_metrics_env SET feature_name = 'checkout' WHERE feature_name = 'flag-3';
UPDATE client_metrics_env_variants SET feature_name = 'checkout' WHERE feature_name = 'flag-3';
DELETE FROM client_metrics_env_variants WHERE variant = 'green' AND "timestamp" < '2025-03-03Z';

-- at 2025-03-17T00:10:00Z: the week ends, with reports for hours that end late
INSERT INTO client_metrics_env VALUES ('flag-1', 'app-4', 'production', '2025-03-16T23:00Z', 3, 1);
UPDATE client_metrics_env_variants SET count = count * 2
WHERE variant = 'blue' AND extract(hour FROM "timestamp" AT TIME ZONE 'UTC') = 5;
