//! A failure in two parts: the facts, and the instruction that puts it right.
//!
//! An error's text has only the facts: what, where, which value. The instruction is its hint, which
//! commands print on a line of its own and documents give as a field of its own.

use std::borrow::Cow;
use std::fmt;

/// An error that may know its remedy.
pub trait Hinted: fmt::Display {
    /// The instruction that puts it right. Its commands and statements are complete.
    fn hint(&self) -> Option<Cow<'_, str>>;

    /// Text and hint in one line, for places that keep only one text.
    fn in_one_line(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{self}; hint: {hint}"),
            None => self.to_string(),
        }
    }
}

/// The facts of a failure, and its hint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Fault {
    #[serde(rename = "error")]
    facts: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Fault {
    /// A failure without a remedy.
    #[must_use]
    pub fn new(facts: impl Into<String>) -> Self {
        Self { facts: facts.into(), hint: None }
    }

    /// The same failure with an instruction.
    #[must_use]
    pub fn remedy(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Text and hint of another error.
    #[must_use]
    pub fn of(error: &impl Hinted) -> Self {
        Self { facts: error.to_string(), hint: error.hint().map(Cow::into_owned) }
    }

    /// The same failure with this instruction, if there is one.
    #[must_use]
    pub fn remedy_if_known(self, hint: Option<impl Into<String>>) -> Self {
        hint.into_iter().fold(self, Self::remedy)
    }

    /// The same failure with its facts in other words.
    #[must_use]
    pub fn rephrased(self, words: impl FnOnce(&str) -> String) -> Self {
        Self { facts: words(&self.facts), ..self }
    }

    /// The same failure within a named place: `in the secret, …`.
    #[must_use]
    pub fn within(self, place: impl fmt::Display) -> Self {
        self.rephrased(|facts| format!("in {place}, {facts}"))
    }

    /// The same failure at a named place.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        self.rephrased(|facts| format!("{place}: {facts}"))
    }

    /// The facts.
    #[must_use]
    pub fn facts(&self) -> &str {
        &self.facts
    }

    /// The facts and the hint, apart.
    #[must_use]
    pub fn into_parts(self) -> (String, Option<String>) {
        (self.facts, self.hint)
    }
}

impl Hinted for Fault {
    fn hint(&self) -> Option<Cow<'_, str>> {
        self.hint.as_deref().map(Cow::from)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.facts)
    }
}

impl From<String> for Fault {
    fn from(facts: String) -> Self {
        Self::new(facts)
    }
}

impl From<&str> for Fault {
    fn from(facts: &str) -> Self {
        Self::new(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_kept_apart_from_the_facts_and_follows_them_on_one_line() {
        let fault = Fault::new("no table `t`").at("rollup `r`").remedy("run `tallymark init`");
        assert_eq!(fault.to_string(), "rollup `r`: no table `t`");
        assert_eq!(fault.hint().as_deref(), Some("run `tallymark init`"));
        assert_eq!(fault.in_one_line(), "rollup `r`: no table `t`; hint: run `tallymark init`");
        assert_eq!(Fault::of(&fault), fault);
        assert_eq!(Fault::new("no table").in_one_line(), "no table");
    }
}
