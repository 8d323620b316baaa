//! Planted trouble of every kind, and years without any. What ticks see is given here. What follows
//! from it is the code of ticks.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::expected::Total;
use super::incident::{Judged, Kind, Notice, Phase, Sighting, Told};
use super::newest::{self, Numbers};
use super::numbers::{DAYS, Past};
use super::{is_sign_of_life, observe};
use crate::clients::db::{DbError, Side};
use crate::config::Config;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::reading::shape::ShapeError;
use crate::target::ddl::DdlError;
use crate::work::report::{RollupProblem, SeenRollup, TickReport};
use crate::work::worker::WorkError;

const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;

/// A tick comes every five minutes.
const EVERY: usize = 5;

/// A Tuesday.
fn at(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_681_600, 0).unwrap() + TimeDelta::minutes(minute)
}

fn rollup(slice: &str) -> Rollup {
    let text = format!(
        r#"
        source.url = "postgres://app@db/shop"
        [[rollup]]
        name = "daily"
        from = "public.events"
        time = "at"
        start = "2025-01-01"
        slice = "{slice}"
        measures = {{ events = "count" }}
        expect = {{ events = {{ min = 1, max = 1000, drop = "50%" }} }}
        "#
    );
    Config::parse(Path::new("tallymark.toml"), &text, &|_| None).unwrap().rollups.remove(0)
}

/// What a tick sees of a rollup of days.
struct Site {
    rollup: Rollup,
    seen: SeenRollup,
    problems: Vec<RollupProblem>,
    drift: BTreeSet<DateTime<Utc>>,
    /// The source rows of the newest slice, and the sum of its measure.
    rows: u64,
    events: f64,
}

impl Site {
    fn well() -> Self {
        Self {
            rollup: rollup("1 day"),
            seen: SeenRollup { rollup: "daily".to_owned(), ..SeenRollup::default() },
            problems: Vec::new(),
            drift: BTreeSet::new(),
            rows: 240,
            events: 240.0,
        }
    }

    fn fails(&mut self, error: &WorkError) {
        self.problems.push(RollupProblem::new("daily", error));
    }

    /// Late changes may be missed.
    fn misses(&mut self, facts: &str) {
        let error = WorkError::Usage(Fault::new(facts).remedy("run `tallymark capture install`"));
        self.problems.push(RollupProblem::of_late_changes("daily", &error));
    }

    /// Slices that have yet to succeed.
    fn lacks(&mut self, days: &[i64]) -> BTreeSet<DateTime<Utc>> {
        let starts: BTreeSet<_> = days.iter().map(|day| at(-DAY * day)).collect();
        self.seen.undone.clone_from(&starts);
        starts
    }

    /// Each day's slice is judged by the first tick after its end.
    fn sighting(&self, minute: i64, before: Option<Judged>) -> Sighting {
        let mut sighting = observe::of_slices(&self.seen);
        observe::under_way(&self.seen, &mut sighting);
        sighting.looked_for.insert(Kind::Drift);
        observe::drifted(self.drift.clone(), &mut sighting);
        if minute % DAY == 0 {
            let slice = self.rollup.calendar.containing(at(minute - 1));
            let past = past(|days_ago| if matches!(days_ago % 7, 2 | 3) { 120 } else { 240 });
            let limits = &self.rollup.expect.limits[0];
            let totals = vec![Total { limits, now: self.events, past: vec![240.0; 8] }];
            newest::judge(
                &numbers(&self.rollup, slice, self.rows, past, totals),
                before,
                &mut sighting,
            );
        }
        self.problems.iter().for_each(|problem| observe::add(&mut sighting, problem));
        observe::close(&mut sighting, false);
        sighting
    }
}

fn past(rows: impl Fn(u16) -> u64) -> Vec<Past> {
    (1..=DAYS).map(|days_ago| Past { days_ago, rows: rows(days_ago) }).collect()
}

fn numbers<'l>(
    rollup: &Rollup,
    slice: Slice,
    rows: u64,
    past: Vec<Past>,
    totals: Vec<Total<'l>>,
) -> Numbers<'l> {
    let previous = rollup.calendar.previous(slice).start();
    Numbers { slice, previous, rows, past: Some(past), totals }
}

/// What a tick sends.
fn send(told: &mut Told, minute: i64) -> Vec<(i64, Notice)> {
    let sent = told.take("worker", at(minute));
    told.release("worker", &sent, 0);
    sent.into_iter().map(|notice| (minute, notice)).collect()
}

