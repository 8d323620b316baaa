-- Fifteen days: twelve workflows in three projects.
INSERT INTO workflow SELECT 'wf-' || n, 'workflow ' || n, 1 + n % 3 FROM generate_series(1, 12) n;

INSERT INTO execution (workflow_id, mode, status, started_at, stopped_at)
SELECT 'wf-' || 1 + h % 12, (ARRAY['trigger', 'webhook', 'trigger', 'manual'])[1 + h / 12 % 4], status, at,
    CASE WHEN status <> 'waiting' THEN at + h % 90000 * interval '1 millisecond' END
FROM generate_series(1, 9000) n, LATERAL (SELECT abs(hashint8(n)) AS h,
        '2025-05-01Z'::timestamptz + n * interval '143 seconds' AS at) run,
    LATERAL (SELECT CASE WHEN h % 19 = 0 THEN 'error' WHEN h % 211 = 0 THEN 'crashed'
        WHEN h % 97 = 0 THEN 'waiting' ELSE 'success' END AS status) ended;

ANALYZE workflow, execution;
