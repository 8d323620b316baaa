//! The steps of series in every zone around the changes of its clocks, from 1970 to 2037.

use chrono::{DateTime, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use fastrand::Rng;
use sqlx::AssertSqlSafe;

use crate::support::share;
use crate::support::world::{DAILY, Setup, Urls, World, config, instant};

/// The zones of one run, and the changes of each around which it tries short steps.
const ZONES: usize = 6;
const CHANGES: usize = 3;

/// The widths that are tried over all years, and around single changes.
const WIDE: [&str; 3] = ["1 day", "1 week", "1 month"];
const NARROW: [&str; 5] = ["15 minutes", "1 hour", "6 hours", "12 hours", "1 day"];

/// The length of a bucket in seconds.
const BUCKET: i64 = 900;

fn offset(zone: Tz, at: DateTime<Utc>) -> i64 {
    zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into()
}

/// Instants twelve hours apart, and the zone's offsets there.
fn sampled(zone: Tz) -> Vec<(DateTime<Utc>, i64)> {
    let first = instant("1970-01-01T00:00:00Z");
    (0..49_672).map(|i| first + TimeDelta::hours(12 * i)).map(|at| (at, offset(zone, at))).collect()
}

/// Whether the server has the same rules of the zone.
async fn is_known(world: &World, zone: Tz, offsets: &[(DateTime<Utc>, i64)]) -> bool {
    let sql = format!(
        "SELECT extract(epoch FROM (t AT TIME ZONE '{zone}') - (t AT TIME ZONE 'UTC'))::bigint \
         FROM generate_series(0, 49671) i, \
         LATERAL (SELECT '1970-01-01Z'::timestamptz + i * interval '12 hours') x (t) ORDER BY i"
    );
    let found: Result<Vec<i64>, _> =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&world.target).await;
    found.is_ok_and(|found| found.iter().eq(offsets.iter().map(|(_, offset)| offset)))
}

/// The starts of the slices of a rollup in that zone: those that hold the range, and the next one.
fn calendar(
    urls: &Urls,
    zone: Tz,
    width: &str,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Vec<i64> {
    let start = if width == "1 week" { "1970-02-02" } else { "1970-02-01" };
    let rollup = format!(
        "[[rollup]]\nname = \"z\"\nfrom = \"public.events\"\ntime = \"created_at\"\n\
         start = \"{start}\"\nslice = \"{width}\"\ntimezone = \"{zone}\"\n\
         measures = {{ events = \"count\" }}\n"
    );
    let calendar = config(urls, "", &rollup).rollups[0].calendar;
    let first = calendar.containing(since).start();
    let later = calendar.slices(first, until).map(|slice| slice.end().timestamp());
    std::iter::once(first.timestamp()).chain(later).collect()
}

/// The starts of the steps of a series over quarter hours of UTC, or why there are none.
async fn steps(
    world: &World,
    zone: Tz,
    width: &str,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<i64>, String> {
    let sql = format!(
        "SELECT extract(epoch FROM t)::bigint FROM tallymark.steps_of('15 minutes', 'UTC', 0, '{since}', \
         '{until}', '{width}', '{zone}') s, unnest(s.starts) WITH ORDINALITY u (t, i) ORDER BY i",
        since = since.to_rfc3339(),
        until = until.to_rfc3339(),
    );
    let found = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&world.target).await;
    found.map_err(|error| error.to_string())
}

async fn compare(world: &World, zone: Tz, width: &str, since: DateTime<Utc>, until: DateTime<Utc>) {
    let wanted = calendar(&world.urls, zone, width, since, until);
    let fits = wanted.iter().all(|start| start.rem_euclid(BUCKET) == 0);
    match steps(world, zone, width, since, until).await {
        Ok(found) => {
            let differs = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted);
            let lengths = (found.len(), wanted.len());
            assert!(
                fits && found == wanted,
                "{zone} {width} {since} {until}: {differs:?} {lengths:?}"
            );
        }
        Err(error) => {
            assert!(
                !fits && error.contains("inside of a bucket"),
                "{zone} {width} {since}: {error}"
            );
        }
    }
}

