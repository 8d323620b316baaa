//! A form's fields as the words of a command.

use std::collections::BTreeMap;

use crate::model::hint::Fault;
use crate::model::text::shown;

/// The fields of a form.
type Fields = BTreeMap<String, String>;

/// What a form asks for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::console) enum Asked {
    /// Something that changes or reads a lot: it runs, and its page shows the end.
    Act(Vec<String>),
    /// The plan of a backfill, and what starts it.
    Plan(Vec<String>),
}

/// Reads a form. The command itself judges the values.
pub(in crate::cli::console) fn asked(fields: &Fields) -> Result<Asked, Fault> {
    let action = fields.get("action").map_or("", String::as_str);
    let form = Form { fields };
    let words = match action {
        "replay" => {
            let which = match form.flag("failed") {
                true => vec!["--failed".to_owned()],
                false => vec![form.needed("slice")?],
            };
            let rest = [form.needed("reason")?, "--yes".to_owned()];
            let shrink = form.flag("allow-shrink").then(|| "--allow-shrink".to_owned());
            form.command(action, which.into_iter().chain(rest).chain(shrink))
        }
        "verify" => form.command(action, [form.needed("slice")?]),
        "plan" => return Ok(Asked::Plan(form.command(action, form.range()?))),
        "backfill" => form.command(action, form.range()?.into_iter().chain(["--yes".to_owned()])),
        "pause" => {
            let given = [form.given("reason"), form.given("for"), form.only_backfills()];
            form.command(action, given.into_iter().flatten())
        }
        "resume" => form.command(action, form.only_backfills()),
        "speed" => {
            let ratio = form.text("ratio").ok_or_else(|| missing("ratio"))?;
            let mut words = form.command(action, form.only_backfills());
            words
                .insert(words.len() - usize::from(form.text("rollup").is_some()), ratio.to_owned());
            words
        }
        "cancel" => form.command(action, []),
        _ => {
            let fault = Fault::new(format!("there is no action {}", shown(action)));
            return Err(fault.remedy("use the forms of the console"));
        }
    };
    Ok(Asked::Act(words))
}

fn missing(field: &str) -> Fault {
    Fault::new(format!("the field `{field}` is empty")).remedy("go back, and fill it in")
}

struct Form<'f> {
    fields: &'f Fields,
}

impl Form<'_> {
    /// A field that is filled in.
    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|it| it.trim()).filter(|it| !it.is_empty())
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// An option with the field's text. In one word, so that no text is taken for an option.
    fn given(&self, name: &str) -> Option<String> {
        self.text(name).map(|text| format!("--{name}={text}"))
    }

    fn needed(&self, name: &str) -> Result<String, Fault> {
        self.given(name).ok_or_else(|| missing(name))
    }

    fn only_backfills(&self) -> Option<String> {
        self.flag("backfill").then(|| "--backfill".to_owned())
    }

    fn range(&self) -> Result<Vec<String>, Fault> {
        let force = self.flag("force").then(|| "--force".to_owned());
        let range = [Some(self.needed("from")?), self.given("to"), force];
        Ok(range.into_iter().flatten().collect())
    }

    /// The command with its options, and the rollup after them.
    fn command(&self, name: &str, options: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut words = vec![name.to_owned()];
        words.extend(options);
        // What follows is no option and no subcommand.
        words.push("--".to_owned());
        words.extend(self.text("rollup").map(str::to_owned));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(fields: &[(&str, &str)]) -> Result<Vec<String>, Fault> {
        let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        match asked(&fields.iter().map(pair).collect())? {
            Asked::Act(words) | Asked::Plan(words) => Ok(words),
        }
    }

    #[test]
    fn a_form_is_a_command_and_no_text_becomes_an_option() {
        for (fields, command) in [
            (
                &[
                    ("action", "replay"),
                    ("rollup", "daily"),
                    ("slice", "2026-02-10"),
                    ("reason", "--via x"),
                ][..],
                "replay --slice=2026-02-10 --reason=--via x --yes -- daily",
            ),
            (
                &[("action", "replay"), ("rollup", "daily"), ("failed", "1"), ("reason", "r")],
                "replay --failed --reason=r --yes -- daily",
            ),
            (
                &[("action", "verify"), ("rollup", "--json"), ("slice", "x")],
                "verify --slice=x -- --json",
            ),
            (
                &[
                    ("action", "backfill"),
                    ("rollup", "list"),
                    ("from", "2026-01-01"),
                    ("to", ""),
                    ("force", "1"),
                ],
                "backfill --from=2026-01-01 --force --yes -- list",
            ),
            (&[("action", "plan"), ("rollup", "daily"), ("from", "a")], "plan --from=a -- daily"),
            (
                &[("action", "pause"), ("reason", " noon "), ("for", "1h")],
                "pause --reason=noon --for=1h --",
            ),
            (
                &[("action", "pause"), ("rollup", "daily"), ("backfill", "1")],
                "pause --backfill -- daily",
            ),
            (&[("action", "resume")], "resume --"),
            (&[("action", "speed"), ("ratio", "-3")], "speed -- -3"),
            (&[("action", "speed"), ("ratio", "10"), ("rollup", "daily")], "speed -- 10 daily"),
            (&[("action", "cancel"), ("rollup", "daily")], "cancel -- daily"),
        ] {
            assert_eq!(words(fields).map(|it| it.join(" ")).as_deref(), Ok(command));
        }
        for wrong in [
            &[][..],
            &[("action", "rollup drop")],
            &[("action", "init")],
            &[("action", "replay"), ("rollup", "daily"), ("slice", "x"), ("reason", " ")],
            &[("action", "backfill"), ("rollup", "daily")],
            &[("action", "speed")],
        ] {
            assert!(words(wrong).is_err(), "{wrong:?}");
        }
    }
}
