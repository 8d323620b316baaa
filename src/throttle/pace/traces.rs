//! The law replayed against recorded traces: looks at a PostgreSQL 15 on two processors, about a
//! tenth of a second apart. The columns of a trace are those of look.sql: the server's clock, the
//! length of a nap and of the probe, transactions and blocks so far, and sessions in a transaction.
//! A worker waits for an answer at least as long as the server naps three times and counts.

use proptest::prelude::*;

use super::look::{Look, Looks};
use super::quiet::{Quiet, Recent};
use super::*;

/// No other work. This trace, the next one and that of the disks have real-time priority, as the
/// machine had other work.
const QUIET: &str = include_str!("traces/quiet.txt");

/// An application that uses a quarter of the machine.
const APPLICATION: &str = include_str!("traces/application.txt");

/// Eight clients that ask as fast as they can.
const SATURATED: &str = include_str!("traces/saturated.txt");

/// Two programs that are no sessions of the server use both processors.
const OUTSIDE: &str = include_str!("traces/outside.txt");

/// One session that reads tables which the server's cache does not hold.
const DISKS: &str = include_str!("traces/disks.txt");

/// The baseline of the server on which the traces were recorded.
const BASELINE: Quiet = Quiet { nap_ms: Some(1.07), probe_ms: Some(4.7), answer_ms: None };

/// The rest of an answer: its way, and the server's other work for it.
const WAY_MS: f64 = 1.0;

fn looks(trace: &str) -> Vec<Look> {
    let look = |line: &str| {
        let numbers: Vec<f64> = line.split(' ').map(|it| it.parse().unwrap()).collect();
        let &[at, nap_ms, probe_ms, transactions, blocks, sessions] = numbers.as_slice() else {
            panic!("{line}");
        };
        Look {
            at,
            nap_ms: Some(nap_ms),
            probe_ms: Some(probe_ms),
            answer_ms: Some(nap_ms.mul_add(3.0, probe_ms) + WAY_MS),
            transactions: Some(transactions),
            blocks: Some(blocks),
            sessions: Some(sessions),
            ..Look::default()
        }
    };
    trace.lines().map(look).collect()
}

/// The courses after each look of a new process, with this baseline in the store.
fn courses(looks: &[Look], stored: Quiet, nice_min: f64) -> Vec<Course> {
    let (mut seen_so_far, mut recent) = (Looks::default(), Recent::default());
    let mut course = Course::default();
    let next = |look: &Look| {
        let seen = seen_so_far.add(*look);
        recent.add(&seen);
        course = course.next(&seen, &stored.or_lower(recent.quiet()), nice_min);
        course
    };
    looks.iter().map(next).collect()
}

/// The share of the looks after the first two seconds after which the pace is one of `ratios`.
fn share(looks: &[Look], stored: Quiet, ratios: std::ops::RangeInclusive<f64>) -> f64 {
    let begin = looks[0].at + 2.0;
    let all = looks.iter().zip(courses(looks, stored, 0.0));
    let late: Vec<_> = all.filter(|(look, _)| look.at >= begin).collect();
    assert!(late.len() >= 8, "{} looks", late.len());
    let found = late.iter().filter(|(_, course)| ratios.contains(&course.ratio)).count();
    found as f64 / late.len() as f64
}

/// Each look with some of its signals replaced by those of a quiet server.
fn lying(looks: &[Look], about: impl Fn(&mut Look, &Look)) -> Vec<Look> {
    let quiet = self::looks(QUIET);
    let lie = |(look, calm): (&Look, &Look)| {
        let mut lied = *look;
        about(&mut lied, calm);
        lied
    };
    looks.iter().zip(quiet.iter().cycle()).map(lie).collect()
}

