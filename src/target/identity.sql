-- Who keeps a rollup here, and which installation is reached by this source and this target. The
-- catalogue gives tables that were made anew, or restored from a dump, other numbers.
SELECT r.installation AS keeper,
       i.id AS mine,
       coalesce(to_regclass(r.target_table)::oid::text, '-') || '/'
           || 'tallymark.slice'::regclass::oid AS tables,
       kept.servers,
       kept.places
FROM tallymark.rollup r
LEFT JOIN tallymark.installation i ON {place} = ANY (i.places)
LEFT JOIN tallymark.installation kept ON kept.id = r.installation
WHERE r.rollup = {rollup}
