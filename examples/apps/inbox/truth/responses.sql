SELECT date_bin('15 minutes', created_at, '2025-01-01Z') AS bucket, account_id, inbox_id, user_id,
    count(first) AS first_responses,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY first) AS first_response_p50,
    percentile_disc(0.9) WITHIN GROUP (ORDER BY first) AS first_response_p90,
    max(first) AS slowest,
    avg(value) FILTER (WHERE name = 'conversation_resolved') AS resolution,
    ARRAY[count(*) FILTER (WHERE first < 900), count(*) FILTER (WHERE first >= 900 AND first < 3600),
        count(*) FILTER (WHERE first >= 3600)] AS waits
FROM (SELECT *, CASE WHEN name = 'first_response' THEN value END AS first FROM reporting_events) e
WHERE created_at < :'until'
GROUP BY 1, 2, 3, 4
