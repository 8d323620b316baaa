//! Where the file says that a database's address is found.

use super::raw::Node;
use crate::clients::address::{Address, DatabaseUrl};
use crate::model::hint::Fault;
use crate::model::text::shown;

/// Parses an address: `{ env = "NAME" }`, `{ parameter = "/app/db" }`, `{ secret = "arn…" }`, or
/// the address itself.
pub(super) fn read(node: &Node<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<Address> {
    const KEYS: [&str; 3] = ["env", "parameter", "secret"];
    if let Some(text) = node.as_str() {
        return DatabaseUrl::new(text)
            .map_or_else(|fault| node.wrong(fault), |url| Some(Address::Url(url)));
    }
    let mut section = node.section(r#"{ env = "NAME" } or a string "postgres://…""#)?;
    section.only(&KEYS);
    let places = KEYS.iter().filter_map(|key| Some((*key, section.get(key)?)));
    let (key, entry) = match places.collect::<Vec<_>>().as_slice() {
        [(key, entry)] => (*key, entry.clone()),
        [] => ("env", section.need("env", r#"write { env = "NAME" }"#)?),
        [_, (_, second), ..] => return second.wrong("give one of env, parameter and secret"),
    };
    match key {
        "parameter" => name(&entry, "/app/db", 1011).map(Address::Parameter),
        "secret" => {
            let shape = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app/db-AbCdEf";
            name(&entry, shape, 2048).map(Address::Secret)
        }
        _ => from_environment(&entry, env).map(Address::Url),
    }
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
    let name = entry.string(r#"the name of an environment variable such as "DATABASE_URL""#)?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| !c.is_ascii_digit());
    if !is_name {
        return entry.wrong(
            Fault::new(format!("{} is not the name of an environment variable", shown(name)))
                .remedy("use letters, digits and _"),
        );
    }
    match env(name).filter(|value| !value.is_empty()) {
        Some(value) => DatabaseUrl::new(value).map_or_else(
            |fault| entry.wrong(fault.within(format!("the environment variable {name}"))),
            Some,
        ),
        None => entry.wrong(
            Fault::new(format!("the environment variable {name} is not set or empty"))
                .remedy(format!("export {name}=postgres://user:password@host:5432/database")),
        ),
    }
}
