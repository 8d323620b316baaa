//! Errors after which an invocation is retried, or needs an operator.

use std::borrow::Cow;

use crate::event::EventError;
use crate::model::clock::rfc3339;
use crate::model::hint::{Fault, Hinted};
use crate::model::slice::Slice;
use crate::model::text::counted;
use crate::work::report::{RollupProblem, SliceReport};
use crate::work::worker::{Severity, WorkError};

/// Why an invocation is retried, or needs an operator.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The event is invalid.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A failure that concerns more than one slice.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The requested slice failed.
    #[error(
        "slice {}@{} failed: {}", .0.rollup, rfc3339(.0.start),
        .0.reason.as_deref().unwrap_or("no reason was given")
    )]
    Failed(Box<SliceReport>),
    /// Some rollups failed. The others were worked on.
    #[error("{} could not be worked on: {}", counted(.0.len(), "rollup"), listed(.0))]
    Problems(Vec<RollupProblem>),
    /// The time ran out while a server was still awaited.
    #[error(
        "the time was up while a server was waited for; what was not done is due for the next schedule"
    )]
    OutOfTime,
    /// The arguments of a command are invalid.
    #[error("{0}")]
    Command(Fault),
    /// A command was still under way.
    #[error("the function's time was up before the command `{0}` had ended")]
    CommandOutOfTime(String),
    /// The answer of a command exceeds the limit of a response.
    #[error(
        "the answer of the command `{command}` has {bytes} bytes, and a function's may have {max}"
    )]
    AnswerTooLarge { command: String, bytes: usize, max: usize },
    /// The budget ran out before every slice was reopened.
    #[error(
        "the budget was spent when {reopened} of {all} slices of rollup `{rollup}` had been \
         reopened, {next} was not",
        next = .next.id(rollup)
    )]
    NotReopened {
        rollup: String,
        /// The number reopened, which are due now.
        reopened: usize,
        /// The number requested.
        all: usize,
        /// The first slice still to reopen.
        next: Slice,
    },
}

impl Hinted for HandleError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Event(error) => error.hint(),
            Self::Work(error) => error.hint(),
            Self::Failed(report) => report.hint.as_deref().map(Cow::from),
            Self::Problems(problems) => hints(problems.iter().map(|it| it.hint.as_deref())),
            Self::NotReopened { .. } => Some("ask for fewer slices at a time".into()),
            Self::Command(fault) => fault.hint(),
            Self::CommandOutOfTime(_) => Some(
                "raise the function's timeout, at most to 15 minutes, or run the command where the \
                 databases can be reached"
                    .into(),
            ),
            Self::AnswerTooLarge { .. } => {
                Some("ask for less: one rollup, or a shorter range".into())
            }
            Self::OutOfTime => None,
        }
    }
}

impl HandleError {
    /// A single word for the error: Lambda's `errorType`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Event(_) | Self::Command(_) => "EventNotUnderstood",
            Self::AnswerTooLarge { .. } => "AnswerTooLarge",
            Self::Work(error) => match error.severity() {
                Severity::Usage => "WrongUsage",
                Severity::Unreachable => "Unreachable",
                Severity::Failed => "Refused",
            },
            Self::Failed(_) => "SliceFailed",
            Self::Problems(_) => "RollupsFailed",
            Self::NotReopened { .. } => "BudgetSpent",
            Self::OutOfTime | Self::CommandOutOfTime(_) => "OutOfTime",
        }
    }

    /// Whether a server is out of reach, so that further work would fail in the same way.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Work(error) if error.severity() == Severity::Unreachable)
    }
}

/// All hints, each once.
fn hints<'a>(given: impl Iterator<Item = Option<&'a str>>) -> Option<Cow<'a, str>> {
    let mut hints: Vec<&str> = Vec::new();
    for hint in given.flatten() {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    (!hints.is_empty()).then(|| hints.join("; ").into())
}

fn listed(problems: &[RollupProblem]) -> String {
    problems.iter().map(|problem| problem.error.as_str()).collect::<Vec<_>>().join("; ")
}
