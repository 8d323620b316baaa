-- How far the chunks of a slice are; UNLOGGED like the stage, so that a crash forgets both.
INSERT INTO tallymark.progress
    (rollup, slice_start, attempt, definition, dirty, cursor, rows_read, chunks, source_ms)
VALUES ({rollup}, {start}, {attempt}, {definition}, {dirty}, {cursor}, {rows_read}, {chunks}, {source_ms})
ON CONFLICT (rollup, slice_start) DO UPDATE SET
    attempt = excluded.attempt, definition = excluded.definition, dirty = excluded.dirty,
    cursor = excluded.cursor, rows_read = excluded.rows_read, chunks = excluded.chunks,
    source_ms = excluded.source_ms
