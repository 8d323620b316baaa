-- The consumers of a capture, each with the marks that it still has to acknowledge.
SELECT c.id, c.installation, c.rollup, c.columns, count(m.id) AS waiting, min(m.marked_at) AS oldest,
       extract(epoch FROM clock_timestamp() - min(m.marked_at))::bigint AS age
FROM tallymark.consumer c
LEFT JOIN tallymark.mark m ON m.capture = c.capture
    AND NOT EXISTS (SELECT FROM tallymark.taken t WHERE t.mark = m.id AND t.consumer = c.id)
WHERE c.capture = {capture}
GROUP BY c.id ORDER BY c.installation, c.rollup
