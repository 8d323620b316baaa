//! The actions of this process: one at a time for each operator's form, kept for its page.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Parser as _;
use tokio::sync::watch;

use crate::cli::ui::{self, KeptOutput};
use crate::cli::{Arguments, Command, Failure, Global};
use crate::config::Config;
use crate::model::clock::Stopwatch;
use crate::model::hint::Fault;
use crate::throttle::interrupt::Interrupt;

/// Actions that are kept for their pages.
const KEPT_MAX: usize = 50;

/// Actions that run at once. Each has connections of its own.
const RUNNING_MAX: usize = 4;

/// The actions of this process.
pub(in crate::cli) struct Actions {
    global: Global,
    kept: Mutex<VecDeque<Arc<Action>>>,
    /// The number of those that run.
    running: watch::Sender<usize>,
}

/// One action.
pub(in crate::cli) struct Action {
    /// Its place among those of this process, from 1.
    pub(in crate::cli) number: u64,
    pub(in crate::cli) began_at: DateTime<Utc>,
    /// The command, as an operator would write it.
    pub(in crate::cli) command: String,
    pub(in crate::cli) by: String,
    ended: watch::Sender<Option<Arc<Ended>>>,
}

/// The end of an action.
pub(in crate::cli) struct Ended {
    pub(in crate::cli) failure: Option<Fault>,
    pub(in crate::cli) output: Vec<String>,
    pub(in crate::cli) took: Duration,
}

/// As many actions run as may at once.
#[derive(Debug)]
pub(in crate::cli) struct Busy;

impl Action {
    /// How it ended, if it has.
    pub(in crate::cli) fn ended(&self) -> Option<Arc<Ended>> {
        self.ended.borrow().clone()
    }

    /// Waits for its end, at most for `limit`.
    pub(in crate::cli) async fn wait(&self, limit: Duration) {
        let mut ended = self.ended.subscribe();
        let _ = tokio::time::timeout(limit, ended.wait_for(Option::is_some)).await;
    }
}

impl Actions {
    /// Actions with the configuration and the signals of this process.
    pub(in crate::cli) fn new(global: &Global, config: &Config) -> Self {
        let global =
            Global { json: false, given: Some(Box::new(config.clone())), ..global.clone() };
        Self { global, kept: Mutex::default(), running: watch::channel(0).0 }
    }

    /// Starts a command in a task of its own, so that it goes on when its page is left.
    ///
    /// # Errors
    /// Too many run.
    pub(in crate::cli) fn start(
        self: &Arc<Self>,
        words: Vec<String>,
        by: SocketAddr,
        now: DateTime<Utc>,
    ) -> Result<Arc<Action>, Busy> {
        let is_free = self.running.send_if_modified(|running| {
            let is_free = *running < RUNNING_MAX;
            *running += usize::from(is_free);
            is_free
        });
        if !is_free {
            return Err(Busy);
        }
        let action = self.keep(&words, by, now);
        let (actions, kept) = (Arc::clone(self), Arc::clone(&action));
        tokio::spawn(async move {
            // A task of its own catches a panic.
            let work = Arc::clone(&actions);
            let ended = tokio::spawn(async move { work.run(&words).await }).await;
            let ended = ended.unwrap_or_else(|_| Ended {
                failure: Some(Fault::new("the action panicked; the log has its words")),
                output: Vec::new(),
                took: Duration::ZERO,
            });
            let (number, command) = (kept.number, &*kept.command);
            let error = ended.failure.as_ref().map(Fault::facts);
            tracing::warn!(number, command, error, "an operator's action ended");
            kept.ended.send_replace(Some(Arc::new(ended)));
            actions.running.send_modify(|running| *running -= 1);
        });
        Ok(action)
    }

    fn keep(&self, words: &[String], by: SocketAddr, now: DateTime<Utc>) -> Arc<Action> {
        let mut kept = self.lock();
        let number = kept.back().map_or(1, |last| last.number + 1);
        let (command, by) = (spoken(words), by.to_string());
        tracing::warn!(number, command, by, "an operator acts");
        let ended = watch::channel(None).0;
        let action = Arc::new(Action { number, began_at: now, command, by, ended });
        kept.push_back(Arc::clone(&action));
        let over = kept.len().saturating_sub(KEPT_MAX);
        kept.drain(..over);
        action
    }

    /// Runs a command and waits for its output.
    pub(in crate::cli) async fn run(&self, words: &[String]) -> Ended {
        let watch = Stopwatch::start();
        let interrupt = Interrupt::default();
        let global = Global { interrupt: interrupt.clone(), ..self.global.clone() };
        let work = Box::pin(ui::keeping(run(&global, words)));
        let stop = async {
            self.global.interrupt.raised().await;
            interrupt.raise().await;
            std::future::pending::<std::convert::Infallible>().await
        };
        let (ended, KeptOutput { texts, .. }) = tokio::select! {
            done = work => done,
            never = stop => match never {},
        };
        interrupt.close().await;
        let failure = ended
            .err()
            .map(|Failure { message, hint, .. }| Fault::new(message).remedy_if_known(hint));
        let output = texts.into_iter().map(|kept| kept.text).collect();
        Ended { failure, output, took: watch.elapsed() }
    }

    /// The kept actions, newest first.
    pub(in crate::cli) fn kept(&self) -> Vec<Arc<Action>> {
        self.lock().iter().rev().cloned().collect()
    }

    /// Waits until none runs.
    pub(in crate::cli) async fn idle(&self) {
        // The sender lives as long as this.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Action>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parses and runs a command of those that the console has.
async fn run(global: &Global, words: &[String]) -> Result<(), Failure> {
    let words = ["tallymark"].into_iter().chain(words.iter().map(String::as_str));
    let parsed = Arguments::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        Failure::usage(Fault::new(line.trim_start_matches("error: ")))
    })?;
    match parsed.command {
        Command::Replay(command) => command.run(global).await,
        Command::Verify(command) => command.run(global).await,
        Command::Plan(command) => command.run(global).await,
        Command::Backfill(command) => command.run(global).await,
        Command::Pause(command) => command.run(global).await,
        Command::Resume(command) => command.run(global).await,
        Command::Speed(command) => command.run(global).await,
        Command::Cancel(command) => command.run(global).await,
        _ => Err(Failure::usage(Fault::new("the console has no such command"))),
    }
}

/// The command as a shell takes it.
fn spoken(words: &[String]) -> String {
    let is_plain =
        |word: &str| word.chars().all(|it| it.is_ascii_alphanumeric() || "-_=.:+@/".contains(it));
    let word = |word: &String| match is_plain(word) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let words: Vec<String> = words.iter().filter(|it| *it != "--").map(word).collect();
    format!("tallymark {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_as_a_shell_takes_it() {
        let words = ["replay", "--reason=it's; rm -rf", "--yes", "--", "daily"].map(str::to_owned);
        assert_eq!(spoken(&words), r"tallymark replay '--reason=it'\''s; rm -rf' --yes daily");
    }
}
