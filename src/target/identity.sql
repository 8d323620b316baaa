-- The owner of a rollup here (an installation), and the installation that this source
-- and this target belong to. A table that was dropped and created again, or restored from a dump,
-- has another number in the catalogue.
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
-- Its checkpoint is at least as new, unless the checkpoints were restored or lost. Slices that were
-- taken over from another job's table have attempt 0, and no checkpoint.
LEFT JOIN LATERAL (
    SELECT slice_start, attempt, owner FROM tallymark.slice
    WHERE rollup = r.rollup AND attempt > 0
    ORDER BY replaced_at DESC NULLS LAST, slice_start DESC LIMIT 1
) newest ON true
WHERE r.rollup = {rollup}
