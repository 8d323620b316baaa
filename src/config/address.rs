//! Where the file says that a database's address is found.

use super::raw::{Node, Section};
use crate::clients::address::{Address, DatabaseUrl};
use crate::clients::token::TokenLogin;
use crate::model::hint::Fault;
use crate::model::text::shown;

/// The ways to log in that `auth` names.
pub(super) const AUTH: [&str; 2] = ["password", "rds-iam"];

/// Parses the address of a section, and how the role of the address logs in.
pub(super) fn read_with_auth(
    section: &Section<'_>,
    url: Option<Address>,
) -> Option<Option<Address>> {
    let Some(node) = section.get("auth") else { return Some(url) };
    let word = node.string(r#""password" or "rds-iam""#)?;
    if !AUTH.contains(&word) {
        let remedy = r#"use "password" or "rds-iam""#;
        return node.wrong(Fault::new(format!("{} is unknown", shown(word))).remedy(remedy));
    }
    let Some(address) = url else {
        let fault = Fault::new("there is no url beside it");
        return node.wrong(fault.remedy("write it beside the url that it is for"));
    };
    if word == "password" {
        return Some(Some(address));
    }
    if let Some(url) = address.known() {
        if url.has_password() {
            let fault =
                Fault::new(r#""rds-iam" logs in by tokens, and the address has a password"#);
            return node.wrong(fault.remedy("remove the password from the address"));
        }
        if let Err(fault) = TokenLogin::of(url) {
            return node.wrong(fault);
        }
    }
    Some(Some(Address::WithToken(Box::new(address))))
}

/// Parses an address: `{ env = "NAME" }`, `{ parameter = "/app/db" }`, `{ secret = "arn…" }`, or
/// the address itself.
pub(super) fn read(node: &Node<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<Address> {
    if let Some(text) = node.as_str() {
        return DatabaseUrl::new(text)
            .map_or_else(|fault| node.wrong(fault), |url| Some(Address::Url(url)));
    }
    let (key, entry) = place(node, r#"{ env = "NAME" } or a string "postgres://…""#)?;
    match key {
        "parameter" => parameter(&entry).map(Address::Parameter),
        "secret" => secret(&entry).map(Address::Secret),
        _ => from_environment(&entry, env).map(Address::Url),
    }
}

/// The one place of `{ env = … }`, `{ parameter = … }` and `{ secret = … }` that is given.
pub(super) fn place<'d>(node: &Node<'d>, expected: &str) -> Option<(&'static str, Node<'d>)> {
    const KEYS: [&str; 3] = ["env", "parameter", "secret"];
    let mut section = node.section(expected)?;
    section.only(&KEYS);
    let places = KEYS.iter().filter_map(|key| Some((*key, section.get(key)?)));
    match places.collect::<Vec<_>>().as_slice() {
        [(key, entry)] => Some((*key, entry.clone())),
        [] => Some(("env", section.need("env", r#"write { env = "NAME" }"#)?)),
        [_, (_, second), ..] => second.wrong("give one of env, parameter and secret"),
    }
}

/// The name of a parameter.
pub(super) fn parameter(entry: &Node<'_>) -> Option<String> {
    name(entry, "/app/db", 1011)
}

/// The name of a secret.
pub(super) fn secret(entry: &Node<'_>) -> Option<String> {
    name(entry, "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app/db-AbCdEf", 2048)
}

/// The name of a parameter or secret: any text that AWS may accept, of at most `length_max` bytes.
fn name(entry: &Node<'_>, shape: &str, length_max: usize) -> Option<String> {
    let name = entry.string(&format!("a name such as \"{shape}\""))?;
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "/_.-:+=@!".contains(character);
    let is_address = name.contains("://");
    if name.is_empty() || name.len() > length_max || is_address || !name.chars().all(is_plain) {
        // The user may have put the address itself here.
        return entry
            .wrong(Fault::new("not a name").remedy(format!("write for example \"{shape}\"")));
    }
    Some(name.to_owned())
}

fn from_environment(entry: &Node<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<DatabaseUrl> {
    let form = "postgres://user:password@host:5432/database";
    let (name, value) = variable(entry, env, ("DATABASE_URL", form))?;
    DatabaseUrl::new(value).map_or_else(
        |fault| entry.wrong(fault.within(format!("the environment variable {name}"))),
        Some,
    )
}

/// The environment variable that `entry` names, and its value. `example` is such a name, and the
/// form of the value.
pub(super) fn variable<'d>(
    entry: &Node<'d>,
    env: &dyn Fn(&str) -> Option<String>,
    (example, form): (&str, &str),
) -> Option<(&'d str, String)> {
    let name =
        entry.string(&format!("the name of an environment variable such as \"{example}\""))?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| !c.is_ascii_digit());
    if !is_name {
        return entry.wrong(
            Fault::new(format!("{} is not the name of an environment variable", shown(name)))
                .remedy("use letters, digits and _"),
        );
    }
    match env(name).filter(|value| !value.is_empty()) {
        Some(value) => Some((name, value)),
        None => entry.wrong(
            Fault::new(format!("the environment variable {name} is not set or empty"))
                .remedy(format!("export {name}={form}")),
        ),
    }
}