#[test]
fn each_process_starts_slow_and_a_quiet_server_is_read_without_rests_within_two_seconds() {
    for stored in [BASELINE, Quiet::default()] {
        let looks = looks(QUIET);
        let courses = courses(&looks, stored, 0.0);
        assert_eq!((courses[0].ratio, courses[8].ratio), (SLOW, SLOW));
        let at = |ratio: f64| {
            let place = courses.iter().position(|course| course.ratio <= ratio).unwrap();
            looks[place].at - looks[0].at
        };
        assert!(at(BESIDE_OTHERS) <= at(0.0) && at(0.0) < 2.5, "{} s", at(0.0));
        assert!(share(&looks, stored, 0.0..=0.0) > 0.5);
    }
}

/// A slow statement follows where the looks end, so they go on after a moment and end in strain.
#[test]
fn looks_go_on_after_a_moment_of_strain() {
    let mut looks = looks(QUIET);
    let first = looks.len() - 6;
    for (count, is_rising) in [(1, true), (2, true), (3, false)] {
        for look in &mut looks[first..first + count] {
            look.probe_ms = Some(9.0);
        }
        let courses = courses(&looks, BASELINE, 0.0);
        assert_eq!(courses[first + count - 1].is_rising(), is_rising, "{count}");
        assert!(courses[first + count + 2].is_rising() || courses[first + count + 2].is_fast());
    }
}

#[test]
fn beside_an_application_on_a_calm_server_the_pace_is_the_one_beside_others() {
    let looks = looks(APPLICATION);
    assert!(share(&looks, BASELINE, BESIDE_OTHERS..=BESIDE_OTHERS) > 0.7);
    assert!(share(&looks, BASELINE, 0.0..=11.9) == 0.0);
}

#[test]
fn on_busy_processors_the_pace_is_slow_whatever_one_clock_says() {
    let liars: [fn(&mut Look, &Look); 10] = [
        |_, _| {},
        |look, calm| look.nap_ms = calm.nap_ms,
        |look, calm| look.probe_ms = calm.probe_ms,
        |look, calm| (look.nap_ms, look.probe_ms) = (calm.nap_ms, calm.probe_ms),
        |look, calm| look.answer_ms = calm.answer_ms,
        |look, _| look.nap_ms = Some(1.0),
        |look, _| look.probe_ms = Some(4.7),
        |look, _| (look.nap_ms, look.probe_ms) = (Some(1.0), Some(4.7)),
        // A clock that moves once in a while.
        |look, _| (look.nap_ms, look.probe_ms) = (Some(0.0), Some(0.0)),
        |look, _| look.answer_ms = Some(9.0),
    ];
    for trace in [SATURATED, OUTSIDE] {
        for (place, lie) in liars.iter().enumerate() {
            let looks = lying(&looks(trace), lie);
            assert!(share(&looks, BASELINE, SLOW..=SLOW) == 1.0, "{place}: {trace}");
            // Where load is all that a process has seen.
            assert!(share(&looks, Quiet::default(), SLOW..=SLOW) > 0.9, "{place}: {trace}");
        }
    }
}

#[test]
fn what_never_changes_counts_as_unseen_on_a_quiet_server_too() {
    let stuck: [fn(&mut Look, &Look); 4] = [
        |look, _| look.nap_ms = Some(1.0),
        |look, _| look.probe_ms = Some(4.7),
        |look, _| look.transactions = Some(0.0),
        |look, _| (look.nap_ms, look.probe_ms) = (Some(0.0), Some(16.0)),
    ];
    for stuck in stuck {
        for trace in [QUIET, APPLICATION] {
            let looks = lying(&looks(trace), stuck);
            assert!(share(&looks, BASELINE, SLOW..=SLOW) == 1.0);
        }
    }
}

#[test]
fn blocks_that_others_miss_make_the_pace_slow_where_naps_and_probe_see_nothing() {
    let looks = looks(DISKS);
    let is_calm = |look: &Look| look.probe_ms < Some(6.0) && look.nap_ms < Some(1.5);
    assert!(looks.iter().filter(|look| is_calm(look)).count() * 10 > looks.len() * 9);
    assert!(share(&looks, BASELINE, SLOW..=SLOW) == 1.0);
}

