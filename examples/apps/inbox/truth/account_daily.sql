SELECT date_trunc('day', created_at, 'UTC') AS bucket, account_id,
    count(first) AS first_responses,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY first) AS first_response_p50,
    percentile_disc(0.9) WITHIN GROUP (ORDER BY first) AS first_response_p90,
    avg(value) FILTER (WHERE name = 'conversation_resolved') AS resolution
FROM (SELECT *, CASE WHEN name = 'first_response' THEN value END AS first FROM reporting_events) e
WHERE created_at < :'until'
GROUP BY 1, 2
