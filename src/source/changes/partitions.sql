-- Compares a table's partitions with their last known state. The statement marks the hours of
-- partitions that were attached with rows, detached, dropped or rewritten, and stores their present
-- state. A partition is unchanged while its file and each step of its attachment are the same. A
-- partition that never held a row (its file is the first one, and empty) changes nothing.
WITH RECURSIVE tree AS (
    SELECT to_regclass({relation})::oid AS oid, ''::text AS path
    UNION ALL
    SELECT i.inhrelid, t.path || i.xmin::text || '/'
    FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid
    -- During a concurrent detach, its rows are already hidden from new statements. PostgreSQL 13
    -- lacks this.
    WHERE coalesce(to_jsonb(i) ->> 'inhdetachpending', 'false') = 'false'
), found AS (
    SELECT c.oid, c.relfilenode, t.path || c.relfilenode AS state
    FROM tree t JOIN pg_class c ON c.oid = t.oid
    WHERE c.relispartition AND c.relkind = 'r'
), changed AS MATERIALIZED (
    SELECT f.*, k.relation IS NOT NULL AS is_known, k.hours AS hours_before
    FROM found f
    LEFT JOIN tallymark.partition k ON k.capture = {capture} AND k.relation = f.oid::bigint
    WHERE k.state IS DISTINCT FROM f.state
), bounded AS MATERIALIZED (
    SELECT c.*, c.is_known OR c.relfilenode <> c.oid OR coalesce(pg_relation_size(c.oid), 1) > 0 AS held_rows,
           {hours} AS hours
    FROM changed c, LATERAL (
        -- NULL unless it is a plain range. Then the partition may hold any time.
        SELECT CASE WHEN def NOT LIKE '% OR %' AND def NOT LIKE '%NOT (%' THEN def END AS text
        FROM pg_get_partition_constraintdef(c.oid) def
    ) bounds
), kept AS (
    INSERT INTO tallymark.partition (capture, relation, state, hours)
    SELECT {capture}, oid::bigint, state, hours FROM bounded
    ON CONFLICT (capture, relation) DO UPDATE SET state = excluded.state, hours = excluded.hours
), vanished AS (
    DELETE FROM tallymark.partition k
    WHERE k.capture = {capture} AND NOT EXISTS (SELECT FROM found f WHERE f.oid::bigint = k.relation)
    RETURNING k.hours
), marked AS (
    SELECT hours FROM vanished
    UNION ALL
    SELECT hours FROM bounded WHERE held_rows
    UNION ALL
    SELECT hours_before FROM bounded WHERE is_known
)
INSERT INTO tallymark.mark (capture, axis, first_hour, last_hour)
SELECT DISTINCT {capture}, axis, (hours -> axis ->> 0)::bigint, (hours -> axis ->> 1)::bigint
FROM marked, unnest(ARRAY[{axes}]::text[]) axis
