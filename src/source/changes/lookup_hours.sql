-- Marks the hours in which the captured table has rows of some keys of a lookup, neighbouring hours in
-- one mark.
INSERT INTO tallymark.mark (capture, axis, first_hour, last_hour)
SELECT {capture}, {axis}, min(first_hour), max(last_hour)
FROM (
    SELECT first_hour, last_hour, sum(gap) OVER (ORDER BY first_hour, last_hour) AS stretch
    FROM (
        SELECT *, CASE WHEN first_hour <= 1 + max(last_hour) OVER (
            ORDER BY first_hour, last_hour ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) THEN 0 ELSE 1 END AS gap
        FROM ({found}) found
    ) hours
) stretches
GROUP BY stretch
