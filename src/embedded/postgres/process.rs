//! Runs programs to their end, within a time limit.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::model::clock::Stopwatch;

/// Interval at which a program's end or a server's start is checked.
pub(super) const POLL: Duration = Duration::from_millis(10);

/// Limit for programs that only answer a question, such as `id -u`.
pub(super) const QUESTION: Duration = Duration::from_secs(20);

/// Number of last lines of a program's output that an error shows.
const SHOWN_LINES: usize = 8;

/// Runs `command` and returns its standard output. The error says how it ended and shows the end of
/// its standard error.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("`{program}` was not found"),
        _ => format!("`{program}` could not be run: {error}"),
    };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let output = child.stdout.take().map(collect);
    let errors = child.stderr.take().map(collect);
    let status = wait(&mut child, limit).map_err(failed)?;
    let output = output.map(received).unwrap_or_default();
    let errors = errors.map(received).unwrap_or_default();
    match status {
        Some(status) if status.success() => Ok(output),
        Some(status) => Err(format!("`{program}` failed ({status}): {}", last_lines(&errors))),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("`{program}` did not end within {} s", limit.as_secs()))
        }
    }
}

/// Waits until `child` has ended, at most `limit`. `None`: it still runs.
pub(super) fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let waiting = Stopwatch::start();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if waiting.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// The last lines of a log, for an error's text.
pub(super) fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// Reads `stream` to its end in the background, so that a full pipe never stops the program.
fn collect(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The collected output. The limit is needed because a grandchild may hold the pipe open after the
/// program's end.
fn received(collected: mpsc::Receiver<String>) -> String {
    collected.recv_timeout(Duration::from_secs(1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_end_of_standard_error() {
        let script = "i=0; while [ $i -lt 20 ]; do echo line $i >&2; i=$((i+1)); done; exit 3";
        let error = run(Command::new("sh").args(["-c", script]), QUESTION).unwrap_err();
        assert!(error.starts_with("`sh` failed (exit status: 3): line 12\n"), "{error}");
        assert!(error.ends_with("line 19"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_stopped() {
        let limit = Duration::from_millis(50);
        let error = run(Command::new("sleep").arg("60"), limit).unwrap_err();
        assert_eq!(error, "`sleep` did not end within 0 s");
    }
}
