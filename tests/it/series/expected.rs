//! What a series should say, by another way: a `GROUP BY` over the source's rows of the slices that are
//! computed.

use fastrand::Rng;

/// The measures that are compared, with their aggregates over the source's rows, and their values
/// over none.
const MEASURES: [(&str, &str, &str); 14] = [
    ("count", "count(*)", "0"),
    ("sum", "sum(amount)", "0"),
    ("min", "min(amount)", "NULL"),
    ("max", "max(amount)", "NULL"),
    ("avg", "round(avg(amount), 6)", "NULL"),
    ("any", "bool_or(is_paid)", "NULL"),
    ("every", "bool_and(is_paid)", "NULL"),
    ("stddev", "round(stddev(amount), 6)", "NULL"),
    ("variance", "round(variance(amount), 6)", "NULL"),
    (
        "histogram",
        "ARRAY[count(*) FILTER (WHERE amount < 10), count(*) FILTER (WHERE amount >= 10 AND amount < 100), \
         count(*) FILTER (WHERE amount >= 100 AND amount < 1000), count(*) FILTER (WHERE amount >= 1000)]",
        "'{0,0,0,0}'",
    ),
    ("first", "(array_agg(amount ORDER BY updated_at))[1]", "NULL"),
    ("last", "(array_agg(amount ORDER BY updated_at DESC))[1]", "NULL"),
    ("distinct_exact", "count(DISTINCT amount)", "0"),
    ("last_by", "max(updated_at)", "NULL"),
];

/// What a slice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Complete,
    /// Complete, and before the seal.
    Sealed,
    Missing,
    Stale,
    /// Before the seal, and changed since.
    SealedStale,
    Failing,
    Redefined,
    KeptAway,
}

impl State {
    /// The states of this number of slices. A slice that fails is sealed where a later one is.
    pub fn drawn(random: &mut Rng, slices: usize) -> Vec<Self> {
        let mut states: Vec<_> = (0..slices).map(|_| Self::one(random)).collect();
        let sealed = states.iter().rposition(|state| state.is_sealed()).unwrap_or(0);
        for state in states[..sealed].iter_mut().filter(|state| **state == Self::Failing) {
            *state = Self::Complete;
        }
        states
    }

    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Complete,
        Self::Sealed,
        Self::Missing,
        Self::Stale,
        Self::SealedStale,
        Self::Failing,
        Self::Redefined,
        Self::KeptAway,
    ];

    fn one(random: &mut Rng) -> Self {
        match random.usize(..60) {
            place @ 1..8 => Self::ALL[place],
            _ => Self::Complete,
        }
    }

    fn is_sealed(self) -> bool {
        matches!(self, Self::Sealed | Self::SealedStale)
    }

    fn is_complete(self) -> bool {
        matches!(self, Self::Complete | Self::Sealed)
    }

    fn is_computed(self) -> bool {
        !matches!(self, Self::Missing | Self::KeptAway)
    }
}

/// The start of the slice at `place`.
fn start(place: usize) -> String {
    format!("('2026-01-01Z'::timestamptz + {place} * interval '6 hours')")
}

/// The statements that give the slices these states. What is sealed begins the history, as a seal does.
pub fn applied(states: &[State]) -> Vec<String> {
    let seal = states.iter().rposition(|state| state.is_sealed()).map_or(0, |last| last + 1);
    let mut statements =
        vec![format!("UPDATE tallymark.checked SET seal_before = {}", start(seal))];
    for (place, state) in states.iter().enumerate() {
        let (start, end) = (start(place), start(place + 1));
        let rows = format!("DELETE FROM stats.quarters WHERE bucket >= {start} AND bucket < {end}");
        statements.push(match state {
            State::Complete | State::Sealed => continue,
            State::Missing => {
                format!("{rows}; DELETE FROM tallymark.slice WHERE slice_start = {start}")
            }
            State::Stale | State::SealedStale => format!(
                "INSERT INTO tallymark.outstanding (rollup, slice_start, slice_end, generation, since, reason) \
                 VALUES ('quarters', {start}, {end}, 1, now(), 'late change')"
            ),
            State::Failing => format!("UPDATE tallymark.checked SET failing = failing || {start}"),
            State::Redefined => format!(
                "UPDATE tallymark.slice SET definition = 'another' WHERE slice_start = {start}"
            ),
            State::KeptAway => format!(
                "{rows}; UPDATE tallymark.slice SET kept_away = now() WHERE slice_start = {start}"
            ),
        });
    }
    statements
}

