-- The schemas of these types besides PostgreSQL's own, in the order in which the session looks into them.
SELECT coalesce(string_agg(', ' || quote_ident(s.name), '' ORDER BY s.place, s.name), '') AS schemas
FROM (
    SELECT DISTINCT n.nspname AS name, array_position(current_schemas(false), n.nspname) AS place
    FROM unnest(ARRAY[{types}]::text[]) AS u (written)
    JOIN pg_type t ON t.oid = to_regtype(u.written)
    JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname <> 'pg_catalog'
) s
