-- The rollup's entry in the registry, and the first table for which the role lacks a privilege to
-- write, with the missing privileges. NULL: there is none.
SELECT r.generation, r.calendar, r.sealed_before, closed.name AS closed, closed.lacks, quote_ident(current_user) AS role
FROM tallymark.rollup r
LEFT JOIN LATERAL (
    SELECT t.name, string_agg(privilege, ', ' ORDER BY privilege) AS lacks
    FROM (VALUES (1, {table}, 'SELECT INSERT UPDATE DELETE'),
                 (2, {stage}, 'SELECT INSERT UPDATE DELETE'),
                 (3, 'tallymark.slice', 'SELECT INSERT UPDATE DELETE'),
                 (4, 'tallymark.progress', 'SELECT INSERT UPDATE DELETE'),
                 (5, 'tallymark.rollup', 'SELECT UPDATE'),
                 (6, 'tallymark.outstanding', 'SELECT INSERT UPDATE DELETE'),
                 (7, 'tallymark.checked', 'SELECT INSERT UPDATE DELETE')) t (place, name, needs)
    CROSS JOIN LATERAL unnest(string_to_array(t.needs, ' ')) privilege
    WHERE NOT has_table_privilege(to_regclass(t.name), privilege)
    GROUP BY t.place, t.name
    ORDER BY t.place LIMIT 1
) closed ON true
WHERE r.rollup = {rollup}
