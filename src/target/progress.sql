-- How far the chunks of a slice are. The table is UNLOGGED like the stage, so that a crash empties
-- both. If a crash has deleted the chunks before this one, the statement writes no row.
WITH found AS (
    SELECT FROM tallymark.progress
    WHERE rollup = {rollup} AND slice_start = {start} AND cursor = {before}
)
INSERT INTO tallymark.progress
    (rollup, slice_start, attempt, definition, dirty, generation, cursor, rows_read, chunks, source_ms)
SELECT {rollup}, {start}, {attempt}, {definition}, {dirty}, {generation}, {cursor}, {rows_read}, {chunks},
    {source_ms}
WHERE {is_first} OR EXISTS (SELECT FROM found)
ON CONFLICT (rollup, slice_start) DO UPDATE SET
    attempt = excluded.attempt, definition = excluded.definition, dirty = excluded.dirty,
    generation = excluded.generation, cursor = excluded.cursor, rows_read = excluded.rows_read, chunks = excluded.chunks,
    source_ms = excluded.source_ms
