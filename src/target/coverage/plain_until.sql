CREATE OR REPLACE FUNCTION tallymark.plain_until(of_rollup text) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
-- The last tick has seen every slice before done_until done. Since then, slices have been raised.
WITH RECURSIVE chain AS (
    SELECT c.rollup, c.finer, c.done_until, c.failing, c.window_until, c.window_changes,
        greatest(c.history_from, c.seal_before) AS first
    FROM tallymark.checked c WHERE c.rollup = of_rollup
    UNION ALL
    SELECT c.rollup, c.finer, c.done_until, c.failing, c.window_until, c.window_changes,
        greatest(c.history_from, c.seal_before)
    FROM chain JOIN tallymark.checked c ON c.rollup = chain.finer
)
SELECT CASE WHEN bool_and(chain.done_until IS NOT NULL) AND bool_and(w.is_same) THEN
    least(min(chain.done_until), min(chain.window_until), min(r.raised), min(f.failing)) END
FROM chain
CROSS JOIN LATERAL (
    SELECT min(o.slice_start) AS raised FROM tallymark.outstanding o
    WHERE o.rollup = chain.rollup AND o.cleared < o.generation AND o.slice_start >= chain.first
) r
CROSS JOIN LATERAL (SELECT min(start) AS failing FROM unnest(chain.failing) start) f
-- Windows hold every change while the finer slices before that instant have changed as often.
CROSS JOIN LATERAL (
    SELECT CASE WHEN chain.window_changes IS NULL THEN true ELSE chain.window_changes = (
        SELECT coalesce(sum(s.changes), 0) FROM tallymark.slice s
        WHERE s.rollup = chain.finer AND s.slice_start < chain.window_until) END AS is_same
) w
$body$
