-- 35 days: 1,500 tasks in five workspaces, four calls each.
INSERT INTO task
SELECT n, 1 + n % 5, 1 + n % 7, '2025-03-01Z'::timestamptz + n * interval '33 minutes'
FROM generate_series(0, 1499) n;

INSERT INTO task_usage (task_id, workspace_id, agent_id, provider, model, tokens, input_price,
    output_price, duration_ms, created_at)
SELECT task.id, task.workspace_id, task.agent_id,
    (ARRAY['north', 'north', 'south'])[1 + h % 3], (ARRAY['large', 'small', 'mini'])[1 + h % 3],
    CASE WHEN h % 13 > 0
        THEN jsonb_build_object('input', h % 9000, 'output', h % 1700, 'cached', h % 400)
        -- A call that failed reports no output.
        ELSE jsonb_build_object('input', h % 9000) END,
    (ARRAY[3, 0.25, NULL])[1 + h % 3], (ARRAY[15, 1.25, NULL])[1 + h % 3],
    200 + h % 30000, task.created_at + call * interval '4 minutes'
FROM task, generate_series(1, 4) call, LATERAL (SELECT abs(hashint8(task.id * 4 + call)) AS h) hash
ORDER BY task.created_at + call * interval '4 minutes';

ANALYZE task, task_usage;
