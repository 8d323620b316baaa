-- The types of dimensions as the target knows them, in their order: the bytes of a value where all values of
-- the type have as many, else NULL; and whether its values are text. A domain counts as its base.
WITH RECURSIVE wanted AS (
    SELECT to_regtype(name)::oid AS typid, place
    FROM unnest({types}::text[]) WITH ORDINALITY w (name, place)
    UNION ALL
    SELECT t.typbasetype, w.place FROM wanted w JOIN pg_type t ON t.oid = w.typid AND t.typtype = 'd'
)
SELECT CASE WHEN t.typlen > 0 THEN t.typlen::int END AS bytes,
       t.typname IN ('text', 'varchar', 'bpchar') AS is_text
FROM wanted w JOIN pg_type t ON t.oid = w.typid AND t.typtype <> 'd'
ORDER BY w.place
