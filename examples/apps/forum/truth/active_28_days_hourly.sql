SELECT hour AS bucket, (
    SELECT count(DISTINCT user_id) FROM visits
    WHERE visited_at >= greatest((hour + interval '1 hour') AT TIME ZONE 'America/Sao_Paulo' - interval '28 days', '2019-02-01') AT TIME ZONE 'America/Sao_Paulo'
        AND visited_at < hour + interval '1 hour') AS users
FROM generate_series('2019-03-01 00:00 America/Sao_Paulo'::timestamptz, :'until'::timestamptz - interval '1 hour', '1 hour') hour
