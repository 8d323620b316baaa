-- A table with its partitions or children, and the state of each one's capture. The triggers of a
-- lookup on the same table are not part of it.
WITH RECURSIVE tree AS (
    SELECT to_regclass({relation})::oid AS oid
    UNION
    SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
)
SELECT c.oid::bigint AS oid, clock_timestamp() AS now,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       c.relkind::text AS kind,
       c.relispartition AS is_partition,
       coalesce((SELECT string_agg(t.tgname || '=' || t.tgenabled::text, ',')
                 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                 WHERE t.tgrelid = c.oid AND p.pronamespace = to_regnamespace('tallymark')
            AND p.proname LIKE 'capture%'), '')
           AS triggers,
       (SELECT min(p.proname)::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = c.oid AND p.pronamespace = to_regnamespace('tallymark')
            AND p.proname LIKE 'capture%') AS function,
       (SELECT min(obj_description(p.oid, 'pg_proc')) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = c.oid AND p.pronamespace = to_regnamespace('tallymark')
            AND p.proname LIKE 'capture%') AS description,
       EXISTS (SELECT FROM pg_class m WHERE m.relnamespace = to_regnamespace('tallymark')
               AND m.relname = 'mark') AS has_marks,
       EXISTS (SELECT FROM pg_class m WHERE m.relnamespace = to_regnamespace('tallymark')
               AND m.relname = 'partition') AS has_consumers,
       EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
               JOIN pg_proc m ON m.pronamespace = p.pronamespace AND m.proname = p.proname || '_mark'
               WHERE t.tgrelid = c.oid AND p.pronamespace = to_regnamespace('tallymark')
            AND p.proname LIKE 'capture%')
           AS has_mark_function
FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY c.oid <> to_regclass({relation})::oid, n.nspname, c.relname
