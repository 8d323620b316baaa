//! Problems of a definition file, all reported together.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::hint::{Fault, Hinted};
use crate::model::text::{listed, nearest};

/// One problem in the definition file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line, from 1. `None`: the problem has no line (a missing table, an unreadable file).
    pub(crate) line: Option<usize>,
    /// The dotted key, with the rollup's name: `rollup.entity_daily.bucket`. It is empty for the
    /// file.
    pub(crate) key: String,
    /// The problem.
    pub(crate) message: String,
    /// What puts it right.
    pub(crate) hint: Option<String>,
}

/// All problems of one definition file.
///
/// Displays as one line per problem: `tallymark.toml:14: rollup.entity_daily.bucket: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The problems of the file at `path`, sorted by line.
    pub(super) fn new(path: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.line);
        Self { path: path.to_owned(), problems }
    }

    /// A problem of the whole file.
    pub(super) fn file(path: &Path, line: Option<usize>, fault: Fault) -> Self {
        let (message, hint) = fault.into_parts();
        Self::new(path, vec![Problem { line, key: String::new(), message, hint }])
    }

    /// The problems, in the order of the file's lines.
    #[must_use]
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.path.display())?;
            if let Some(line) = problem.line {
                write!(f, "{line}:")?;
            }
            if !problem.key.is_empty() {
                write!(f, " {}:", problem.key)?;
            }
            write!(f, " {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A line for each problem that has a hint. Where there are several problems, it begins with the
/// problem's line.
impl Hinted for ConfigError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        if let [only] = self.problems.as_slice() {
            return only.hint.as_deref().map(Cow::from);
        }
        let line = |problem: &Problem| {
            let hint = problem.hint.as_deref()?;
            Some(match problem.line {
                Some(line) => format!("{line}: {hint}"),
                None => hint.to_owned(),
            })
        };
        let lines: Vec<_> = self.problems.iter().filter_map(line).collect();
        (!lines.is_empty()).then(|| lines.join("\n").into())
    }
}

/// The requested rollup is not in the definition file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rollup `{}`", .name.escape_debug())]
pub struct UnknownRollup {
    /// The requested name.
    pub(crate) name: String,
    /// The defined names.
    pub(crate) known: Vec<String>,
}

impl Hinted for UnknownRollup {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let names = listed(self.known.iter().map(String::as_str));
        Some(match nearest(&self.name, self.known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`? the rollups are {names}").into(),
            None => format!("the rollups are {names}").into(),
        })
    }
}
