//! What readers are told about coarse slices, beside their rows.

/// The complete and open slices of a coarse rollup whose rows differ from those that they are summed
/// from: of their own time, or of that of their trailing window. Both rollups have `kind`, `events` and
/// `total`.
pub fn misread(name: &str, finer: &str) -> String {
    let of = |table: &str, first: &str| {
        format!(
            "(SELECT string_agg(concat_ws(' ', kind, n, total), ', ' ORDER BY kind) FROM (SELECT kind, \
             sum(events)::bigint AS n, sum(total) AS total FROM stats.{table} \
             WHERE bucket >= {first} AND bucket < coalesce(m.open_until, s.slice_end) \
             GROUP BY kind) g)"
        )
    };
    let first = "coalesce(m.window_start, s.slice_start)";
    format!(
        "SELECT '-- misread: {name} ' || s.slice_start || ': ' || coalesce({own}, '') || ' of ' || \
         coalesce({parts}, '') FROM tallymark.slices_of('{name}', '-infinity', 'infinity') s \
         JOIN tallymark.slice m ON m.rollup = '{name}' AND m.slice_start = s.slice_start \
         WHERE s.state IN ('complete', 'open') AND {own} IS DISTINCT FROM {parts} \
         AND NOT EXISTS (SELECT FROM tallymark.slice k WHERE k.rollup = '{finer}' \
         AND k.kept_away IS NOT NULL AND k.slice_start < s.slice_end AND k.slice_end > {first})",
        own = of(name, "s.slice_start"),
        parts = of(finer, first),
    )
}
