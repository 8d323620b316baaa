-- The statements that drop the series of a rollup, which has the rollup's name in its comment.
SELECT 'DROP FUNCTION ' || p.oid::regprocedure AS statement
FROM pg_proc p WHERE p.proname = {name} AND starts_with(obj_description(p.oid, 'pg_proc'), {comment})
UNION ALL
SELECT 'DROP TYPE ' || t.oid::regtype
FROM pg_type t WHERE t.typname = {name} AND starts_with(obj_description(t.oid, 'pg_type'), {comment})
ORDER BY statement