/// What is told of trouble that lasts a day, with a day before and after it.
fn told_of(plant: fn(&mut Site, i64)) -> Vec<(i64, Notice)> {
    let mut told = Told::default();
    let mut all = Vec::new();
    for minute in (-DAY..=2 * DAY).step_by(EVERY) {
        let mut site = Site::well();
        if (0..DAY).contains(&minute) {
            plant(&mut site, minute);
        }
        let before = told.judged("daily");
        told.judge(&site.sighting(minute, before), at(minute));
        all.extend(send(&mut told, minute));
    }
    all
}

fn unfit(facts: &str) -> WorkError {
    let problem = Fault::new(facts).remedy("run `tallymark check`");
    WorkError::Shape(ShapeError::Unfit { rollup: "daily".to_owned(), problem })
}

fn silent(side: Side) -> WorkError {
    WorkError::Db(DbError::silent(side, "connecting", Duration::from_secs(5)))
}

/// Trouble, the kind of its incident, when that is told at the latest (in minutes), and words of its
/// text and its remedy.
type Planted = (&'static str, Kind, i64, [&'static str; 2], fn(&mut Site, i64));

const LOOK: &str = "tallymark status daily";
const CHECK: &str = "tallymark check daily";
const UNUSUAL: &str = "about 240 are usual";

/// The newest slice's numbers.
const OF_NUMBERS: [Planted; 7] = [
    ("most rows are missing", Kind::Numbers, 10, ["24 source rows", LOOK], |it, _| it.rows = 24),
    ("no row came", Kind::Numbers, 10, ["0 source rows", LOOK], |it, _| it.rows = 0),
    ("a spike", Kind::Numbers, 10, [UNUSUAL, LOOK], |it, _| it.rows = 1_500),
    ("rows twice", Kind::Numbers, 10, [UNUSUAL, LOOK], |it, _| it.rows = 480),
    ("too little", Kind::Numbers, 10, ["at least 1 is expected", LOOK], |it, _| it.events = 0.0),
    ("too much", Kind::Numbers, 10, ["at most 1000 is", LOOK], |it, _| it.events = 1e4),
    ("a drop", Kind::Numbers, 10, ["more than 50 % below", LOOK], |it, _| it.events = 90.0),
];

/// Slices, backfills and proofs.
const OF_SLICES: [Planted; 6] = [
    (
        "a value that cannot be cast",
        Kind::Exhausted,
        10,
        ["2 slices", "replay daily --failed"],
        |it, _| {
            it.seen.exhausted = it.lacks(&[1, 2]);
        },
    ),
    (
        "statements that run into their limit",
        Kind::Failing,
        HOUR + 10,
        ["2 slices", LOOK],
        |it, _| {
            it.seen.failing = it.lacks(&[1, 2]);
        },
    ),
    ("an open transaction", Kind::Behind, 2 * HOUR + 10, ["is behind", LOOK], |it, _| {
        it.lacks(&[1]);
    }),
    (
        "workers too few",
        Kind::Behind,
        2 * HOUR + 10,
        ["58 slices to be computed", LOOK],
        |it, minute| {
            // The newest are done one by one, and the oldest stays.
            let days: Vec<_> = (1 + minute / HOUR..60).chain([400]).collect();
            it.lacks(&days);
        },
    ),
    (
        "a backfill without a worker",
        Kind::Stuck,
        2 * HOUR + 10,
        ["3 slices", "backfill status"],
        |it, _| {
            it.lacks(&[7, 8, 9]);
            it.seen.backfill = Some("b1".to_owned());
        },
    ),
    (
        "rows that were changed behind its back",
        Kind::Drift,
        10,
        ["2 slices", "verify daily --repair"],
        |it, _| {
            it.drift = [at(-9 * DAY), at(-8 * DAY)].into();
        },
    ),
];

