-- The days of each account's own zone.
SELECT (bucket AT TIME ZONE reporting_timezone)::date AS bucket, account_id,
    sum(first_responses) AS first_responses,
    tallymark.percentile(tallymark.merge_sketches(first_response_sketch), 0.9) AS first_response_p90
FROM stats.responses JOIN accounts ON accounts.id = account_id
WHERE bucket < :'until'
GROUP BY 1, 2
