SELECT (created_at AT TIME ZONE reporting_timezone)::date AS bucket, account_id,
    count(*) FILTER (WHERE reporting_events.name = 'first_response') AS first_responses,
    percentile_disc(0.9) WITHIN GROUP (ORDER BY CASE WHEN reporting_events.name = 'first_response' THEN value END)
        AS first_response_p90
FROM reporting_events JOIN accounts ON accounts.id = account_id
WHERE created_at < :'until'
GROUP BY 1, 2
