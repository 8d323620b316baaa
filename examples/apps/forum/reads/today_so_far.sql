-- Yesterday, and today so far.
SELECT bucket, visits, users FROM stats.active_daily
WHERE bucket >= (:'until'::timestamptz AT TIME ZONE 'America/Sao_Paulo')::date - 1
