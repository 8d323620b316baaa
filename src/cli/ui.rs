//! Output for operators: tables, numbers with units, progress, questions.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use console::measure_text_width;
use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::model::clock::Stopwatch;
use crate::model::visible;
use crate::work::backfill::Listener;
use crate::work::report::SliceReport;

mod paint;

pub use paint::{Paint, paint};

/// The terminal width that all output must fit.
const LINE: usize = 80;

/// Shortest time between two lines of progress outside of a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Prints a line of a command's result.
pub fn say(text: impl AsRef<str>) {
    verbatim(if console::user_attended() { folded(text.as_ref()) } else { text.as_ref().into() });
}

/// As [`say`], for lines that must not be wrapped: SQL, a script.
pub fn verbatim(text: impl AsRef<str>) {
    let shown = paint::shown(text.as_ref(), console::colors_enabled());
    // A closed pipe (`tallymark status | head`) must not cause a panic.
    let _ = writeln!(std::io::stdout(), "{shown}");
}

/// Prints a line about the work, which is separate from its result.
pub fn note(text: impl AsRef<str>) {
    let is_read = console::user_attended_stderr();
    let text = if is_read { folded(text.as_ref()) } else { text.as_ref().into() };
    let shown = paint::shown(&text, console::colors_enabled_stderr());
    let _ = writeln!(std::io::stderr(), "{shown}");
}

/// Prints an error message.
pub fn error(message: &str) {
    let is_read = console::user_attended_stderr();
    for line in message.lines() {
        let line = format!("{} {}", paint(Paint::Alarm, "error:"), visible::line(line));
        note(if is_read { fold(&line, 7) } else { line });
    }
}

/// Prints a message of the argument parser, which may quote the arguments: help, version, wrong
/// usage.
pub fn usage(error: &clap::Error) {
    let (plain, styled) = (error.render(), error.render().ansi().to_string());
    let plain = plain.to_string();
    let is_ours = visible::is_plain(&plain);
    let mut place: Box<dyn std::io::Write> = match error.use_stderr() {
        true => Box::new(std::io::stderr()),
        false => Box::new(std::io::stdout()),
    };
    let colors = match error.use_stderr() {
        true => console::colors_enabled_stderr(),
        false => console::colors_enabled(),
    };
    // Use the parser's colours only if the text contains no others.
    let text = if is_ours && colors { styled.into() } else { visible::text(&plain) };
    let _ = write!(place, "{text}");
}

/// Prints a hint.
pub fn hint(text: &str) {
    let line = format!("{} {}", paint(Paint::Cyan, "hint:"), visible::line(text));
    note(if console::user_attended_stderr() { fold(&line, 6) } else { line });
}

/// Prints `value` as the command's only JSON document.
pub fn json(value: &impl serde::Serialize) {
    let document = serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string());
    let _ = writeln!(std::io::stdout(), "{}", visible::json(&document));
}

/// Text wrapped at 80 columns, with all lines but the first indented. Outside of a terminal it is
/// one line.
#[must_use]
pub fn wrapped(text: &str, indent: usize) -> String {
    let line = paint::kept(text, visible::line);
    if console::user_attended() { fold(&line, indent) } else { line }
}

/// Wraps every line that is wider than 80 columns. The continuation lines are indented a little
/// more than the first.
fn folded(text: &str) -> String {
    let line = |line: &str| {
        if paint::width(line) <= LINE {
            return line.to_owned();
        }
        let bare = line.trim_start_matches(' ');
        let lead = line.len() - bare.len();
        format!("{:lead$}{}", "", fold_from(bare, lead, lead + 2))
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn fold(text: &str, indent: usize) -> String {
    fold_from(text, 0, indent)
}

/// As [`fold`], with the first line starting at the column `begin`.
fn fold_from(text: &str, begin: usize, indent: usize) -> String {
    let mut lines = String::new();
    let mut width = begin;
    for (place, word) in text.split(' ').enumerate() {
        let more = paint::width(word);
        if place > 0 && width + 1 + more > LINE {
            let _ = write!(lines, "\n{:indent$}", "");
            width = indent;
        } else if place > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += more;
    }
    lines
}

/// SQL statements for an operator to run by hand. A hidden character in a name is shown as an
/// escape, which makes another name. Then all statements are comments.
#[must_use]
pub fn script(statements: &[String]) -> Vec<String> {
    let statements = statements.iter().map(|sql| format!("{sql};"));
    if statements.clone().all(|sql| visible::is_plain(&sql)) {
        return statements.collect();
    }
    let mut lines = vec![
        "-- Names here hold hidden characters, shown as \\u{…}: run this command without --dry-run, or \
         see --json."
            .to_owned(),
    ];
    lines.extend(
        statements
            .flat_map(|sql| sql.split('\n').map(|line| format!("-- {line}")).collect::<Vec<_>>()),
    );
    lines
}

/// A number with separators for thousands: `1,234,567`.
#[must_use]
pub fn number(value: impl Into<u64>) -> String {
    let digits = value.into().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count that is a `usize`.
#[must_use]
pub fn count(value: usize) -> String {
    number(value as u64)
}

/// A count and its noun: `1 slice`, `2 slices`.
#[must_use]
pub fn counted(value: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// A length of time in its two largest units.
#[must_use]
pub fn duration(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0 => format!("{} ms", value.as_millis()),
        1..60 => format!("{:.1} s", value.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// An instant as in slice names: `2026-02-10T00:00:00Z`.
#[must_use]
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Rows under a heading, in columns as wide as needed. Columns of numbers (`>` before the heading)
/// are right-aligned. The last column is cut to fit 80 columns.
#[must_use]
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let right: Vec<bool> = heading.iter().map(|title| title.starts_with('>')).collect();
    let titles: Vec<String> =
        heading.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| visible::line(cell).into_owned()).collect())
        .collect();
    let mut widths: Vec<usize> = titles.iter().map(|title| measure_text_width(title)).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(measure_text_width(cell));
        }
    }
    let last = widths.len() - 1;
    let before: usize = widths[..last].iter().map(|width| width + 2).sum();
    widths[last] = widths[last].min(LINE.saturating_sub(before).max(10));
    let mut text = String::new();
    let line = |text: &mut String, cells: &[String], is_title: bool| {
        let mut line = String::new();
        for (place, cell) in cells.iter().enumerate() {
            let cell = console::truncate_str(cell, widths[place], "…");
            let gap = widths[place].saturating_sub(measure_text_width(&cell));
            let (left, after) = if right[place] { (gap, 0) } else { (0, gap) };
            let _ = write!(line, "{:left$}{cell}{:after$}  ", "", "");
        }
        let line = line.trim_end();
        let line = if is_title { paint(Paint::Bold, line) } else { line.to_owned() };
        let _ = writeln!(text, "{line}");
    };
    line(&mut text, &titles, true);
    for row in &rows {
        line(&mut text, row, false);
    }
    text.trim_end().to_owned()
}

/// Whether a question is open, with the cursor behind it.
static IS_ASKING: AtomicBool = AtomicBool::new(false);

/// Ends the line of a question that will stay unanswered.
pub fn leave_question() {
    if IS_ASKING.load(Ordering::SeqCst) {
        note("");
    }
}

/// Asks a question that must be answered with yes.
///
/// # Errors
/// The answer was no, or there is no terminal to answer on.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is there to ask; pass --yes")));
    }
    let mut error = std::io::stderr();
    let _ = write!(error, "{} [y/N] ", visible::text(question));
    let _ = error.flush();
    let mut answer = String::new();
    IS_ASKING.store(true, Ordering::SeqCst);
    let _ = std::io::stdin().read_line(&mut answer);
    IS_ASKING.store(false, Ordering::SeqCst);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::usage("nothing was done".into()))
    }
}

