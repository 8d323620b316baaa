SELECT (visited_at AT TIME ZONE 'America/Sao_Paulo')::date AS bucket, count(*) AS visits, count(DISTINCT user_id) AS users
FROM visits
WHERE visited_at >= ((:'until'::timestamptz AT TIME ZONE 'America/Sao_Paulo')::date - 1)::timestamp AT TIME ZONE 'America/Sao_Paulo'
    AND visited_at < :'until'
GROUP BY 1
