CREATE OR REPLACE VIEW tallymark.slice_state AS
SELECT r.rollup, s.slice_start, s.slice_end, s.state, s.stale_since AS since, s.reason, s.attempt,
    s.rows_read, s.replaced_at
FROM tallymark.rollup r
CROSS JOIN LATERAL tallymark.slices_of(r.rollup, '-infinity', 'infinity') s
WHERE s.state <> 'complete'
