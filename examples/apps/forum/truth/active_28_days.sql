-- One count over the visits of 28 days for each day of the chart.
SELECT day::date AS bucket, (
    SELECT count(DISTINCT user_id) FROM visits
    WHERE visited_at >= greatest(day - interval '27 days', '2019-02-01') AT TIME ZONE 'America/Sao_Paulo'
        AND visited_at < (day + interval '1 day') AT TIME ZONE 'America/Sao_Paulo') AS users
FROM generate_series('2019-02-01'::timestamp, :'until'::timestamptz AT TIME ZONE 'America/Sao_Paulo' - interval '1 day', '1 day') day
