//! Output for operators: tables, numbers with units, progress, questions.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use console::measure_text_width;

use super::Failure;
use crate::model::clock::rfc3339_seconds;
use crate::model::hint::{Fault, Hinted as _};
use crate::model::visible;

mod kept;
mod paint;
mod progress;

pub(crate) use kept::{
    KeptOutput, KeptText, TextKind, is_keeping, keep_document, keep_next, keeping,
};

pub(crate) use paint::{Paint, paint, width};
pub(crate) use progress::ProgressLine;

/// The terminal width that all output must fit.
const LINE: usize = 80;

/// The columns that a result may take. `None`: it goes to a file or a pipe, where lines stay whole.
#[must_use]
pub(crate) fn columns() -> Option<usize> {
    let columns = || usize::from(console::Term::stdout().size().1);
    (console::user_attended() && !is_keeping()).then(columns)
}

/// Prints a line of a command's result.
pub(crate) fn print(text: impl AsRef<str>) {
    if kept::keep_text(TextKind::Result, text.as_ref()) {
        return;
    }
    verbatim(if console::user_attended() { folded(text.as_ref()) } else { text.as_ref().into() });
}

/// As [`print`], for lines that must not be wrapped: SQL, a script.
pub(crate) fn verbatim(text: impl AsRef<str>) {
    if kept::keep_text(TextKind::Script, text.as_ref()) {
        return;
    }
    let shown = paint::shown(text.as_ref(), console::colors_enabled());
    // A closed pipe (`tallymark status | head`) must not cause a panic.
    let _ = writeln!(std::io::stdout(), "{shown}");
}

/// Prints what a command announces before its result.
pub(crate) fn announce(text: impl AsRef<str>) {
    if !kept::keep_text(TextKind::Announcement, text.as_ref()) {
        print(text);
    }
}

/// Prints a line about the work, which is separate from its result.
pub(crate) fn note(text: impl AsRef<str>) {
    if kept::keep_text(TextKind::Note, text.as_ref()) {
        return;
    }
    let is_read = console::user_attended_stderr();
    let text = if is_read { folded(text.as_ref()) } else { text.as_ref().into() };
    let shown = paint::shown(&text, console::colors_enabled_stderr());
    let _ = writeln!(std::io::stderr(), "{shown}");
}

/// Prints an error message.
pub(crate) fn error(message: &str) {
    let is_read = console::user_attended_stderr();
    for line in message.lines() {
        let line = format!("{} {}", paint(Paint::Alarm, "error:"), visible::line(line));
        note(if is_read { fold(&line, 7) } else { line });
    }
}

/// Prints a message of the argument parser, which may quote the arguments: help, version, wrong
/// usage.
pub(crate) fn usage(error: &clap::Error) {
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

/// Prints a hint, below its error.
pub(crate) fn hint(text: &str) {
    let is_read = console::user_attended_stderr();
    for line in text.lines() {
        let line = format!("{} {}", paint(Paint::Cyan, "hint:"), visible::line(line));
        note(if is_read { fold(&line, 6) } else { line });
    }
}

/// Prints `value` as the command's only JSON document.
pub(crate) fn json(value: &impl serde::Serialize) {
    let document = serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string());
    let _ = writeln!(std::io::stdout(), "{}", visible::json(&document));
}

/// A hint on a line of its own, below what it puts right.
#[must_use]
pub fn below(hint: &str, indent: usize) -> String {
    format!("{:indent$}{}", "", wrapped(&format!("hint: {hint}"), indent + 2))
}

/// The facts, and the hint on a line of its own below.
#[must_use]
pub fn hinted(fault: &Fault, indent: usize) -> String {
    let facts = wrapped(fault.facts(), indent);
    match fault.hint() {
        Some(hint) => format!("{facts}\n{}", below(&hint, indent)),
        None => facts,
    }
}

/// Text wrapped at 80 columns, with all lines but the first indented. Outside of a terminal it is
/// one line.
#[must_use]
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
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
pub(crate) fn script(statements: &[String]) -> Vec<String> {
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
pub(crate) fn number(value: impl Into<u64>) -> String {
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
pub(crate) fn count(value: usize) -> String {
    number(value as u64)
}

/// A count and its noun: `1 slice`, `2 slices`.
#[must_use]
pub(crate) fn counted(value: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// An estimated number of things: `1,200 groups`, `1 group`.
#[must_use]
pub(crate) fn about(value: f64, noun: &str) -> String {
    if (0.0..9.95).contains(&value) && (value - value.round()).abs() > 0.05 {
        return format!("{value:.1} {noun}s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
    counted(value.max(0.0).round() as usize, noun)
}

/// The source rows behind a group: `7.2 rows a group`.
#[must_use]
pub(crate) fn ratio(rows_per_group: f64) -> String {
    match rows_per_group < 10.0 {
        true => format!("{rows_per_group:.1} rows a group"),
        false => format!("{} a group", about(rows_per_group, "row")),
    }
}

/// An estimated size: `21.5 MB`.
#[must_use]
pub(crate) fn bytes(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
    indicatif::DecimalBytes(value.max(0.0).round() as u64).to_string()
}

/// A length of time in its two largest units.
#[must_use]
pub(crate) fn duration(value: Duration) -> String {
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
pub(crate) fn instant(at: DateTime<Utc>) -> String {
    rfc3339_seconds(at)
}

/// Rows under a heading, in columns as wide as needed. Columns of numbers (`>` before the heading)
/// are right-aligned. The last column is cut to fit 80 columns.
#[must_use]
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
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
pub(crate) fn leave_question() {
    if IS_ASKING.load(Ordering::SeqCst) {
        note("");
    }
}

/// Whether an operator can answer questions.
#[must_use]
pub(crate) fn can_ask() -> bool {
    use std::io::IsTerminal as _;
    std::io::stdin().is_terminal()
}

/// Asks a question that must be answered with yes.
///
/// # Errors
/// The answer was no, or there is no terminal to answer on.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(Failure::usage(
            Fault::new(format!("{question} Standard input is no terminal, so no answer can come"))
                .remedy("pass --yes"),
        ));
    }
    if matches!(answer(&format!("{question} [y/N]")).as_deref(), Some("y" | "Y" | "yes")) {
        Ok(())
    } else {
        Err(Failure::usage(Fault::new("nothing was done").remedy("answer y, or pass --yes")))
    }
}

/// Asks for a value. An empty answer is `default`.
///
/// # Errors
/// The input has ended.
pub(crate) fn ask(question: &str, default: &str) -> Result<String, Failure> {
    match answer(&format!("{question} [{default}]")) {
        Some(answer) if answer.is_empty() => Ok(default.to_owned()),
        Some(answer) => Ok(answer),
        None => Err(Failure::usage("nothing was done")),
    }
}

/// The answer to a question. `None`: the input has ended.
fn answer(question: &str) -> Option<String> {
    let mut error = std::io::stderr();
    let _ = write!(error, "{} ", visible::text(question));
    let _ = error.flush();
    let mut answer = String::new();
    IS_ASKING.store(true, Ordering::SeqCst);
    let read = std::io::stdin().read_line(&mut answer);
    IS_ASKING.store(false, Ordering::SeqCst);
    read.is_ok_and(|bytes| bytes > 0).then(|| answer.trim().to_owned())
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
