-- The marks of a capture that at least one of some consumers still has to acknowledge, grouped by
-- equal hours.
SELECT axis, first_hour, last_hour, acknowledged, array_agg(id) AS ids
FROM (
    SELECT * FROM (
        SELECT m.*, ARRAY(
            SELECT t.consumer FROM tallymark.taken t
            WHERE t.mark = m.id AND t.consumer = ANY ('{{{mine}}}'::bigint[]) ORDER BY 1
        ) AS acknowledged
        FROM tallymark.mark m WHERE m.capture = {capture}
    ) known
    WHERE acknowledged <> ARRAY(SELECT unnest('{{{mine}}}'::bigint[]) ORDER BY 1)
    LIMIT {marks_max}
) waiting
GROUP BY axis, first_hour, last_hour, acknowledged
