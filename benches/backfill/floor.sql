-- One slice of the naive job, with which Tallymark is compared.
BEGIN;
DELETE FROM floor.{table} WHERE bucket >= {start} AND bucket < {end};
INSERT INTO floor.{table} (bucket, entity_id, kind, events, revenue, users)
SELECT {start}, entity_id, kind, count(*), sum(amount), count(DISTINCT user_id)
FROM {source} WHERE created_at >= {start} AND created_at < {end}
GROUP BY entity_id, kind;
COMMIT;
