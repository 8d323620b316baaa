-- Whether a lookup finds at most one row: its relation, a unique key of exactly the columns that `on`
-- equates, and the operator behind each equation. `keys` has its unique keys, for a message.
WITH lookup AS (
    SELECT c.oid, c.relkind::text AS kind, c.relpersistence::text AS persistence,
           EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS has_children
    FROM pg_class c WHERE c.oid = to_regclass({lookup})
), pair AS (
    -- A domain compares as its base type.
    SELECT p.key_name, p.column_name, k.attcollation AS key_collation, s.attcollation AS column_collation,
           coalesce(nullif(kt.typbasetype, 0), kt.oid) AS key_type,
           coalesce(nullif(st.typbasetype, 0), st.oid) AS column_type
    FROM unnest(ARRAY[{keys}]::text[], ARRAY[{columns}]::text[]) AS p(key_name, column_name)
    LEFT JOIN pg_attribute k ON k.attrelid = (SELECT oid FROM lookup) AND k.attname = p.key_name
        AND NOT k.attisdropped
    LEFT JOIN pg_type kt ON kt.oid = k.atttypid
    LEFT JOIN pg_attribute s ON s.attrelid = to_regclass({source}) AND s.attname = p.column_name
        AND NOT s.attisdropped
    LEFT JOIN pg_type st ON st.oid = s.atttypid
), key AS (
    SELECT i.indexrelid, i.indclass, i.indcollation,
           ARRAY(SELECT a.attname::text FROM generate_series(0, i.indnkeyatts - 1) n
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n]
                 ORDER BY n) AS columns
    FROM pg_index i JOIN lookup l ON l.oid = i.indrelid
    WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
), fitting AS (
    SELECT * FROM key
    WHERE (SELECT array_agg(c ORDER BY c COLLATE "C") FROM unnest(key.columns) c)
        = (SELECT array_agg(c ORDER BY c COLLATE "C") FROM unnest(ARRAY[{keys}]::text[]) c)
), judged AS (
    -- An equality of another operator family, as of numeric and double precision, may hold for
    -- several keys. A varchar compares as text.
    SELECT p.*, n.place,
           (p.key_type = p.column_type
            OR (p.key_type IN ('text'::regtype, 'varchar'::regtype)
                AND p.column_type IN ('text'::regtype, 'varchar'::regtype))
            OR EXISTS (SELECT FROM pg_opclass o JOIN pg_amop a ON a.amopfamily = o.opcfamily
                       WHERE o.oid = f.indclass[n.place] AND a.amopstrategy = 3
                         AND a.amoplefttype = p.key_type AND a.amoprighttype = p.column_type))
               AS is_same_equality,
           EXISTS (SELECT FROM pg_collation c
                   WHERE c.oid IN (p.key_collation, p.column_collation, f.indcollation[n.place])
                     AND NOT c.collisdeterministic) AS is_loose
    FROM pair p, (SELECT * FROM fitting ORDER BY indexrelid LIMIT 1) f,
        LATERAL (SELECT array_position(f.columns, p.key_name) - 1 AS place) n
)
SELECT l.kind, l.persistence, l.has_children,
       EXISTS (SELECT FROM fitting) AS has_key,
       (SELECT string_agg('(' || array_to_string(columns, ', ') || ')', ', ' ORDER BY indexrelid)
        FROM (SELECT * FROM key ORDER BY indexrelid LIMIT 5) few) AS keys,
       (SELECT min(format('%s is of type %s, and %s of type %s', key_name, format_type(key_type, NULL),
                          column_name, format_type(column_type, NULL)))
        FROM judged WHERE NOT is_same_equality) AS unequal,
       (SELECT min(key_name) FROM judged WHERE is_loose) AS loose
FROM lookup l
