//! Examples at the end of each command's help, and the manual pages.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};
use serde_json::json;

use super::{Arguments, Failure, Global};
use crate::model::hint::Fault;
use crate::model::visible;

/// The examples of each command: its words after `tallymark`, and what they do.
const EXAMPLES: [(&str, &[(&str, &str)]); 39] = [
    ("demo", &[("", "Everything on servers that it starts itself; about a minute")]),
    (
        "new",
        &[
            ("--yes", "tallymark.toml for the database of DATABASE_URL"),
            ("--table public.orders --store postgres", "For this table, without AWS"),
        ],
    ),
    (
        "init",
        &[
            ("", "Again after every change of the configuration"),
            ("--dry-run", "The statements, for the owner of the database"),
        ],
    ),
    ("check", &[("", "Everything"), ("daily", "One rollup")]),
    ("capture", &[("install", "For rollups with late = \"capture\"")]),
    (
        "capture install",
        &[
            ("--owner-env OWNER_URL", "As the role of this variable's address"),
            ("--dry-run", "The statements, for the tables' owner"),
        ],
    ),
    ("capture remove", &[("", "When no rollup needs them any more")]),
    ("capture status", &[("", "Each table's triggers and waiting marks")]),
    ("capture forget", &[("0190b5a8-6c3f-7d2e", "A consumer that never comes back")]),
    (
        "plan",
        &[
            ("", "What the next tick would do"),
            ("daily --from 2025-01-01", "Rows, time and price of a backfill"),
        ],
    ),
    (
        "preview",
        &[
            ("daily --slice 2026-01-31", "One day's rows"),
            ("daily --against reports.daily", "Compared with another job's table"),
        ],
    ),
    (
        "adopt",
        &[
            ("reports.daily", "Propose the rollup of this table"),
            ("reports.daily --rollup daily", "Compare, and take over its history"),
        ],
    ),
    (
        "run",
        &[
            ("", "One tick, as cron calls it"),
            ("daily --slice 2026-01-31", "One slice, unless it has succeeded"),
        ],
    ),
    (
        "serve",
        &[
            ("--every 5m", "Tick by itself"),
            ("--listen 0.0.0.0:8080 --tick-token-env TICK_TOKEN", "Tick when a scheduler asks"),
        ],
    ),
    (
        "backfill",
        &[
            ("daily --from 2025-01-01", "Everything since then, newest first"),
            ("daily --max-rows 50000000 --yes", "A part of it; the same command goes on"),
            ("--all", "Every rollup, finer ones first"),
        ],
    ),
    ("backfill start", &[("daily --from 2025-01-01", "By the function and its queue")]),
    ("backfill list", &[("", "Of all rollups")]),
    ("backfill status", &[("daily --watch", "Until it has ended")]),
    ("backfill pause", &[("daily --reason vacation", "Its slices wait")]),
    ("backfill resume", &[("daily", "Its slices go on")]),
    ("backfill cancel", &[("daily", "Finished slices stay done")]),
    (
        "replay",
        &[
            ("daily --slice 2026-01-31 --reason import", "One slice, whatever its state"),
            ("daily --failed", "All that failed"),
        ],
    ),
    ("pause", &[("--for 2h --reason migration", "All work on the source")]),
    ("resume", &[("", "All work on the source")]),
    ("speed", &[("100", "Slow"), ("default", "As the configuration says")]),
    ("cancel", &[("daily", "Its backfills")]),
    (
        "status",
        &[
            ("", "One line a rollup"),
            ("daily --lines 60", "Its calendar, and each failure's reason"),
            ("--watch", "Until Ctrl-C"),
            ("--format prometheus", "For a collector that reads files"),
        ],
    ),
    (
        "verify",
        &[
            ("daily --sample 20", "Twenty slices, drawn at random"),
            ("daily --from 2026-01-01 --repair", "Recompute what differs"),
        ],
    ),
    (
        "purgeable",
        &[
            ("public.events", "Until when its rows may be deleted"),
            ("public.events --seal", "Before they are deleted"),
        ],
    ),
    ("repair", &[("--dry-run", "What it would write"), ("", "After the checkpoints were lost")]),
    ("moved", &[("", "After the database got a new address"), ("--also", "Both stay in use")]),
    ("checkpoints", &[("copy --to postgres", "Out of DynamoDB")]),
    ("checkpoints copy", &[("--to dynamodb --table tallymark", "Into DynamoDB")]),
    ("rollup", &[("rename daily per_day", "After the same edit of the configuration")]),
    ("rollup rename", &[("daily per_day", "After the same edit of the configuration")]),
    ("rollup drop", &[("daily", "Its tables, markers and checkpoints")]),
    ("schema", &[("", "For an editor that knows JSON Schema")]),
    ("completions", &[("bash", "To a file that bash-completion loads")]),
    ("man", &[("/usr/local/share/man/man1", "Where man searches")]),
];

