CREATE OR REPLACE VIEW tallymark.coverage AS
SELECT r.rollup,
    CASE WHEN c.rollup IS NOT NULL
        THEN least(f.first_stale, f.first_gap, f.first_open, coalesce(f.last_end, h.plain)) END
        AS complete_through,
    x.expected_through,
    coalesce(f.gaps, 0) + greatest(0, coalesce(round((extract(epoch FROM x.expected_through)
        - extract(epoch FROM greatest(f.last_end, h.plain)))::numeric / c.slice_seconds), 0))::bigint
        AS missing,
    coalesce(f.stale, 0) AS stale, coalesce(f.failing, 0) AS failing, c.settled_by,
    (WITH RECURSIVE chain AS (
        SELECT c.checked_at, c.finer
        UNION ALL
        SELECT n.checked_at, n.finer FROM chain JOIN tallymark.checked n ON n.rollup = chain.finer
    ) SELECT min(chain.checked_at) FROM chain) AS checked_at,
    CASE WHEN f.first_open <= least(f.first_stale, f.first_gap, f.first_open) THEN (
        SELECT m.open_until FROM tallymark.slice m
        WHERE m.rollup = r.rollup AND m.slice_start = f.first_open) END AS open_through,
    c.verified_through
FROM tallymark.rollup r
LEFT JOIN tallymark.checked c ON c.rollup = r.rollup
-- Where no slice is outstanding, only those after it are looked at.
CROSS JOIN LATERAL (
    SELECT p.history, greatest(p.history, p.plain) AS plain
    FROM (SELECT greatest(c.history_from, c.empty_before) AS history,
        tallymark.plain_until(r.rollup) AS plain OFFSET 0) p
) h
CROSS JOIN LATERAL (
    SELECT max(e) AS expected_through FROM unnest(c.ends) e
    WHERE e + make_interval(secs => c.grace_seconds) <= clock_timestamp()
) x
CROSS JOIN LATERAL (
    SELECT min(s.slice_start) FILTER (WHERE s.state IN ('stale', 'failing')) AS first_stale,
        min(s.before) FILTER (WHERE s.before < s.slice_start) AS first_gap,
        min(s.slice_start) FILTER (WHERE s.state = 'open') AS first_open,
        max(s.slice_end) AS last_end,
        count(*) FILTER (WHERE s.state = 'stale') AS stale,
        count(*) FILTER (WHERE s.state = 'failing') AS failing,
        sum(round((extract(epoch FROM s.slice_start) - extract(epoch FROM s.before))::numeric
            / c.slice_seconds)) FILTER (WHERE s.before < s.slice_start)::bigint AS gaps
    FROM (
        SELECT k.*, lag(k.slice_end, 1, greatest(h.history, least(h.plain, k.slice_start)))
            OVER (ORDER BY k.slice_start) AS before
        FROM tallymark.slices_of(r.rollup, coalesce(h.plain, '-infinity'), 'infinity') k
        WHERE h.history IS NULL OR k.slice_end > h.history
    ) s
) f
