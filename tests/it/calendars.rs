//! Slices and buckets of every width over days on which clocks change. No row is lost, none is
//! counted twice, and PostgreSQL's own calendar gives the same buckets.

use crate::support::share::{self, Long};
use crate::support::world::{Setup, World, instant, records};

/// One range of time in one zone.
struct Case {
    name: &'static str,
    zone: &'static str,
    slice: &'static str,
    bucket: &'static str,
    /// First slice and end of the last, as dates of the zone.
    from: &'static str,
    to: &'static str,
    /// The day on which weeks begin.
    week_start: &'static str,
}

const fn case(
    name: &'static str,
    zone: &'static str,
    [slice, bucket]: [&'static str; 2],
    [from, to]: [&'static str; 2],
) -> Case {
    Case { name, zone, slice, bucket, from, to, week_start: "monday" }
}

/// How the names of rollups end whose buckets are dates.
const DATES: &str = "_dates";

const NEW_YORK: &str = "America/New_York";
const PRAGUE: &str = "Europe/Prague";
const KATHMANDU: &str = "Asia/Kathmandu";
const APIA: &str = "Pacific/Apia";

const CASES: &[Case] = &[
    case("spring", NEW_YORK, ["1 day", "1 hour"], ["2025-03-08", "2025-03-11"]),
    case("autumn", NEW_YORK, ["1 day", "15 minutes"], ["2025-11-01", "2025-11-04"]),
    case("quarters", NEW_YORK, ["15 minutes", "15 minutes"], ["2025-11-02", "2025-11-03"]),
    case("hours", NEW_YORK, ["1 hour", "15 minutes"], ["2025-03-09", "2025-03-10"]),
    case("week_of_autumn", NEW_YORK, ["1 week", "1 hour"], ["2025-10-27", "2025-11-10"]),
    case("month_of_spring", NEW_YORK, ["1 month", "1 day"], ["2025-03-01", "2025-05-01"]),
    case("prague_spring", PRAGUE, ["1 day", "1 day"], ["2025-03-29", "2025-04-01"]),
    case("prague_autumn", PRAGUE, ["1 hour", "1 hour"], ["2025-10-26", "2025-10-27"]),
    case("prague_weeks", PRAGUE, ["1 week", "1 week"], ["2025-10-13", "2025-11-03"]),
    case("prague_months", PRAGUE, ["1 month", "1 month"], ["2025-10-01", "2025-12-01"]),
    case("kathmandu", KATHMANDU, ["1 day", "1 hour"], ["2025-03-08", "2025-03-11"]),
    case("kathmandu_hours", KATHMANDU, ["1 hour", "15 minutes"], ["2025-03-08", "2025-03-09"]),
    case("kathmandu_forward", KATHMANDU, ["1 day", "1 day"], ["1985-12-30", "1986-01-03"]),
    case("kathmandu_quarters", KATHMANDU, ["6 hours", "15 minutes"], ["1985-12-31", "1986-01-02"]),
    case("apia_hours", APIA, ["6 hours", "1 hour"], ["2011-12-29", "2012-01-01"]),
    case("apia_autumn", APIA, ["1 day", "15 minutes"], ["2012-03-31", "2012-04-03"]),
    case("apia", APIA, ["1 day", "1 hour"], ["2011-12-28", "2012-01-02"]),
    case("apia_month", APIA, ["1 month", "1 day"], ["2011-12-01", "2012-01-01"]),
    case("apia_week", APIA, ["1 week", "1 day"], ["2011-12-26", "2012-01-02"]),
    case("new_york_quarters", NEW_YORK, ["1 quarter", "1 quarter"], ["2025-01-01", "2025-07-01"]),
    case("quarter_of_days", NEW_YORK, ["1 quarter", "1 day"], ["2025-10-01", "2026-01-01"]),
    case("prague_halves", PRAGUE, ["6 months", "1 quarter"], ["2025-01-01", "2026-01-01"]),
    case("prague_year", PRAGUE, ["1 year", "1 month"], ["2025-01-01", "2026-01-01"]),
    case("apia_year", APIA, ["1 year", "1 year"], ["2011-01-01", "2012-01-01"]),
    Case { week_start: "sunday", ..SUNDAYS },
    Case {
        name: "saturdays",
        week_start: "saturday",
        from: "2025-10-25",
        to: "2025-11-08",
        ..SUNDAYS
    },
];

/// Weeks that begin before the change of clocks, and end after it.
const SUNDAYS: Case = case("sundays", PRAGUE, ["1 week", "1 week"], ["2025-10-19", "2025-11-02"]);

impl Case {
    fn rollup(&self, suffix: &str, from: &str, time: &str) -> String {
        let mut more = match self.week_start {
            "monday" => String::new(),
            other => format!("week_start = \"{other}\"\n"),
        };
        if suffix.ends_with(DATES) {
            more.push_str("bucket_as = \"date\"\n");
        }
        format!(
            "[[rollup]]\nname = \"{}{suffix}\"\nfrom = \"{from}\"\ntime = {time}\nstart = \"{}\"\n\
             slice = \"{}\"\nbucket = \"{}\"\ntimezone = \"{}\"\n{more}\
             [rollup.measures]\nn = \"count\"\nids = {{ sum = \"id\" }}\n",
            self.name, self.from, self.slice, self.bucket, self.zone
        )
    }

    /// The bucket of `instant` by PostgreSQL's calendar. All offsets here are whole quarter hours.
    /// PostgreSQL's weeks begin on a Monday.
    fn truncated(&self, instant: &str) -> String {
        let later = match self.week_start {
            "saturday" => 2,
            "sunday" => 1,
            _ => 0,
        };
        if later > 0 {
            let zone = self.zone;
            return format!(
                "(date_trunc('week', {instant} AT TIME ZONE '{zone}' + interval '{later} days') \
                 - interval '{later} days') AT TIME ZONE '{zone}'"
            );
        }
        match self.bucket.split_once(' ').unwrap() {
            ("15", _) => format!("date_bin('15 minutes', {instant}, '2000-01-01Z')"),
            (_, unit) => format!("date_trunc('{unit}', {instant}, '{}')", self.zone),
        }
    }

    /// Whether dates of its buckets show more than their instants: slices of several, or weeks.
    fn has_dates(&self) -> bool {
        let is_date = ["day", "week", "month", "quarter"].iter().any(|it| self.bucket.contains(it));
        is_date && (self.slice != self.bucket || self.week_start != "monday")
    }

    fn bound(&self, date: &str) -> String {
        format!("'{date}'::timestamp AT TIME ZONE '{}'", self.zone)
    }

    /// The result of a GROUP BY with PostgreSQL's calendar.
    fn expected(&self, instant: &str) -> String {
        format!(
            "SELECT {}, count(*), sum(id) FROM events WHERE {instant} >= {} AND {instant} < {} GROUP BY 1",
            self.truncated(instant),
            self.bound(self.from),
            self.bound(self.to)
        )
    }
}

/// Rows about every 11 minutes around each range, one at each border and one right before it.
/// `local` is what clocks in New York show.
fn events() -> String {
    let stretches: Vec<String> = CASES
        .iter()
        .map(|it| {
            format!(
                "SELECT at FROM generate_series({0} - interval '3 hours', {1} + interval '3 hours', \
                 '11 minutes 7.123456 seconds') at UNION ALL \
                 SELECT at + shift FROM generate_series({0}, {1}, '6 hours') at, \
                 unnest(ARRAY['0', '-0.000001 seconds', '15 minutes']::interval[]) shift",
                it.bound(it.from),
                it.bound(it.to)
            )
        })
        .collect();
    format!(
        "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz, local timestamp); \
         INSERT INTO events (at, local) SELECT at, at AT TIME ZONE '{NEW_YORK}' FROM ({}) rows (at) \
         ORDER BY at; CREATE INDEX ON events (at); ANALYZE events; \
         CREATE FUNCTION much() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 10000 \
         AS 'BEGIN RETURN NEXT true; END'; \
         CREATE VIEW vast AS SELECT e.* FROM events e CROSS JOIN LATERAL much()",
        stretches.join(" UNION ")
    )
}

/// Computes `case`'s rollup up to its end and compares it with `expected`.
async fn is_right(world: &World, name: &str, case: &Case, expected: &str) {
    let rollup = world.worker.rollup(name).unwrap();
    let end = rollup.calendar.instant(case.to).unwrap().to_rfc3339();
    let slices = rollup.calendar.count(rollup.start, instant(&end));
    let report = world.backfill_one(rollup, &end, false).await;
    assert_eq!((report.succeeded, report.left), (slices, 0), "{name}: {report:?}");
    let found = records(&world.target, &format!("SELECT * FROM stats.{name}")).await;
    let wanted = records(&world.pool, expected).await;
    let differ: Vec<_> =
        found.iter().zip(&wanted).filter(|(found, wanted)| found != wanted).collect();
    assert!(
        found == wanted && !found.is_empty(),
        "{name}: {} of {}: {differ:?}",
        found.len(),
        wanted.len()
    );
    let counted = format!("SELECT (SELECT sum(n) FROM stats.{name}) - {}", report.rows_read);
    assert_eq!(world.target_value(&counted).await, "0", "{name}");
    world.assert_one_verified(rollup, &end).await;
}

#[tokio::test]
async fn buckets_are_those_of_postgresql_when_clocks_change() {
    if !share::plays(Long::Clocks) {
        return;
    }
    let rollups: String = CASES
        .iter()
        .flat_map(|case| ["", "_vast", "_vast_dates"].map(|suffix| (case, suffix)))
        // Hundreds of slices in chunks would show no more than the wide ones.
        .filter(|(case, suffix)| suffix.is_empty() || !case.slice.contains("minutes"))
        .filter(|(case, suffix)| !suffix.ends_with(DATES) || case.has_dates())
        .map(|(case, suffix)| {
            case.rollup(suffix, if suffix.is_empty() { "events" } else { "vast" }, "\"at\"")
        })
        .collect();
    let world = World::new(&events(), Setup { rollups: &rollups, ..Setup::default() }).await;
    for rollup in &world.worker.config.rollups {
        let name = rollup.name.trim_end_matches(DATES).trim_end_matches("_vast");
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let mut expected = case.expected("at");
        if rollup.name.ends_with(DATES) {
            let date = format!("(bucket AT TIME ZONE '{}')::date", case.zone);
            expected = format!("SELECT {date}, n, ids FROM ({expected}) it (bucket, n, ids)");
        }
        is_right(&world, &rollup.name, case, &expected).await;
    }
    let (spring, autumn) =
        (world.worker.rollup("spring").unwrap(), world.worker.rollup("autumn").unwrap());
    let hours = |rollup: &tallymark::model::rollup::Rollup, day: &str| {
        let day = rollup.calendar.instant(day).unwrap();
        rollup.calendar.starting(day).unwrap().duration().num_hours()
    };
    assert_eq!((hours(spring, "2025-03-09"), hours(autumn, "2025-11-02")), (23, 25));
    let apia = world.worker.rollup("apia").unwrap();
    // Four slices from the 28th to the 1st, as there was no 30th.
    let days = "SELECT count(*) FROM tallymark.slice WHERE rollup = 'apia'";
    assert_eq!(world.target_value(days).await, "4");
    assert_eq!(hours(apia, "2011-12-29"), 24);
}

/// A `timestamp` of a zone whose clocks show an hour twice, or skip one. PostgreSQL reads each as
/// one instant, and every row lies in exactly one slice and one bucket, whatever zone the slices
/// follow.
#[tokio::test]
async fn local_times_shown_twice_or_never_are_counted_once() {
    let time = format!("{{ column = \"local\", zone = \"{NEW_YORK}\" }}");
    let chosen = ["spring", "autumn", "quarters", "hours", "week_of_autumn", "month_of_spring"];
    let mut cases: Vec<Case> = Vec::new();
    for case in CASES.iter().filter(|case| chosen.contains(&case.name)) {
        cases.push(Case { ..*case });
    }
    cases.push(case("elsewhere", PRAGUE, ["1 day", "1 hour"], ["2025-11-01", "2025-11-04"]));
    cases.push(case("elsewhere_hours", PRAGUE, ["1 hour", "1 hour"], ["2025-03-09", "2025-03-10"]));
    let rollups: String = cases
        .iter()
        .map(|case| {
            let vast =
                if case.slice == "1 hour" { "" } else { &case.rollup("_vast", "vast", &time) };
            case.rollup("", "events", &time) + vast
        })
        .collect();
    // 02:30 of 2025-03-09 never existed, 01:30 of 2025-11-02 existed twice.
    let odd = "INSERT INTO events (local) SELECT '2025-03-09 01:55'::timestamp + n * interval '5 minutes' \
        FROM generate_series(0, 15) n; INSERT INTO events (local) \
        SELECT '2025-11-02 00:55'::timestamp + n * interval '5 minutes' FROM generate_series(0, 30) n";
    let sql = format!("{}; {odd}; ANALYZE events", events());
    let world = World::new(&sql, Setup { rollups: &rollups, ..Setup::default() }).await;
    for rollup in &world.worker.config.rollups {
        let name = rollup.name.trim_end_matches("_vast");
        let case = cases.iter().find(|case| case.name == name).unwrap();
        let expected = case.expected(&format!("(local AT TIME ZONE '{NEW_YORK}')"));
        is_right(&world, &rollup.name, case, &expected).await;
    }
}
