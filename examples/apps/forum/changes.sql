-- at 2019-03-02T01:10:00Z: visits of a phone that was offline arrive, in the night when clocks change too
INSERT INTO visits
SELECT 900 + n % 3, 5, '2019-02-17T00:30Z'::timestamptz + n * interval '47 minutes' FROM generate_series(0, 8) n;

-- at 2019-03-02T01:20:00Z: spam is deleted, a user is removed, one is another, and topics move to another category
UPDATE posts SET deleted_at = '2019-03-02T01:20Z' WHERE user_id BETWEEN 20 AND 25;
DELETE FROM visits WHERE user_id = 133;
UPDATE visits SET user_id = 12 WHERE user_id = 47;
UPDATE posts SET user_id = 12, post_type = 2 WHERE user_id = 47;
UPDATE topics SET category_id = 3 WHERE id IN (7, 8, 41);
UPDATE topics SET title = upper(title);

-- at 2019-03-02T03:10:00Z: another day ends
DELETE FROM posts WHERE post_type = 3 AND created_at < '2019-02-10Z';
UPDATE topics SET category_id = 1 WHERE id = 7;
