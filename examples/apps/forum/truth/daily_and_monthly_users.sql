SELECT day::date AS bucket, daily, monthly, round(daily::numeric / monthly, 4) AS share
FROM generate_series('2019-02-01'::timestamp,
        (:'until'::timestamptz AT TIME ZONE 'America/Sao_Paulo')::date - interval '1 day', '1 day') day, LATERAL (
    SELECT count(DISTINCT user_id) FILTER (WHERE visited_at >= day AT TIME ZONE 'America/Sao_Paulo') AS daily,
        count(DISTINCT user_id) AS monthly
    FROM visits
    WHERE visited_at >= greatest(day - interval '27 days', '2019-02-01') AT TIME ZONE 'America/Sao_Paulo'
        AND visited_at < (day + interval '1 day') AT TIME ZONE 'America/Sao_Paulo'
) users
