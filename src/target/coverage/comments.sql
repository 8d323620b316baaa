-- The comments of Tallymark's own objects, which say by what statement each was made.
SELECT CASE WHEN o.name LIKE '%(%' THEN obj_description(to_regprocedure(o.name), 'pg_proc')
    ELSE obj_description(to_regclass(o.name), 'pg_class') END AS comment
FROM unnest({names}::text[]) WITH ORDINALITY AS o (name, place) ORDER BY o.place
