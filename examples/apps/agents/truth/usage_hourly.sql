SELECT date_trunc('hour', created_at, 'UTC') AS bucket, workspace_id, agent_id, provider, model,
    count(*) AS calls,
    sum(CASE WHEN tokens->>'output' IS NULL THEN 1 ELSE 0 END) AS failed,
    sum((tokens->>'input')::bigint) AS input_tokens,
    sum((tokens->>'output')::bigint) AS output_tokens,
    sum((tokens->>'input')::bigint * input_price / 1000000
        + coalesce((tokens->>'output')::bigint, 0) * output_price / 1000000) AS dollars,
    count(DISTINCT task_id) AS tasks,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms) AS duration_p50,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) AS duration_p95
FROM task_usage
WHERE created_at < :'until'
GROUP BY 1, 2, 3, 4, 5
