//! Problems of a definition file, all reported together.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::text::{listed, nearest};

/// One problem in the definition file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line, from 1. `None`: the problem has no line (a missing table, an unreadable file).
    pub(crate) line: Option<usize>,
    /// The dotted key, with the rollup's name: `rollup.entity_daily.bucket`. It is empty for the
    /// file.
    pub(crate) key: String,
    /// The problem and its remedy.
    pub(crate) message: String,
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
    pub(super) fn file(path: &Path, line: Option<usize>, message: String) -> Self {
        Self::new(path, vec![Problem { line, key: String::new(), message }])
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

/// The requested rollup is not in the definition file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rollup `{}`; {}", .name.escape_debug(), hint(.name, .known))]
pub struct UnknownRollup {
    /// The requested name.
    pub(crate) name: String,
    /// The defined names.
    pub(crate) known: Vec<String>,
}

fn hint(name: &str, known: &[String]) -> String {
    let names = listed(known.iter().map(String::as_str));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`? the rollups are {names}"),
        None => format!("the rollups are {names}"),
    }
}
