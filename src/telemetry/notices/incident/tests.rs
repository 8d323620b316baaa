use super::*;

fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_681_600, 0).unwrap() + TimeDelta::minutes(minutes)
}

/// The start of a day.
fn day(number: i64) -> DateTime<Utc> {
    at(1440 * number)
}

/// A tick that looked for everything, with the slices of each kind of trouble.
fn seen(undone: &[i64], troubles: &[(Kind, &[i64])]) -> Sighting {
    let days = |days: &[i64]| days.iter().map(|it| day(*it)).collect();
    let trouble = |(kind, slices): &(Kind, &[i64])| {
        let mark = match kind {
            Kind::Behind | Kind::Stuck | Kind::Backfill => format!("{slices:?}"),
            _ => String::new(),
        };
        Trouble { slices: days(slices), mark, ..Trouble::new(*kind) }
    };
    Sighting {
        rollup: "daily".to_owned(),
        looked_for: Kind::ALL.into(),
        troubles: troubles.iter().map(trouble).collect(),
        undone: days(undone),
        ended_backfill: None,
        judged: None,
    }
}

/// What a history of ticks tells, as minute, kind and phase.
fn history(ticks: &[(i64, Sighting)]) -> Vec<(i64, Kind, Phase)> {
    let mut told = Told::default();
    let mut all = Vec::new();
    for (minute, seen) in ticks {
        // Each tick reads what the one before it wrote.
        told = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
        told.judge(seen, at(*minute));
        let sent = told.take("worker", at(*minute));
        told.release("worker", &sent, 0);
        all.extend(sent.iter().map(|it| (*minute, it.kind, it.phase)));
    }
    all
}

#[test]
fn each_incident_is_told_once_with_its_end() {
    let exhausted = || seen(&[1, 2], &[(Kind::Exhausted, &[1, 2])]);
    let ticks = [
        (0, seen(&[], &[])),
        (5, exhausted()),
        (10, exhausted()),
        // More slices are the same incident.
        (15, seen(&[1, 2, 3], &[(Kind::Exhausted, &[1, 2, 3])])),
        // Reopened slices have yet to show that they are right.
        (20, seen(&[1, 3], &[])),
        (25, seen(&[], &[])),
        (30, seen(&[], &[])),
        (35, exhausted()),
    ];
    let (kind, begin, end) = (Kind::Exhausted, Phase::Begin, Phase::End);
    assert_eq!(history(&ticks), [(5, kind, begin), (25, kind, end), (35, kind, begin)]);
}

#[test]
fn trouble_that_passes_within_its_patience_is_not_told() {
    for (kind, minutes) in [
        (Kind::Stopped, 10),
        (Kind::Failing, 60),
        (Kind::Behind, 120),
        (Kind::Stuck, 120),
        (Kind::Capture, 0),
        (Kind::Exhausted, 0),
        (Kind::Drift, 0),
        (Kind::Numbers, 0),
    ] {
        let lasting = |until: i64| {
            let ticks = (0..until).step_by(5).map(|it| (it, seen(&[1], &[(kind, &[1])])));
            ticks.chain([(until, seen(&[], &[]))]).collect::<Vec<_>>()
        };
        if minutes > 0 {
            assert_eq!(history(&lasting(minutes)), [], "{kind:?}");
        }
        let told = [(minutes, kind, Phase::Begin), (minutes + 5, kind, Phase::End)];
        assert_eq!(history(&lasting(minutes + 5)), told, "{kind:?}");
    }
}

#[test]
fn progress_lets_the_patience_begin_again() {
    // Each hour's slice is late by 50 minutes, and then done.
    let one = |it: i64| (50 * it, seen(&[it], &[(Kind::Failing, &[it]), (Kind::Behind, &[it])]));
    let ticks: Vec<_> = (0..20).map(one).collect();
    assert_eq!(history(&ticks), []);
}

#[test]
fn a_slice_that_fails_until_it_is_exhausted_is_one_story() {
    let failing = |minute| (minute, seen(&[1], &[(Kind::Failing, &[1])]));
    let ticks = [
        failing(0),
        // Its worker has it for a while.
        (30, seen(&[1], &[])),
        failing(60),
        (90, seen(&[1], &[(Kind::Exhausted, &[1])])),
        (95, seen(&[], &[])),
    ];
    let told = history(&ticks);
    let (failing, exhausted) = (Kind::Failing, Kind::Exhausted);
    assert_eq!(told[..2], [(60, failing, Phase::Begin), (90, exhausted, Phase::Begin)]);
    let ends: Vec<_> = told[2..].iter().map(|it| (it.0, it.2)).collect();
    assert!(ends.contains(&(95, Phase::End)), "{told:?}");
}

