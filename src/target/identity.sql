-- Who keeps a rollup here, and which installation is reached by this source and this target. The
-- catalogue gives tables that were made anew, or restored from a dump, other numbers.
SELECT r.installation AS keeper,
       i.id AS mine,
       coalesce(to_regclass(r.target_table)::oid::text, '-') || '/'
           || 'tallymark.slice'::regclass::oid AS tables,
       kept.servers,
       kept.places,
       newest.slice_start AS newest_start,
       newest.attempt AS newest_attempt,
       newest.owner AS newest_owner
FROM tallymark.rollup r
LEFT JOIN tallymark.installation i ON {place} = ANY (i.places)
LEFT JOIN tallymark.installation kept ON kept.id = r.installation
-- Its checkpoint knows at least as much, unless the checkpoints were restored or lost.
LEFT JOIN LATERAL (
    SELECT slice_start, attempt, owner FROM tallymark.slice WHERE rollup = r.rollup
    ORDER BY replaced_at DESC NULLS LAST, slice_start DESC LIMIT 1
) newest ON true
WHERE r.rollup = {rollup}
