//! The progress of long work: one line on a terminal, a line now and then elsewhere.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};

use super::{counted, fold, instant, note, number};
use crate::model::clock::Stopwatch;
use crate::model::visible;
use crate::throttle::Governor;
use crate::work::backfill::Listener;
use crate::work::report::SliceReport;

/// Shortest time between two lines of progress outside of a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of a batch: a bar on a terminal, or occasional lines in a log.
pub(crate) struct ProgressLine {
    bar: ProgressBar,
    state: Mutex<ProgressState>,
}

struct ProgressState {
    done: u64,
    /// Source rows. `None`: they are not counted.
    rows: Option<u64>,
    total: u64,
    printed: Stopwatch,
    waits: Option<String>,
    /// The pace that the governor has found.
    pace: Option<String>,
}

impl ProgressLine {
    /// The progress over `total` slices, under the heading `title`.
    #[must_use]
    pub(crate) fn new(title: &str, total: usize) -> Self {
        let progress = Self::quiet(title, total);
        progress.bar.set_message("0 rows,");
        if progress.bar.is_hidden() {
            note(format!("{title}: {} to do", counted(total, "slice")));
        }
        progress
    }

    /// As [`ProgressLine::new`], without an initial line and without rows.
    #[must_use]
    pub(crate) fn quiet(title: &str, total: usize) -> Self {
        let total = total as u64;
        let bar = if console::user_attended_stderr() {
            let style = ProgressStyle::with_template(
                "{prefix} {wide_bar:.green} {pos}/{len}, {msg} {elapsed}, {eta} left",
            );
            let bar = ProgressBar::new(total);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            let title = visible::line(title);
            bar.set_prefix(console::truncate_str(&title, 24, "…").into_owned());
            bar
        } else {
            ProgressBar::hidden()
        };
        let printed = Stopwatch::start();
        let state = ProgressState { done: 0, rows: None, total, printed, waits: None, pace: None };
        Self { bar, state: Mutex::new(state) }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Does `work`, and shows its waits and its pace.
    pub(crate) async fn during<T>(&self, governor: &Governor, work: impl Future<Output = T>) -> T {
        let (mut waits, mut pace) = (governor.waits(), governor.pace());
        let mut work = std::pin::pin!(work);
        // In a log, waits are repeated rarely. The first one is shown immediately.
        let mut told: Option<Stopwatch> = None;
        loop {
            tokio::select! {
                done = &mut work => return done,
                Ok(()) = pace.changed() => {
                    self.state().pace = pace.borrow_and_update().clone();
                    self.show();
                }
                Ok(()) = waits.changed() => {
                    let reason = waits.borrow_and_update().clone();
                    if !self.bar.is_hidden() {
                        self.state().waits = reason;
                        self.show();
                    } else if let Some(reason) = reason
                        && told.is_none_or(|told| told.elapsed() >= LINE_EVERY)
                    {
                        told = Some(Stopwatch::start());
                        note(format!("waiting: {reason}"));
                    }
                }
            }
        }
    }

    /// Shows the progress of work that other processes do.
    pub(crate) fn set(&self, done: u64, rows: u64) {
        let mut state = self.state();
        (state.done, state.rows) = (done, Some(rows));
        drop(state);
        self.bar.set_position(done);
        self.show();
        self.line();
    }

    /// Shows the number of compared slices.
    pub(crate) fn compared(&self, done: usize) {
        self.state().done = done as u64;
        self.bar.set_position(done as u64);
        self.show();
        self.line();
    }

    /// Outside of a terminal, prints a line from time to time.
    fn line(&self) {
        let mut state = self.state();
        if self.bar.is_hidden() && state.printed.elapsed() >= LINE_EVERY {
            state.printed = Stopwatch::start();
            let rows =
                state.rows.map_or_else(String::new, |rows| format!(", {} rows", number(rows)));
            let pace = state.pace.as_ref().map_or_else(String::new, |pace| format!(", {pace}"));
            let (done, total) = (number(state.done), number(state.total));
            note(format!("{done} of {total} slices{rows}{pace}"));
        }
    }

    fn show(&self) {
        let state = self.state();
        let waits = state.waits.as_ref();
        let waits = waits.map_or_else(String::new, |reason| format!(" waiting: {reason},"));
        let rows = state.rows.map_or_else(String::new, |rows| format!("{} rows,", number(rows)));
        let pace = state.pace.as_ref().map_or_else(String::new, |pace| format!(" {pace},"));
        self.bar.set_message(visible::line(&format!("{rows}{pace}{waits}")).into_owned());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn print_above(&self, text: &str) {
        let line = visible::line(text);
        if self.bar.is_hidden() {
            note(line);
        } else {
            self.bar.println(fold(&line, 2));
        }
    }
}

impl Listener for ProgressLine {
    fn ended(&self, report: &SliceReport) {
        let mut state = self.state();
        let rows = report.completion.as_ref().map_or(0, |done| done.rows_read);
        state.rows = Some(state.rows.unwrap_or(0) + rows);
        if report.is_success() {
            state.done += 1;
            self.bar.inc(1);
        } else {
            let reason = report.reason.as_deref().unwrap_or_default();
            let (start, outcome) = (instant(report.start), report.outcome.word());
            // Many reasons begin with the name of the outcome: `leased by …`, `failed 3 times …`.
            let why = match reason.starts_with(outcome) {
                true => reason.to_owned(),
                false => format!("{outcome}: {reason}"),
            };
            self.print_above(&format!("{}@{start} {why}", report.rollup));
        }
        drop(state);
        self.show();
        self.line();
    }

    fn waiting(&self, until: DateTime<Utc>, reason: &str) {
        self.print_above(&format!("waiting until {}: {reason}", instant(until)));
    }
}