/// What is asked of a series.
#[derive(Debug)]
pub struct Asked {
    /// Minutes after 2026-01-01.
    since: i64,
    until: i64,
    step: &'static str,
    /// The condition that a step starts at the instant `t`, which clocks show as `shown`.
    begins: String,
    zone: &'static str,
    by: Option<Vec<&'static str>>,
    /// `only`, and the same as a condition.
    only: Option<(&'static str, &'static str)>,
}

const DIMENSIONS: [&str; 2] = ["kind", "entity_id"];

impl Asked {
    /// The totals of all slices.
    pub fn each_slice() -> Self {
        let begins = "extract(epoch FROM shown)::bigint % 21600 = 0".to_owned();
        let (since, until) = (0, 8_640);
        Self { since, until, step: "6 hours", begins, zone: "UTC", by: Some(vec![]), only: None }
    }

    pub fn drawn(random: &mut Rng) -> Self {
        let multiple =
            |minutes: u32| format!("extract(epoch FROM shown)::bigint % {} = 0", minutes * 60);
        let unit = |unit: &str| format!("shown = date_trunc('{unit}', shown)");
        let since = random.i64(-1_500..8_000);
        let at = format!("('2026-01-01Z'::timestamptz + {since} * interval '1 minute')");
        let zones = [
            "UTC",
            "Europe/Berlin",
            "Asia/Kathmandu",
            "America/St_Johns",
            "Australia/Lord_Howe",
            "Pacific/Apia",
        ];
        let zone = zones[random.usize(..zones.len())];
        // In the rollup's own zone, as it is counted in time.
        let after = format!("(t - date_bin('15 minutes', {at}, '2026-01-01Z'))");
        let days = format!("(shown::date - ({at} AT TIME ZONE '{zone}')::date)");
        let steps = [
            ("15 minutes", multiple(15), 2_000),
            ("1 hour", multiple(60), 4_000),
            ("360 minutes", multiple(360), 9_000),
            ("24 hours", unit("day"), 20_000),
            ("1 day", unit("day"), 9_000),
            ("1 week", unit("week"), 15_000),
            ("1 month", unit("month"), 9_000),
            ("3 days", format!("{} AND {days} >= 0 AND {days} % 3 = 0", unit("day")), 12_000),
            (
                "5 hours",
                format!(
                    "{after} >= interval '0' AND extract(epoch FROM {after})::bigint % 18000 = 0"
                ),
                6_000,
            ),
        ];
        let (step, begins, longest) = steps[random.usize(..steps.len())].clone();
        let by = random.bool().then(|| DIMENSIONS.into_iter().filter(|_| random.bool()).collect());
        let only = [
            ("{\"kind\": [\"view\", null]}", "(kind = 'view' OR kind IS NULL)"),
            ("{\"entity_id\": 1}", "entity_id = 1"),
            (
                "{\"entity_id\": [0, 2], \"kind\": \"click\"}",
                "entity_id IN (0, 2) AND kind = 'click'",
            ),
            ("{\"entity_id\": 1, \"kind\": [\"view\"]}", "entity_id = 1 AND kind = 'view'"),
            ("{\"entity_id\": 1, \"kind\": null}", "entity_id = 1 AND kind IS NULL"),
            ("{\"kind\": \"none\"}", "kind = 'none'"),
            ("{}", "true"),
        ];
        let only = random.bool().then(|| only[random.usize(..only.len())]);
        let until = since + random.i64(1..longest);
        Self { since, until, step, begins, zone, by, only }
    }

    fn instant(minutes: i64) -> String {
        format!("('2026-01-01Z'::timestamptz + {minutes} * interval '1 minute')")
    }

    /// The call.
    fn call(&self) -> String {
        let by = self
            .by
            .as_ref()
            .map_or_else(|| "NULL".to_owned(), |by| format!("'{{{}}}'", by.join(",")));
        let only = self.only.map_or_else(|| "NULL".to_owned(), |(only, _)| format!("'{only}'"));
        let [since, until] = [self.since, self.until].map(Self::instant);
        format!(
            "stats.quarters_series({since}, {until}, '{}', '{}', {by}, {only})",
            self.step, self.zone
        )
    }

