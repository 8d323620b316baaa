-- Tells readers what a tick has found. The tick of the latest first instant wins, so that a worker
-- that was frozen changes nothing. A tick without an instant keeps the one that was told before.
INSERT INTO tallymark.checked AS c (rollup, checked_at, definition, finer, settled_by, history_from,
    empty_before, seal_before, done_until, tail, verified_through, slice_seconds, grace_seconds, ends, failing)
SELECT * FROM (VALUES {values}) AS v (rollup, checked_at) WHERE v.checked_at IS NOT NULL
ON CONFLICT (rollup) DO UPDATE SET checked_at = excluded.checked_at,
    definition = excluded.definition, finer = excluded.finer, settled_by = excluded.settled_by,
    history_from = excluded.history_from, empty_before = excluded.empty_before,
    seal_before = excluded.seal_before, done_until = excluded.done_until,
    tail = excluded.tail, verified_through = excluded.verified_through,
    slice_seconds = excluded.slice_seconds,
    grace_seconds = excluded.grace_seconds, ends = excluded.ends, failing = excluded.failing
WHERE c.checked_at <= excluded.checked_at;
{windows}SELECT rollup, slice_start FROM tallymark.outstanding
WHERE rollup IN ({rollups}) AND cleared < generation ORDER BY since LIMIT {limit}
