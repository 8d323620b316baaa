-- at 2025-04-03T12:10:00Z: two more days end, and a price of 20 March was wrong
UPDATE task_usage SET input_price = 2.5
WHERE model = 'large' AND created_at >= '2025-03-20Z' AND created_at < '2025-03-21Z';
-- replay usage_hourly 2025-03-20

-- at 2025-04-04T00:20:00Z: the third of April ends, and two calls of 5 March are removed as doubles
DELETE FROM task_usage
WHERE id IN (SELECT id FROM task_usage WHERE created_at >= '2025-03-05Z' ORDER BY created_at LIMIT 2);
-- replay usage_hourly 2025-03-05

-- at 2025-05-01T00:30:00Z: April ends