/// The quarter hours of a step are those that a `GROUP BY` of the local date puts together. Where the
/// clocks change within a quarter hour, the calendar decides alone. So it does where clocks go back
/// over midnight, as a date comes twice there: its day begins when it comes to stay. Returns whether
/// they were compared.
async fn equals_group_by(world: &World, zone: Tz, change: DateTime<Utc>) -> bool {
    let sql = format!(
        "WITH at AS (SELECT t, width_bucket(t, s.starts) AS step, (t AT TIME ZONE '{zone}')::date AS day, \
         max((t AT TIME ZONE '{zone}')::date) OVER (ORDER BY t) AS last_day \
         FROM tallymark.steps_of('15 minutes', 'UTC', 0, '{change}'::timestamptz - interval '36 hours', \
         '{change}'::timestamptz + interval '36 hours', '1 day', '{zone}') s, \
         generate_series(s.starts[1], s.starts[array_upper(s.starts, 1)] - interval '1 s', '15 minutes') t) \
         SELECT CASE WHEN NOT EXISTS (SELECT FROM at WHERE day < last_day) THEN \
         (SELECT count(*) FROM (SELECT FROM at GROUP BY step HAVING count(DISTINCT day) > 1) x) \
         + (SELECT count(*) FROM (SELECT FROM at GROUP BY day HAVING count(DISTINCT step) > 1) y) END",
        change = change.to_rfc3339(),
    );
    let query = sqlx::query_scalar::<_, Option<i64>>(AssertSqlSafe(sql));
    // An error is right where the calendar says so, which is compared elsewhere.
    let found = query.fetch_one(&world.target).await.ok().flatten();
    assert_eq!(found.unwrap_or(0), 0, "{zone} {change}");
    found.is_some()
}

#[tokio::test]
async fn in_every_zone_steps_are_the_slices_of_a_rollup_there() {
    let world =
        World::new(crate::support::world::EVENTS, Setup { rollups: DAILY, ..Setup::default() })
            .await;
    let played = if share::is_whole() { TZ_VARIANTS.len() } else { ZONES };
    let (mut known, mut tried, mut grouped) = (0, 0, 0);
    for place in share::order("the zones of series", TZ_VARIANTS.len()) {
        let zone = TZ_VARIANTS[place];
        let offsets = sampled(zone);
        if !is_known(&world, zone, &offsets).await {
            continue;
        }
        let (since, until) = (instant("1970-02-03T05:00:00Z"), instant("2037-12-30T00:00:00Z"));
        let width = WIDE[fastrand::usize(..WIDE.len())];
        compare(&world, zone, width, since, until).await;
        let changes: Vec<_> = offsets.windows(2).filter(|pair| pair[0].1 != pair[1].1).collect();
        let mut random = Rng::new();
        let taken = if share::is_whole() { changes.len() } else { changes.len().min(CHANGES) };
        for pair in random.choose_multiple(changes.into_iter(), taken) {
            let at = pair[0].0;
            let since = at - TimeDelta::minutes(random.i64(0..5_000));
            let until = at + TimeDelta::minutes(random.i64(1_500..5_000));
            compare(&world, zone, NARROW[random.usize(..NARROW.len())], since, until).await;
            let exact = (0..43_200).map(|second| at + TimeDelta::seconds(second));
            let exact = exact.into_iter().find(|it| offset(zone, *it) != pair[0].1);
            if exact.is_none_or(|exact| exact.timestamp() % BUCKET == 0) {
                grouped += usize::from(equals_group_by(&world, zone, at).await);
            }
        }
        (known, tried) = (known + 1, tried + taken);
        if known == played {
            break;
        }
    }
    println!("{known} zones, {tried} changes of clocks, {grouped} of them beside a GROUP BY");
    assert!(known >= ZONES, "the server has other rules than this program");
}