/// The command line's definition, with examples.
pub(super) fn command() -> Command {
    EXAMPLES.iter().fold(Arguments::command(), |command, (path, examples)| {
        let mut text = "Examples:".to_owned();
        for (words, meaning) in *examples {
            let line = format!("tallymark {path} {words}");
            text = format!("{text}\n  {}\n      {meaning}", line.trim_end());
        }
        let words: Vec<&str> = path.split(' ').collect();
        ending_with(command, &words, text)
    })
}

/// `command`, where the help of the subcommand that `words` name ends with `text`. A program without
/// that subcommand stays as it is.
fn ending_with(command: Command, words: &[&str], text: String) -> Command {
    let Some((first, rest)) = words.split_first() else { return command.after_help(text) };
    if command.find_subcommand(first).is_none() {
        return command;
    }
    command.mut_subcommand(first, |subcommand| ending_with(subcommand, rest, text))
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory, which is created if it is missing
    directory: PathBuf,
}

impl ManArgs {
    /// Writes a page for each command.
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let Self { directory } = self;
        let shown = directory.display().to_string();
        let written = std::fs::create_dir_all(&directory)
            .and_then(|()| clap_mangen::generate_to(command(), &directory));
        written.map_err(|error| {
            let fault = Fault::new(format!("{}: {error}", visible::line(&shown)));
            Failure::usage(fault.remedy("name a directory that you may write"))
        })?;
        global.print(&json!({ "directory": shown }), || {
            format!("{}: a page for each command", visible::line(&shown))
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path of each command that has none below it, and those that have.
    fn paths(command: &Command, path: &str, found: &mut Vec<String>) {
        for one in command.get_subcommands().filter(|it| it.get_name() != "help") {
            let path = format!("{path} {}", one.get_name()).trim_start().to_owned();
            paths(one, &path, found);
            found.push(path);
        }
    }

    #[test]
    fn every_command_has_examples_and_each_is_one() {
        let mut all = Vec::new();
        paths(&command(), "", &mut all);
        let mut shown: Vec<_> = EXAMPLES.iter().map(|(path, _)| (*path).to_owned()).collect();
        all.sort();
        shown.sort();
        assert_eq!(shown, all);
        for (path, examples) in EXAMPLES {
            for (words, _) in examples {
                let line = format!("tallymark {path} {words}");
                let parsed = command().try_get_matches_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
        }
    }

    /// The words of each call of `tallymark` in the shell blocks of a page.
    fn calls(page: &str) -> Vec<Vec<String>> {
        let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        let text = blocks.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
        let mut found = Vec::new();
        for line in text.lines() {
            let line = line.split(" #").next().unwrap_or_default();
            // A quoted text and the output of another program are one word each.
            let mut line = line.replace("$(", "`").replace(')', "`");
            for quote in ['"', '\'', '`'] {
                let parts = line.split(quote).enumerate();
                let words = parts.map(|(n, part)| if n % 2 == 1 { "2026-01-01" } else { part });
                line = words.collect();
            }
            for call in line.split(['|', ';', '>', '&']) {
                let words: Vec<_> = call.split_whitespace().map(str::to_owned).collect();
                if words.first().is_some_and(|first| first == "tallymark") {
                    found.push(words);
                }
            }
        }
        found
    }

    #[test]
    fn every_command_in_the_documentation_is_one() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let pages =
            std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let pages = pages.filter(|path| path.extension().is_some_and(|it| it == "md"));
        let mut seen = 0;
        for page in pages.chain([root.join("README.md")]) {
            for words in calls(&std::fs::read_to_string(&page).unwrap()) {
                let parsed = command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{}: {words:?}: {parsed:?}", page.display());
                seen += 1;
            }
        }
        assert!(seen > 50, "{seen}");
    }
}
