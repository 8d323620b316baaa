-- The days of each account's own zone.
SELECT (bucket AT TIME ZONE reporting_timezone)::date AS bucket, account_id, assignee_id,
    sum(opened) AS opened, sum(resolved) AS resolved
FROM stats.conversations JOIN accounts ON accounts.id = account_id
WHERE bucket < :'until'
GROUP BY 1, 2, 3
