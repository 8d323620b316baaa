-- at 2025-03-20T12:00:00Z: visits of a phone that was offline arrive, on the day when clocks change too
INSERT INTO visits
SELECT 900 + n % 3, 5, '2025-03-09T05:30Z'::timestamptz + n * interval '47 minutes' FROM generate_series(0, 30) n;

-- at 2025-03-20T13:00:00Z: spam is deleted, a user is removed, and one becomes another
UPDATE posts SET deleted_at = '2025-03-20T13:00Z' WHERE user_id BETWEEN 20 AND 25;
DELETE FROM visits WHERE user_id = 33;
UPDATE visits SET user_id = 12 WHERE user_id = 47;
UPDATE posts SET user_id = 12, post_type = 2 WHERE user_id = 47;

-- at 2025-03-22T06:00:00Z: two more days end
DELETE FROM posts WHERE post_type = 3 AND created_at < '2025-02-10Z';
