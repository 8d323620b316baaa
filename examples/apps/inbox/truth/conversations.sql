SELECT date_bin('15 minutes', created_at, '2025-01-01Z') AS bucket, account_id, inbox_id, assignee_id,
    count(*) AS opened, count(*) FILTER (WHERE status = 1) AS resolved
FROM conversations
WHERE created_at < :'until'
GROUP BY 1, 2, 3, 4
