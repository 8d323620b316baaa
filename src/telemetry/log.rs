//! The destination of log lines: JSON on stdout in the Lambda, text on stderr on the command line.

use std::env;
use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;

use crate::model::hint::{Fault, Hinted as _};
use crate::model::visible;

/// The environment variable with the log filter, in the format of tracing's `EnvFilter`:
/// `info,tallymark=debug`.
const FILTER: &str = "TALLYMARK_LOG";

/// Limits the log lines of libraries. The SDK searches many places for a region and credentials and
/// warns about each. The relevant part is in Tallymark's own errors. sqlx's warning of a slow
/// statement repeats the statement, and its line for a notice repeats the server's text.
const LIBRARIES: &str =
    "aws=error,dynoxide=error,hyper=error,rustls=error,sqlx=error,lambda_runtime=warn";

/// At TRACE the Lambda runtime quotes each event as text, and ends the process over an event that
/// is no text.
const QUOTES_EVENTS: &str = "lambda_runtime::layers::api_response=warn";

/// The runtime logs each error that the function returns. The function has already logged it in
/// more detail.
const REPEATS_ERRORS: &str = "lambda_runtime::layers::panic=off";

/// Logs JSON to stdout, one object per line, with fields beside `message` under their dotted names.
///
/// # Panics If a process calls it twice.
pub fn lambda() {
    let (filter, problem) = filter("info");
    let directives = [QUOTES_EVENTS, REPEATS_ERRORS].map(str::parse::<Directive>);
    let filter = directives.into_iter().flatten().fold(filter, EnvFilter::add_directive);
    // The filter hides the runtime's own line of a panic.
    std::panic::set_hook(Box::new(|panic| tracing::error!(panic = %panic, "panicked")));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(LogOutput::Json)
        .init();
    warn(problem);
}

/// Logs text to stderr: warnings, with `verbosity` 1 also progress, with 2 and 3 more details.
/// `ansi` allows colours.
///
/// # Panics If a process calls it twice.
pub(crate) fn cli(verbosity: u8, ansi: bool) {
    let level = match verbosity {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let (filter, problem) = filter(level);
    tracing_subscriber::fmt()
        .compact()
        // Colours are added afterwards. In a formatted line they could come from foreign data.
        .with_ansi(false)
        .with_target(verbosity > 1)
        .with_env_filter(filter)
        .with_writer(LogOutput::Text { ansi })
        .init();
    warn(problem);
}

/// The destination. Each line is written with a single call.
#[derive(Clone, Copy, Debug)]
enum LogOutput {
    /// To stdout, a JSON object a line.
    Json,
    /// To stderr. `ansi` allows colours.
    Text { ansi: bool },
}

/// One line before it is written.
#[derive(Debug)]
struct Line {
    place: LogOutput,
    level: Level,
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { place: *self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { place: *self, level: *metadata.level() }
    }
}

impl Line {
    /// The line with hidden characters escaped.
    fn shown(&self, formatted: &str) -> String {
        let line = formatted.trim_end_matches('\n');
        let LogOutput::Text { ansi } = self.place else { return visible::json(line).into_owned() };
        let line = visible::line(line);
        let level = self.level.as_str();
        let color = match self.level {
            Level::ERROR => "31",
            Level::WARN => "33",
            Level::INFO => "32",
            _ => "34",
        };
        match line.split_once(level) {
            Some((before, after)) if ansi => {
                format!("{before}\u{1b}[{color}m{level}\u{1b}[0m{after}")
            }
            _ => line.into_owned(),
        }
    }
}

impl Write for Line {
    fn write(&mut self, formatted: &[u8]) -> io::Result<usize> {
        let line = self.shown(&String::from_utf8_lossy(formatted)) + "\n";
        match self.place {
            LogOutput::Json => io::stdout().write_all(line.as_bytes())?,
            LogOutput::Text { .. } => io::stderr().write_all(line.as_bytes())?,
        }
        Ok(formatted.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The filter from the environment, or that of `level`, with the problem of the environment's
/// filter, if any.
fn filter(level: &str) -> (EnvFilter, Option<Fault>) {
    let default = || EnvFilter::new(format!("{level},{LIBRARIES}"));
    match env::var(FILTER) {
        Ok(text) if !text.trim().is_empty() => {
            read(&text).map_or_else(|problem| (default(), Some(problem)), |filter| (filter, None))
        }
        _ => (default(), None),
    }
}

fn read(text: &str) -> Result<EnvFilter, Fault> {
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(text).map_err(
        |error| {
            Fault::new(error.to_string())
                .remedy(format!("write for example {FILTER}=info,tallymark=debug"))
        },
    )
}

fn warn(problem: Option<Fault>) {
    if let Some(problem) = problem {
        let hint = problem.hint();
        let hint = hint.as_deref();
        tracing::warn!(setting = FILTER, %problem, hint, "the log filter is invalid");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directives_are_well_formed() {
        assert!(QUOTES_EVENTS.parse::<Directive>().is_ok());
        assert!(REPEATS_ERRORS.parse::<Directive>().is_ok());
        assert!(read(LIBRARIES).is_ok());
        assert!(read("info,tallymark=debug").is_ok());
    }

    #[test]
    fn a_line_of_the_log_is_one_line_without_control_characters() {
        let formatted = "2026-01-01T00:00:00Z  WARN it said \u{1b}[2J\u{9b}\nERROR forged\n";
        let line = |place| Line { place, level: Level::WARN }.shown(formatted);
        assert_eq!(
            line(LogOutput::Text { ansi: true }),
            "2026-01-01T00:00:00Z  \u{1b}[33mWARN\u{1b}[0m it said \\u{1b}[2J\\u{9b}\\nERROR forged"
        );
        assert_eq!(
            line(LogOutput::Text { ansi: false }),
            "2026-01-01T00:00:00Z  WARN it said \\u{1b}[2J\\u{9b}\\nERROR forged"
        );
        let formatted = "{\"error\":\"\u{7f}\u{202e}\"}\n";
        let line = Line { place: LogOutput::Json, level: Level::INFO }.shown(formatted);
        assert_eq!(line, "{\"error\":\"\\u007f\\u202e\"}");
    }

    #[test]
    fn a_wrong_filter_is_answered_with_a_right_one() {
        let problem = read("tallymark=loud").unwrap_err();
        assert!(problem.hint().unwrap().contains("TALLYMARK_LOG=info"), "{problem}");
    }
}
