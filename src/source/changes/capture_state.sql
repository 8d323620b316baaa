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
           AS has_mark_function,
       CASE WHEN c.oid = to_regclass({relation})::oid THEN ARRAY(
           SELECT a.attname::text FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1) END AS columns,
       -- The columns of the condition of an update. A partition has its parent's condition.
       ARRAY(SELECT DISTINCT a.attname::text FROM pg_trigger t
             JOIN pg_depend d ON d.classid = 'pg_trigger'::regclass AND d.objid = t.oid
                 AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid > 0
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
             WHERE t.tgrelid = c.oid AND t.tgname = 'tallymark_update' AND NOT c.relispartition)
           AS compared,
       -- Generated columns, each with those that it is computed from. Before version 15 the column
       -- itself depends on them, since then its expression does.
       (SELECT jsonb_object_agg(generated.name, generated.bases)::text FROM (
            SELECT a.attname::text AS name, jsonb_agg(DISTINCT b.attname::text) AS bases
            FROM pg_attribute a
            JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
            JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
                AND d.refobjsubid > 0 AND d.refobjsubid <> a.attnum AND (
                    d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
                    OR d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = a.attnum)
            JOIN pg_attribute b ON b.attrelid = c.oid AND b.attnum = d.refobjsubid
            WHERE a.attrelid = c.oid AND a.attgenerated <> ''
            GROUP BY 1) generated) AS generated,
       -- Functions named in conditions that may read more than their arguments.
       CASE WHEN {texts} <> '' THEN ARRAY(
           SELECT DISTINCT p.proname::text FROM pg_proc p
           WHERE p.provolatile <> 'i' AND p.pronamespace <> 'pg_catalog'::regnamespace
               AND position(lower(p.proname::text) IN {texts}) > 0) END AS unsteady
FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY c.oid <> to_regclass({relation})::oid, n.nspname, c.relname
