SELECT day::date AS bucket, daily, monthly, round(daily::numeric / monthly, 4) AS share
FROM generate_series('2025-02-01'::timestamp, :'until'::timestamptz AT TIME ZONE 'America/Chicago'
        - interval '1 day', '1 day') day, LATERAL (
    SELECT count(DISTINCT user_id) FILTER (WHERE visited_at >= day AT TIME ZONE 'America/Chicago') AS daily,
        count(DISTINCT user_id) AS monthly
    FROM visits
    WHERE visited_at >= greatest(day - interval '27 days', '2025-02-01') AT TIME ZONE 'America/Chicago'
        AND visited_at < (day + interval '1 day') AT TIME ZONE 'America/Chicago'
) users