#[test]
fn a_blind_look_at_any_signal_keeps_the_pace_slow() {
    let blind: [fn(&mut Look); 6] = [
        |look| look.nap_ms = None,
        |look| look.probe_ms = None,
        |look| look.answer_ms = None,
        |look| look.transactions = None,
        |look| look.blocks = None,
        |look| look.sessions = None,
    ];
    for blind in blind {
        for trace in [QUIET, APPLICATION] {
            let looks = lying(&looks(trace), |look, _| blind(look));
            assert!(share(&looks, BASELINE, SLOW..=SLOW) == 1.0);
        }
    }
}

#[test]
fn others_that_arrive_are_seen_at_the_next_look_that_shows_them() {
    let (quiet, arriving) = (looks(QUIET), looks(APPLICATION));
    let last = *quiet.last().unwrap();
    let after = |look: &Look| Look {
        at: look.at - arriving[0].at + last.at + 0.1,
        transactions: look.transactions.zip(last.transactions).map(|(a, b)| a + b),
        blocks: look.blocks.zip(last.blocks).map(|(a, b)| a + b),
        ..*look
    };
    let looks: Vec<_> = quiet.iter().copied().chain(arriving.iter().map(after)).collect();
    let courses = courses(&looks, BASELINE, 0.0);
    assert_eq!(courses[quiet.len() - 1].ratio, 0.0);
    let fallen = courses[quiet.len()..].iter().position(|course| course.ratio >= SLOW);
    let fallen = looks[quiet.len() + fallen.unwrap()].at - last.at;
    assert!(fallen < 1.5, "{fallen} s");
}

#[test]
fn no_pace_is_faster_than_the_configured_minimum() {
    let courses = courses(&looks(QUIET), BASELINE, 4.5);
    assert_eq!(courses.last().unwrap().ratio, 4.5);
    assert!(courses.iter().all(|course| course.ratio >= 4.5));
}

fn seen() -> impl Strategy<Value = Seen> {
    let value = || {
        prop_oneof![
            4 => (0.0..3.0_f64).prop_map(Some),
            2 => any::<f64>().prop_map(Some),
            1 => Just(None),
        ]
    };
    (value(), value(), value(), value(), value(), value()).prop_map(
        |(nap_ms, probe_ms, answer_ms, transactions, sessions, blocks)| Seen {
            nap_ms,
            probe_ms,
            answer_ms,
            transactions,
            sessions,
            blocks,
        },
    )
}

proptest! {
    /// Whatever is seen: the pace stays in its bounds, becomes fast only after eight looks in a row
    /// that showed a server without other work, and is slow at once where a look shows others, or
    /// too little, or strain a second time.
    #[test]
    fn the_pace_follows_from_what_was_seen(
        all in prop::collection::vec(seen(), 1..60),
        nice_min in 0.0..30.0_f64,
    ) {
        let quiet = Quiet { answer_ms: Some(0.0), ..BASELINE };
        let is_strained = |seen: &Seen| strain(seen, &quiet).is_some();
        let is_alone = |seen: &Seen| !is_strained(seen) && others(seen).is_none();
        let is_seen = |seen: &Seen| unseen(seen, &quiet).is_none();
        let mut course = Course::default();
        for (place, now) in all.iter().enumerate() {
            let before = course;
            course = course.next(now, &quiet, nice_min);
            prop_assert!((nice_min..=SLOW).contains(&course.ratio), "{course:?}");
            let last = |count: usize| all[..=place].iter().rev().take(count);
            if course.is_fast() && !before.is_fast() {
                prop_assert!(is_seen(now) && last(8).filter(|seen| is_alone(seen)).count() == 8);
            }
            let is_strained_twice = last(2).filter(|seen| is_strained(seen)).count() == 2;
            let has_arrived = before.is_fast() && others(now).is_some() && !is_strained(now);
            if !is_seen(now) || is_strained_twice || has_arrived {
                prop_assert_eq!(course.ratio, SLOW);
            }
        }
    }
}
