//! One line a rollup: its state, how far it is complete, and when it goes on.

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::Control;
use crate::cli::ui::{self, Paint};
use crate::model::rollup::Rollup;
use crate::model::visible;
use crate::work::due::{Plan, Standing};
use crate::work::identity;
use crate::work::worker::Worker;

/// A rollup's name is cut at the terminal's width, but never below this.
const NAME_MIN: usize = 12;

/// The state of one rollup in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Overview {
    pub(in crate::cli) name: String,
    pub(in crate::cli) state: RollupState,
    /// Every slice before this instant has succeeded.
    pub(in crate::cli) complete_through: DateTime<Utc>,
    pub(in crate::cli) lag: TimeDelta,
    /// Slices that failed and have yet to succeed.
    pub(in crate::cli) failing: usize,
    /// The other slices that are over and have yet to succeed.
    pub(in crate::cli) left: usize,
    /// When the rollup has work: now, or later. `None`: once finer slices are done.
    pub(in crate::cli) next_due: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

/// What an operator should know of a rollup first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum RollupState {
    /// A restore may have lost rows or late changes that were counted.
    Unproven,
    Failing,
    Paused,
    /// Slices that are over have yet to succeed, and a worker has one of them.
    Running,
    /// Slices that are over have yet to succeed.
    Behind,
    Ok,
}

impl RollupState {
    pub(in crate::cli) const fn word(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Failing => "failing",
            Self::Paused => "paused",
            Self::Running => "running",
            Self::Behind => "behind",
            Self::Ok => "ok",
        }
    }

    pub(in crate::cli) const fn paint(self) -> Paint {
        match self {
            Self::Unproven | Self::Failing => Paint::Alarm,
            Self::Paused | Self::Behind => Paint::Yellow,
            Self::Running => Paint::Cyan,
            Self::Ok => Paint::Green,
        }
    }
}

impl Overview {
    /// The state of `rollup` by its plan from the watermark on.
    pub(in crate::cli) fn new(
        worker: &Worker,
        rollup: &Rollup,
        plan: &Plan,
        control: &Control,
        now: DateTime<Utc>,
    ) -> Self {
        let count = |of: fn(Standing) -> bool| {
            plan.slices.iter().filter(|planned| of(planned.standing)).count()
        };
        let failing = count(is_failing);
        let left = count(|standing| {
            let waits = matches!(standing, Standing::Open | Standing::NotEnded);
            !is_failing(standing) && !standing.is_done() && !waits
        });
        let state = if identity::unproven(worker, rollup).is_some() {
            RollupState::Unproven
        } else if failing > 0 {
            RollupState::Failing
        } else if control.paused(&rollup.name, false, now).is_some() {
            RollupState::Paused
        } else if count(|standing| standing == Standing::Running) > 0 {
            RollupState::Running
        } else if left > 0 {
            RollupState::Behind
        } else {
            RollupState::Ok
        };
        let is_due = plan.due().next().is_some();
        let is_blocked = count(|standing| standing == Standing::Blocked) > 0;
        let later = || (!is_blocked).then(|| plan.next_due(rollup, now).max(now));
        let next_due = if is_due { Some(now) } else { later() };
        let complete_through = plan.watermark;
        let (name, lag) = (rollup.name.clone(), now - complete_through);
        Self { name, state, complete_through, lag, failing, left, next_due, now }
    }

    /// The fields that it adds to the rollup's document.
    pub(super) fn add_to(&self, document: &mut serde_json::Value) {
        document["state"] = serde_json::json!(self.state);
        document["failing"] = self.failing.into();
        document["left"] = self.left.into();
        document["next_due"] = serde_json::json!(self.next_due);
    }

    /// What is worth a further line of a log: everything but the passing time.
    pub(super) fn line(&self) -> String {
        format!(
            "{}: {}, complete through {}, {} failing, {} left",
            visible::line(&self.name),
            self.state.word(),
            minute(self.complete_through),
            ui::count(self.failing),
            ui::count(self.left),
        )
    }

