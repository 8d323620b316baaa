-- Takes the marker of a slice for an attempt. No row comes back when a newer attempt has it.
-- What the marker says of the data (rows_read, definition) stays: it is replaced with the data.
INSERT INTO tallymark.slice AS marker (rollup, slice_start, slice_end, attempt)
VALUES ({rollup}, {start}, {end}, {attempt})
ON CONFLICT (rollup, slice_start) DO UPDATE SET attempt = excluded.attempt
WHERE marker.attempt <= excluded.attempt
RETURNING marker.rows_read, marker.replaced_at IS NOT NULL AS replaced