/// The progress of a batch: a bar on a terminal, or occasional lines in a log.
pub struct ProgressLine {
    bar: ProgressBar,
    state: Mutex<State>,
}

struct State {
    done: u64,
    /// Source rows. `None`: they are not counted.
    rows: Option<u64>,
    total: u64,
    printed: Stopwatch,
    waits: Option<String>,
}

impl ProgressLine {
    /// The progress over `total` slices, under the heading `title`.
    #[must_use]
    pub fn new(title: &str, total: usize) -> Self {
        let progress = Self::quiet(title, total);
        progress.bar.set_message("0 rows,");
        if progress.bar.is_hidden() {
            note(format!("{title}: {} to do", counted(total, "slice")));
        }
        progress
    }

    /// As [`ProgressLine::new`], without an initial line and without rows.
    #[must_use]
    pub fn quiet(title: &str, total: usize) -> Self {
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
        let state = State { done: 0, rows: None, total, printed, waits: None };
        Self { bar, state: Mutex::new(state) }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Does `work`, and shows its waits.
    pub async fn during<T>(
        &self,
        mut waits: tokio::sync::watch::Receiver<Option<String>>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        // In a log, waits are repeated rarely. The first one is shown immediately.
        let mut told: Option<Stopwatch> = None;
        loop {
            tokio::select! {
                done = &mut work => return done,
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
    pub fn set(&self, done: u64, rows: u64) {
        let mut state = self.state();
        (state.done, state.rows) = (done, Some(rows));
        drop(state);
        self.bar.set_position(done);
        self.show();
        self.line();
    }

    /// Shows the number of compared slices.
    pub fn compared(&self, done: usize) {
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
            note(format!("{} of {} slices{rows}", number(state.done), number(state.total)));
        }
    }

    fn show(&self) {
        let state = self.state();
        let waits = state.waits.as_ref();
        let waits = waits.map_or_else(String::new, |reason| format!(" waiting: {reason},"));
        let rows = state.rows.map_or_else(String::new, |rows| format!("{} rows,", number(rows)));
        self.bar.set_message(visible::line(&format!("{rows}{waits}")).into_owned());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0_u64, 999, 1000, 15_000_000].map(number), ["0", "999", "1,000", "15,000,000"]);
    }

    #[test]
    fn folded_lines_fit_80_columns_and_keep_every_word() {
        let text = "ok    a finding of many words ".repeat(9);
        let folded = fold(&text, 6);
        assert!(folded.lines().all(|line| line.len() <= 80), "{folded}");
        assert!(folded.lines().skip(1).all(|line| line.starts_with("      ")), "{folded}");
        assert_eq!(folded.replace("\n      ", " "), text);
    }

    #[test]
    fn long_lines_are_folded_and_keep_their_begin() {
        let text = format!("short\n  {}", "word ".repeat(30).trim_end());
        let folded = folded(&text);
        assert!(folded.lines().all(|line| line.len() <= 80), "{folded}");
        let lines: Vec<_> = folded.lines().collect();
        assert!(lines[1].starts_with("  word") && lines[2].starts_with("    word"), "{folded}");
        assert_eq!(folded.replace("\n    ", " "), text);
    }

    #[test]
    fn a_table_fits_80_columns() {
        let rows = vec![vec!["a".repeat(30), "12".into(), "x".repeat(100)]];
        let text = paint::shown(&table(&["name", ">count", "reason"], &rows), false);
        assert!(text.lines().all(|line| measure_text_width(line) <= 80), "{text}");
    }
}
