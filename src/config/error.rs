//! What can be wrong with a definition file, told all at once.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong in the definition file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; `None` where no line is to blame (a missing table, an unreadable file).
    pub line: Option<usize>,
    /// The dotted key, with the rollup's name: `rollup.entity_daily.bucket`; empty for the file.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// All that is wrong with one definition file.
///
/// Displays as one line per problem: `tallymark.toml:14: rollup.entity_daily.bucket: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The problems of the file at `path`, put in the order of its lines.
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
    pub fn problems(&self) -> &[Problem] {
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

/// A rollup was asked for that the definition file does not define.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rollup `{}`; {}", .name.escape_debug(), hint(.name, .known))]
pub struct UnknownRollup {
    /// The name asked for.
    pub name: String,
    /// The names that are defined.
    pub known: Vec<String>,
}

fn hint(name: &str, known: &[String]) -> String {
    let names = listed(known.iter().map(String::as_str));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`? the rollups are {names}"),
        None => format!("the rollups are {names}"),
    }
}

/// The candidate that `word` was probably meant to be: few letters differ, or one begins with the
/// other.
pub(super) fn nearest<'c>(word: &str, known: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    known
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = strsim::damerau_levenshtein(&word, &lower);
            let prefix = word.len() >= 3 && lower.starts_with(&word)
                || lower.len() >= 3 && word.starts_with(&lower);
            // A third of the letters: past that, unrelated short words begin to resemble.
            let near = prefix || distance * 3 <= word.chars().count().max(lower.chars().count());
            near.then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b`, `c` ``
pub(super) fn listed<'c>(words: impl Iterator<Item = &'c str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// `text` for an error: quoted, on one line, shortened, and hidden where it may hold a password.
pub(super) fn shown(text: &str) -> String {
    /// Enough to recognise a value by.
    const CHARS_MAX: usize = 80;
    let lower = text.to_lowercase();
    if lower.contains("://") || lower.contains("password") || lower.contains('@') {
        return "the value (not shown: it may hold a password)".to_owned();
    }
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named_and_a_far_one_is_not() {
        let known = || ["group_by", "grace", "start", "timezone"].into_iter();
        assert_eq!(nearest("groupby", known()), Some("group_by"));
        assert_eq!(nearest("group", known()), Some("group_by"));
        assert_eq!(nearest("Timezone", known()), Some("timezone"));
        assert_eq!(nearest("strat", known()), Some("start"));
        assert_eq!(nearest("colour", known()), None);
        assert_eq!(nearest("", known()), None);
    }

    #[test]
    fn what_may_hold_a_password_is_not_shown() {
        assert!(!shown("postgres://app:hunter2@db/x").contains("hunter2"));
        assert!(!shown("host=db PASSWORD=hunter2").contains("hunter2"));
        assert!(!shown("app:hunter2@db").contains("hunter2"));
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert_eq!(shown(&"é".repeat(200)).chars().count(), 83);
    }
}
