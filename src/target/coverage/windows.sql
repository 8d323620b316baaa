-- All windows before window_until hold every change of their finer slices, while the finer slices before
-- it have changed window_changes times. Where that still holds, only the windows after it are looked at.
UPDATE tallymark.checked c SET window_until = x.until, window_changes = (
    SELECT coalesce(sum(f.changes), 0) FROM tallymark.slice f
    WHERE f.rollup = c.finer AND f.slice_start < x.until)
FROM (
    SELECT k.rollup, least(k.done_until, (
        SELECT min(w.slice_start) FROM tallymark.outdated_windows(k.rollup,
            CASE WHEN k.window_changes = (
                SELECT coalesce(sum(f.changes), 0) FROM tallymark.slice f
                WHERE f.rollup = k.finer AND f.slice_start < k.window_until)
            THEN least(k.window_until, k.done_until) ELSE '-infinity' END, k.done_until) w
    )) AS until
    FROM tallymark.checked k WHERE k.rollup IN ({rollups})
) x
WHERE c.rollup = x.rollup;