#[test]
fn what_a_tick_did_not_look_for_stays_as_it_was() {
    let drift = seen(&[], &[(Kind::Drift, &[1])]);
    let blind = Sighting { looked_for: [Kind::Stopped].into(), ..seen(&[], &[]) };
    let ticks = [(0, drift), (5, blind), (10, seen(&[], &[]))];
    let kind = Kind::Drift;
    assert_eq!(history(&ticks), [(0, kind, Phase::Begin), (10, kind, Phase::End)]);
}

#[test]
fn of_a_backfill_its_end_is_told_and_that_it_is_stuck() {
    let running = |left: &[i64]| seen(&[], &[(Kind::Backfill, &[7]), (Kind::Stuck, left)]);
    let quick =
        [(0, running(&[3])), (60, running(&[2])), (120, running(&[1])), (180, seen(&[], &[]))];
    assert_eq!(history(&quick), [(180, Kind::Backfill, Phase::End)]);
    let slow =
        [(0, running(&[3])), (120, running(&[3])), (180, running(&[2])), (240, seen(&[], &[]))];
    let (stuck, end) = (Kind::Stuck, Phase::End);
    let told = [(120, stuck, Phase::Begin), (180, stuck, end), (240, Kind::Backfill, end)];
    assert_eq!(history(&slow), told);
}

#[test]
fn of_two_workers_one_sends_and_a_killed_one_leaves_its_notices() {
    let mut told = Told::default();
    told.judge(&seen(&[1], &[(Kind::Exhausted, &[1])]), at(0));
    let first = told.take("first", at(0));
    assert_eq!(first.len(), 1);
    assert_eq!(told.take("second", at(0)), []);
    // The first one never comes back.
    assert_eq!(told.take("second", at(1)), first);
    told.release("second", &first, 0);
    assert_eq!(told.take("third", at(5)), []);
    // It wakes late, and changes nothing.
    told.release("first", &first, 0);
    assert_eq!(told.outbox, []);
}

#[test]
fn a_receiver_that_is_down_for_long_misses_nothing_that_lasts() {
    let mut told = Told::default();
    for round in 0..2 * OUTBOX_MAX as i64 {
        let slice = [round];
        told.judge(&seen(&slice, &[(Kind::Drift, &slice)]), at(20 * round));
        told.judge(&seen(&[], &[]), at(20 * round + 10));
        // Every try fails.
        let taken = told.take("worker", at(20 * round + 10));
        assert!(!taken.is_empty());
        told.release("worker", &[], 0);
    }
    // An incident that is over is one notice.
    assert!(told.outbox.iter().all(|notice| notice.phase == Phase::End));
    assert_eq!((told.outbox.len(), told.dropped), (OUTBOX_MAX, OUTBOX_MAX as u64));
    let sent = told.take("worker", at(9_999));
    told.release("worker", &sent, told.dropped);
    assert_eq!((told.outbox.len(), told.dropped), (0, 0));
}

#[test]
fn a_text_has_the_numbers_and_the_command() {
    let mut told = Told::default();
    let slices = [1, 2, 3, 4, 5];
    let mut trouble = seen(&slices, &[(Kind::Exhausted, &slices), (Kind::Capture, &[])]);
    trouble.troubles[1].cause = Some("the trigger is disabled".to_owned());
    told.judge(&trouble, at(0));
    let [capture, exhausted] = &told.outbox[..] else { panic!("{told:?}") };
    assert_eq!(capture.text, "daily may miss late changes: the trigger is disabled");
    assert_eq!(
        exhausted.text,
        "5 slices of daily failed too often and wait for a replay: 2026-02-11T00:00:00Z, \
         2026-02-12T00:00:00Z, 2026-02-13T00:00:00Z and 2 more"
    );
    let command = exhausted.command.as_deref().unwrap();
    assert!(command.ends_with("tallymark replay daily --failed"), "{command}");
    told.take("worker", at(0));
    told.release("worker", &told.outbox.clone(), 0);
    told.judge(&seen(&[], &[]), at(125));
    assert_eq!(
        told.outbox[1].text,
        "no slice of daily is exhausted any more, 2 h 5 min after 2026-02-10T00:00:00Z"
    );
}
