-- How many of some marks there are, and how often some consumers have acknowledged them. Both counts
-- are as before while no other worker has turned one of the marks into reopenings.
SELECT (SELECT count(*) FROM tallymark.mark m
        WHERE m.id = ANY ('{{{marks}}}'::bigint[])) AS known,
       (SELECT count(*) FROM tallymark.taken t
        WHERE t.mark = ANY ('{{{marks}}}'::bigint[]) AND t.consumer = ANY ('{{{mine}}}'::bigint[])) AS taken
