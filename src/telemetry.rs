//! Where log lines go: JSON on stdout in the Lambda, text on stderr on the command line.

use std::env;
use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

/// The environment variable that filters log lines, as tracing's `EnvFilter` reads it:
/// `info,tallymark=debug`.
pub const FILTER: &str = "TALLYMARK_LOG";

/// The SDK retries, the pool reconnects: what matters of that is in our own errors. sqlx's warning
/// of a slow statement repeats the statement.
const LIBRARIES: &str = "aws=warn,dynoxide=error,hyper=warn,sqlx=error,lambda_runtime=warn";

/// At TRACE the Lambda runtime quotes each event as text, and ends the process over one that is
/// none.
const QUOTES_EVENTS: &str = "lambda_runtime::layers::api_response=warn";

/// Logs JSON to stdout, one object a line, fields beside `message` under their dotted names.
///
/// # Panics
/// If a process calls it twice.
pub fn lambda() {
    let (filter, problem) = filter("info");
    let filter = match QUOTES_EVENTS.parse::<Directive>() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(io::stdout)
        .init();
    warn(problem);
}

/// Logs text to stderr: warnings, with `verbosity` 1 also what is done, with 2 and 3 ever more.
/// `ansi` allows colours.
///
/// # Panics
/// If a process calls it twice.
pub fn cli(verbosity: u8, ansi: bool) {
    let level = match verbosity {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let (filter, problem) = filter(level);
    tracing_subscriber::fmt()
        .compact()
        .with_ansi(ansi)
        .with_target(verbosity > 1)
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    warn(problem);
}

/// The filter that the environment asks for, or that of `level`; and what is wrong with the
/// environment's.
fn filter(level: &str) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(format!("{level},{LIBRARIES}"));
    match env::var(FILTER) {
        Ok(text) if !text.trim().is_empty() => {
            read(&text).map_or_else(|problem| (default(), Some(problem)), |filter| (filter, None))
        }
        _ => (default(), None),
    }
}

fn read(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(text)
        .map_err(|error| format!("{error}; write for example {FILTER}=info,tallymark=debug"))
}

fn warn(problem: Option<String>) {
    if let Some(problem) = problem {
        tracing::warn!(setting = FILTER, problem, "the log filter was not understood");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directives_are_well_formed() {
        assert!(QUOTES_EVENTS.parse::<Directive>().is_ok());
        assert!(read(LIBRARIES).is_ok());
        assert!(read("info,tallymark=debug").is_ok());
    }

    #[test]
    fn a_wrong_filter_is_answered_with_a_right_one() {
        let problem = read("tallymark=loud").unwrap_err();
        assert!(problem.contains("TALLYMARK_LOG=info"), "{problem}");
    }
}