    /// The texts of [`TITLES`].
    pub(in crate::cli) fn cells(&self) -> [String; 7] {
        let due = match self.next_due.map(|at| at - self.now) {
            Some(wait) if wait > TimeDelta::zero() => format!("in {}", roughly(wait)),
            Some(_) => "now".to_owned(),
            None => "blocked".to_owned(),
        };
        [
            visible::line(&self.name).into_owned(),
            self.state.word().to_owned(),
            minute(self.complete_through),
            roughly(self.lag),
            ui::count(self.failing),
            ui::count(self.left),
            due,
        ]
    }
}

/// Whether a slice failed and has yet to succeed.
const fn is_failing(standing: Standing) -> bool {
    matches!(standing, Standing::Retry | Standing::Waiting | Standing::Exhausted)
}

pub(in crate::cli) const TITLES: [&str; 7] =
    ["rollup", "state", "complete through", "lag", "failing", "left", "next due"];

/// The columns of numbers.
pub(in crate::cli) const IS_RIGHT: [bool; 7] = [false, false, false, false, true, true, false];

/// The column that a narrow terminal goes without, as the lag says the same.
const COMPLETE: usize = 2;

/// A line for each rollup below a heading, within `width` columns. `None`: names stay whole.
pub(super) fn table(rollups: &[Overview], width: Option<usize>) -> String {
    let rows: Vec<_> = rollups.iter().map(Overview::cells).collect();
    let mut widths = TITLES.map(ui::width);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(ui::width(cell));
        }
    }
    let others = |without: Option<usize>| -> usize {
        (1..widths.len()).filter(|it| Some(*it) != without).map(|it| widths[it] + 2).sum()
    };
    let fits = |width: usize| others(None) + widths[0].min(NAME_MIN) <= width;
    let hidden = width.filter(|width| !fits(*width)).map(|_| COMPLETE);
    if let Some(width) = width {
        widths[0] = widths[0].min(width.saturating_sub(others(hidden)).max(NAME_MIN));
    }
    let line = |cells: &[String], paints: &dyn Fn(usize) -> Option<Paint>| {
        let shown = (0..cells.len()).filter(|place| Some(*place) != hidden);
        let cells = shown.map(|place| {
            let cell = console::truncate_str(&cells[place], widths[place], "…");
            let gap = " ".repeat(widths[place].saturating_sub(ui::width(&cell)));
            let gap = if place + 1 == cells.len() { String::new() } else { gap };
            let cell = match paints(place) {
                Some(paint) => ui::paint(paint, cell),
                None => cell.into_owned(),
            };
            if IS_RIGHT[place] { gap + &cell } else { cell + &gap }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    let mut lines = vec![line(&TITLES.map(str::to_owned), &|_| Some(Paint::Bold))];
    lines.extend(
        rollups.iter().zip(&rows).map(|(rollup, cells)| {
            line(cells, &|place| (place == 1).then(|| rollup.state.paint()))
        }),
    );
    lines.join("\n")
}

/// An instant to the minute: `2026-02-10T00:00Z`.
fn minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%MZ").to_string()
}

/// A length of time in its largest unit.
pub(in crate::cli) fn roughly(time: TimeDelta) -> String {
    let seconds = time.num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overview(name: &str, state: RollupState, lag: i64) -> Overview {
        let now = "2026-02-11T02:00:00Z".parse().expect("an instant");
        Overview {
            name: name.to_owned(),
            state,
            complete_through: now - TimeDelta::seconds(lag),
            lag: TimeDelta::seconds(lag),
            failing: 12,
            left: 8_760,
            next_due: Some(now + TimeDelta::minutes(59)),
            now,
        }
    }

    #[test]
    fn a_rollup_is_one_line_that_fits_the_terminal() {
        let rollups = [
            overview("daily", RollupState::Ok, 7_200),
            overview("orders_by_country_and_plan_hourly", RollupState::Unproven, 40_000_000),
        ];
        for width in [60, 80, 120] {
            let text = table(&rollups, Some(width));
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(text.lines().all(|line| ui::width(line) <= width), "{width}: {text}");
            assert_eq!(text.contains("2026-02-11T00:00Z"), width >= 80, "{text}");
        }
        let whole = table(&rollups, None);
        assert!(whole.contains("orders_by_country_and_plan_hourly"), "{whole}");
        assert!(whole.contains("462 d") && whole.contains("in 59 min"), "{whole}");
    }
}