/// Servers, privileges, tables and triggers.
const OF_SERVERS: [Planted; 12] = [
    ("the source is gone", Kind::Stopped, 20, ["out of reach", CHECK], |it, _| {
        it.fails(&silent(Side::Source));
    }),
    ("a full disk, or a replica", Kind::Stopped, 20, ["full or read-only", CHECK], |it, _| {
        it.fails(&silent(Side::Target));
    }),
    ("no time left", Kind::Stopped, 20, ["out of reach", CHECK], |it, _| {
        it.fails(&WorkError::OutOfTime("reading the checkpoints"));
    }),
    ("a revoked grant", Kind::Stopped, 20, ["privilege does not fit", CHECK], |it, _| {
        it.fails(&unfit("public.events: the role lacks SELECT"));
    }),
    ("a column of another type", Kind::Stopped, 20, ["does not fit", CHECK], |it, _| {
        it.fails(&unfit("column amount is text, which cannot be added up"));
    }),
    ("a column that is gone", Kind::Stopped, 20, ["does not fit", CHECK], |it, _| {
        it.fails(&unfit("there is no column amount"));
    }),
    ("a dropped table", Kind::Stopped, 20, ["does not fit", CHECK], |it, _| {
        let rollup = "daily".to_owned();
        it.fails(&WorkError::Ddl(DdlError::NotReady { rollup }));
    }),
    ("another's table", Kind::Stopped, 20, ["does not fit", CHECK], |it, _| {
        let (rollup, table) = ("daily".to_owned(), "stats.daily".to_owned());
        let problem = Fault::new("lacks column events");
        it.fails(&WorkError::Ddl(DdlError::Incompatible { rollup, table, problem }));
    }),
    ("another's checkpoints", Kind::Stopped, 20, ["does not fit", CHECK], |it, _| {
        it.fails(&WorkError::Stranger(Fault::new("the checkpoints are of another installation")));
    }),
    (
        "a missing trigger",
        Kind::Capture,
        10,
        ["missing; run `tallymark capture install`", "capture status"],
        |it, _| {
            it.misses("the trigger is missing");
        },
    ),
    ("a forgotten consumer", Kind::Capture, 10, ["consumer", "capture status"], |it, _| {
        it.misses("the consumer was forgotten");
    }),
    ("a restore", Kind::Capture, 10, ["verify daily --repair", "capture status"], |it, _| {
        let problem = RollupProblem::of_unproven(&it.rollup, "the source went back");
        it.problems.push(problem);
    }),
];

#[test]
fn each_planted_trouble_is_told_once_in_time_with_its_remedy_and_so_is_its_end() {
    let all = [&OF_NUMBERS[..], &OF_SLICES, &OF_SERVERS].concat();
    assert!(all.len() >= 20, "{}", all.len());
    for (name, kind, latest, words, plant) in all {
        let mut told = told_of(plant);
        // A backfill that was stuck ends at last.
        told.retain(|(_, notice)| kind == Kind::Backfill || notice.kind != Kind::Backfill);
        let [(begun, begin), (ended, end)] = &told[..] else { panic!("{name}: {told:#?}") };
        assert_eq!((begin.kind, begin.phase), (kind, Phase::Begin), "{name}");
        assert_eq!((end.kind, end.phase), (kind, Phase::End), "{name}");
        assert!((0..=latest).contains(begun), "{name}: told after {begun} minutes");
        assert!((DAY..=DAY + 10).contains(ended), "{name}: ended after {ended} minutes");
        let command = begin.command.as_deref().unwrap_or_default();
        assert!(begin.text.contains(words[0]), "{name}: {}", begin.text);
        assert!(command.contains(words[1]), "{name}: {command}");
        assert_eq!(begin.since, end.since, "{name}");
    }
}

#[test]
fn the_end_of_a_backfill_is_told() {
    let told = told_of(|it, minute| {
        it.seen.backfill = Some("b1".to_owned());
        let days: Vec<_> = (minute / HOUR..24).collect();
        it.lacks(&days);
    });
    let told: Vec<_> = told.iter().map(|(minute, it)| (*minute, it.kind, it.phase)).collect();
    assert_eq!(told, [(DAY, Kind::Backfill, Phase::End)]);
}

/// A tick that dies asks for nothing, and one that could not work on a rollup says so.
#[test]
fn a_tick_that_could_not_work_gives_no_sign_of_life() {
    let report = |problems| TickReport { problems, ..TickReport::default() };
    let mut site = Site::well();
    assert!(is_sign_of_life(&report(Vec::new()), true));
    assert!(!is_sign_of_life(&report(Vec::new()), false), "other rollups may be dead");
    site.misses("the trigger is missing");
    assert!(is_sign_of_life(&report(std::mem::take(&mut site.problems)), true));
    site.fails(&silent(Side::Source));
    assert!(!is_sign_of_life(&report(site.problems), true));
}

/// A rollup of hours as ticks judge it.
struct Hours {
    rollup: Rollup,
    told: Told,
    notices: Vec<(i64, Notice)>,
}

