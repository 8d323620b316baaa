//! Shows the state again and again: in place at a terminal, and elsewhere a line for each change.

use std::collections::HashMap;
use std::time::Duration;

use console::Term;

use super::{Shown, StatusArgs};
use crate::cli::{Failure, Global, ui};
use crate::work::worker::{Severity, Worker};

/// Maximum number of looks, which is more than a month of them.
const LOOKS_MAX: usize = 2_000_000;

/// Looks in a row that may find the checkpoints out of reach.
const UNREACHABLE_MAX: usize = 60;

/// Shortest time between two looks.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Shows the state until a signal ends the command.
pub(super) async fn watch(
    args: &StatusArgs,
    global: &Global,
    worker: &Worker,
) -> Result<(), Failure> {
    let every = args.every.max(EVERY_MIN);
    let mut known = HashMap::new();
    let mut unreachable = 0;
    for _ in 0..LOOKS_MAX {
        match args.shown(global, worker).await {
            Ok(shown) => {
                unreachable = 0;
                show(&shown, worker, &mut known);
            }
            Err(_) if global.interrupt.is_raised() => {}
            Err(failure)
                if failure.severity == Severity::Unreachable && unreachable < UNREACHABLE_MAX =>
            {
                unreachable += 1;
                ui::note(format!("{}; asked again in {}", failure.message, ui::duration(every)));
            }
            Err(failure) => return Err(failure),
        }
        global.interrupt.sleep(&*worker.clock, every).await;
        if global.interrupt.is_raised() {
            break;
        }
    }
    Ok(())
}

fn show(shown: &Shown, worker: &Worker, known: &mut HashMap<String, String>) {
    let now = ui::instant(worker.clock.now());
    if console::user_attended() {
        let terminal = Term::stdout();
        let text = format!("{now}\n{}", shown.text());
        let height = usize::from(terminal.size().0).saturating_sub(2).max(1);
        // A terminal that cannot be cleared shows the states one below the other.
        let _ = terminal.clear_screen();
        match shown.details.is_empty() {
            true => ui::verbatim(first_lines(&text, height)),
            false => ui::print(first_lines(&text, height)),
        }
        return;
    }
    for overview in &shown.overviews {
        let line = overview.line();
        if known.get(&overview.name) != Some(&line) {
            ui::print(format!("{now} {line}"));
            known.insert(overview.name.clone(), line);
        }
    }
}

/// The first lines of `text`, and how many follow.
fn first_lines(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= height {
        return text.to_owned();
    }
    let more = ui::counted(lines.len() - height, "more line");
    format!("{}\n… and {more}", lines[..height].join("\n"))
}
