SELECT (created_at AT TIME ZONE reporting_timezone)::date AS bucket, account_id, assignee_id,
    count(*) AS opened, count(*) FILTER (WHERE status = 1) AS resolved
FROM conversations JOIN accounts ON accounts.id = account_id
WHERE created_at < :'until'
GROUP BY 1, 2, 3
