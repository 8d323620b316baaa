-- at 2025-04-05T09:00:00Z: conversations move to another agent and another inbox
UPDATE conversations SET assignee_id = 4 WHERE assignee_id = 2 AND created_at < '2025-03-26Z';
UPDATE conversations SET inbox_id = 8, status = 1 WHERE id BETWEEN 1200 AND 1260;
UPDATE reporting_events SET inbox_id = 8 WHERE conversation_id BETWEEN 1200 AND 1260;

-- at 2025-04-05T09:10:00Z: answers by e-mail arrive late, on the day when clocks change too
INSERT INTO reporting_events (name, value, account_id, inbox_id, user_id, conversation_id, created_at)
SELECT 'first_response', 60 + n, 1, 4, 3, n, '2025-03-30T00:50Z'::timestamptz + n * interval '97 seconds'
FROM generate_series(1, 60) n;

-- at 2025-04-06T00:20:00Z: an account and all of its data are deleted
DELETE FROM reporting_events WHERE account_id = 3;
DELETE FROM conversations WHERE account_id = 3;