    /// The numbers of the series.
    pub fn series(&self) -> String {
        let columns = MEASURES.map(|(name, _, _)| match name {
            "avg" | "stddev" | "variance" => format!("round(\"{name}\", 6) AS \"{name}\""),
            _ => format!("\"{name}\""),
        });
        format!(
            "SELECT bucket, kind, entity_id, {}, complete FROM {}",
            columns.join(", "),
            self.call()
        )
    }

    /// The numbers that it should have.
    pub fn expected(&self, states: &[State]) -> String {
        let [since, until] = [self.since, self.until].map(Self::instant);
        let slices = states.iter().enumerate().map(|(place, state)| {
            format!(
                "({}, {}, {}, {})",
                start(place),
                start(place + 1),
                state.is_computed(),
                state.is_complete()
            )
        });
        let is_by = |name: &&str| self.by.as_ref().is_none_or(|by| by.contains(name));
        let keys = DIMENSIONS.map(|name| match is_by(&name) {
            true => format!("e.{name}"),
            false => format!("NULL::{} AS {name}", if name == "kind" { "text" } else { "int" }),
        });
        let aggregates = MEASURES.map(|(name, sql, _)| format!("{sql} AS \"{name}\""));
        let columns = MEASURES.map(|(name, _, empty)| match empty {
            "NULL" => format!("CASE WHEN w.is_computed THEN a.\"{name}\" END"),
            _ => format!("CASE WHEN w.is_computed THEN coalesce(a.\"{name}\", {empty}) END"),
        });
        let total = match self.by.as_deref() {
            Some([]) => "UNION SELECT NULL::text, NULL::int",
            _ => "",
        };
        format!(
            "SELECT * FROM (WITH slice (first, last, is_computed, is_complete) AS (VALUES {slices}), \
             start AS (SELECT t FROM (SELECT t, t AT TIME ZONE '{zone}' AS shown FROM generate_series(\
             '2025-11-20Z'::timestamptz, '2026-02-20Z', '15 minutes') t) g WHERE {begins}), \
             step AS (SELECT * FROM (SELECT t AS first, lead(t) OVER (ORDER BY t) AS last FROM start) s \
             WHERE last > {since} AND first < {until}), \
             standing AS (SELECT step.first, step.last, coalesce(bool_or(slice.is_computed), false) AS is_computed, \
             coalesce(bool_and(slice.is_complete), false) AND step.first >= '2026-01-01Z' \
             AND step.last <= '2026-01-07Z' AS is_complete FROM step \
             LEFT JOIN slice ON slice.first < step.last AND slice.last > step.first GROUP BY 1, 2), \
             row AS (SELECT step.first AS at, e.amount, e.is_paid, e.updated_at, {keys} FROM events e \
             JOIN slice ON e.created_at >= slice.first AND e.created_at < slice.last AND slice.is_computed \
             JOIN step ON e.created_at >= step.first AND e.created_at < step.last WHERE {only}), \
             a AS (SELECT at, kind, entity_id, {aggregates} FROM row GROUP BY 1, 2, 3), \
             k AS (SELECT DISTINCT kind, entity_id FROM row {total}) \
             SELECT w.first, k.kind, k.entity_id, {columns}, w.is_complete FROM standing w CROSS JOIN k \
             LEFT JOIN a ON a.at = w.first AND a.kind IS NOT DISTINCT FROM k.kind \
             AND a.entity_id IS NOT DISTINCT FROM k.entity_id) wanted",
            slices = slices.collect::<Vec<_>>().join(", "),
            zone = self.zone,
            begins = self.begins,
            keys = keys.join(", "),
            only = self.only.map_or("true", |(_, condition)| condition),
            aggregates = aggregates.join(", "),
            columns = columns.join(", "),
        )
    }

    /// The rows whose approximate numbers are out of the bounds that the exact ones set.
    pub fn approximate(&self) -> String {
        format!(
            "SELECT * FROM {} WHERE distinct_approximate NOT BETWEEN 0.95 * distinct_exact - 1 \
             AND 1.05 * distinct_exact + 1 OR percentiles_p99 < 0.99 * \"max\" AND count < 100 \
             OR percentiles_p50 NOT BETWEEN 0.99 * \"min\" AND 1.01 * \"max\" \
             OR (count > 0) <> (percentiles_p50 IS NOT NULL)",
            self.call()
        )
    }
}