impl Hours {
    fn new() -> Self {
        Self { rollup: rollup("1 hour"), told: Told::default(), notices: Vec::new() }
    }

    /// The hour that ends at `minute` has these rows.
    fn judge(&mut self, minute: i64, rows: u64, past: Vec<Past>) {
        let slice = self.rollup.calendar.containing(at(minute - 1));
        let mut sighting = Sighting { rollup: "daily".to_owned(), ..Sighting::default() };
        let numbers = numbers(&self.rollup, slice, rows, past, Vec::new());
        newest::judge(&numbers, self.told.judged("daily"), &mut sighting);
        self.told.judge(&sighting, at(minute));
        self.notices.extend(send(&mut self.told, minute));
    }
}

/// The part of the busiest hour's traffic: little at night, most in the afternoon.
fn part_of_day(hour: i64, night: f64) -> f64 {
    let hours = u8::try_from((hour - 3).rem_euclid(24)).unwrap();
    let wave = (1.0 - (f64::from(hours) / 12.0 * std::f64::consts::PI).cos()) / 2.0;
    night + (1.0 - night) * wave
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn count(mean: f64) -> u64 {
    mean.round().max(0.0) as u64
}

/// Some hours of each day look right even then.
#[test]
fn hours_in_another_zone_are_told_once_and_their_end_after_a_right_day() {
    for slip in [-8, -5, 3, 6, 9] {
        let mut hours = Hours::new();
        for hour in -30..80 {
            let slipped = if (0..40).contains(&hour) { hour - slip } else { hour };
            let weekend = |days_ago: u16| if matches!(days_ago % 7, 2 | 3) { 0.6 } else { 1.0 };
            let usual = |hour| 1_000.0 * part_of_day(hour, 0.1);
            let past = past(|days_ago| count(usual(hour) * weekend(days_ago)));
            hours.judge((hour + 1) * HOUR, count(usual(slipped)), past);
        }
        let phases: Vec<_> = hours.notices.iter().map(|(_, it)| it.phase).collect();
        assert_eq!(phases, [Phase::Begin, Phase::End], "{slip}: {:?}", hours.notices);
        let (begun, ended) = (hours.notices[0].0, hours.notices[1].0);
        assert!((1..=15 * HOUR).contains(&begun), "{slip}: {begun}");
        assert!((40 * HOUR..=65 * HOUR).contains(&ended), "{slip}: {ended}");
    }
}

/// A year of hours of a site with nights, weekends, a dozen holidays, growth and noise.
fn year(random: &mut fastrand::Rng) -> Vec<u64> {
    let mut normal = {
        let mut random = random.fork();
        move || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
    };
    let base = 10.0_f64.powf(1.5 + 2.5 * random.f64());
    let growth = 1.0 + 2.0 * random.f64();
    let weekend = [0.4, 0.8, 1.0, 1.8][random.usize(..4)];
    let (night, noise) = (0.02 + 0.3 * random.f64(), 0.1 * random.f64());
    let mut rows = Vec::new();
    for day in 0..365_u16 {
        let is_holiday = day > 60 && random.u32(..25) == 0;
        let level = match day % 7 {
            5 => f64::midpoint(1.0, weekend),
            6 => weekend,
            _ if is_holiday => weekend * (0.85 + 0.3 * random.f64()),
            _ => 1.0,
        };
        let grown = growth.powf(f64::from(day) / 365.0) * (noise * normal()).exp();
        for hour in 0..24 {
            let mean = base * level * grown * part_of_day(hour, night) * (noise * normal()).exp();
            rows.push(count(mean + mean.sqrt() * normal()));
        }
    }
    rows
}

#[test]
fn a_clean_year_of_hours_has_no_false_alarm() {
    for seed in 0..20 {
        let rows = year(&mut fastrand::Rng::with_seed(seed));
        let mut hours = Hours::new();
        for (hour, own) in rows.iter().enumerate() {
            let earlier = |days_ago: u16| {
                let rows = *rows.get(hour.checked_sub(24 * usize::from(days_ago))?)?;
                Some(Past { days_ago, rows })
            };
            let past = (1..=DAYS).filter_map(earlier).collect();
            hours.judge((i64::try_from(hour).unwrap() + 1) * HOUR, *own, past);
        }
        assert!(hours.notices.is_empty(), "seed {seed}: {:?}", hours.notices);
    }
}
