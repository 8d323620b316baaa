//! A database's address, which holds a password and never shows it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::error::shown;
use super::raw::Node;

/// The address of a PostgreSQL database: `postgres://user:password@host:5432/database`.
///
/// `Debug` and `Display` hide the password and all options.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

/// The longest time to connect that an address can ask for: no budget is longer than a Lambda function's 15 minutes.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(900);

/// The parts of an address that matter here, undecoded.
struct Parts<'u> {
    user: Option<&'u str>,
    has_password: bool,
    host: &'u str,
    port: Option<&'u str>,
    database: &'u str,
    query: Option<&'u str>,
}

impl<'u> Parts<'u> {
    /// The options, in their order.
    fn options(&self) -> impl DoubleEndedIterator<Item = &'u str> + use<'u> {
        self.query.into_iter().flat_map(|query| query.split('&'))
    }

    /// What an option is set to; of several the last counts.
    fn option(&self, names: &[&str]) -> Option<&'u str> {
        let mut options = self.options().filter_map(|option| option.split_once('='));
        options.rfind(|(name, _)| names.contains(name)).map(|(_, value)| value)
    }
}

impl DatabaseUrl {
    /// Checks `text`; the error is a sentence without a word of the value.
    ///
    /// # Errors
    /// What an address must look like.
    pub fn new(text: impl Into<String>) -> Result<Self, &'static str> {
        let text = text.into();
        let parts = split(&text)?;
        if effective_host(&parts).is_empty() {
            return Err(
                "the address names no host; write postgres://user:password@host:5432/database",
            );
        }
        connect_timeout(&parts)?;
        Ok(Self(text))
    }

    /// The address with its password.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The address with its password, for the driver: without `connect_timeout`, which it does not know.
    #[must_use]
    pub fn for_driver(&self) -> String {
        let Some((rest, query)) = self.0.split_once('?') else { return self.0.clone() };
        let is_known = |option: &&str| option.split('=').next() != Some("connect_timeout");
        let options: Vec<_> = query.split('&').filter(is_known).collect();
        format!("{rest}?{}", options.join("&"))
    }

    /// How long the server may take to let us in, if the address says so: the option `connect_timeout`, in seconds, as
    /// for libpq, where 0 is no limit. 15 minutes at most.
    #[must_use]
    pub fn connect_timeout(&self) -> Option<Duration> {
        split(&self.0).and_then(|parts| connect_timeout(&parts)).ok().flatten()
    }

    /// Whether the address says how the connection is to be encrypted.
    #[must_use]
    pub fn has_ssl_mode(&self) -> bool {
        let Ok(parts) = split(&self.0) else { return false };
        let is_mode =
            |option: &str| matches!(option.split('=').next(), Some("sslmode" | "ssl-mode"));
        parts.options().any(is_mode)
    }

    /// Whether the server is this machine: a loopback address, `localhost` or a Unix socket.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let Ok(parts) = split(&self.0) else { return false };
        let is_encoded =
            |option: &str| option.split('=').next().is_some_and(|key| key.contains('%'));
        if parts.options().any(is_encoded) {
            // The driver decodes the options' names: this one may be `host`.
            return false;
        }
        let host = effective_host(&parts);
        let is_socket =
            host.starts_with('/') || host.get(..3).is_some_and(|h| h.eq_ignore_ascii_case("%2f"));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        is_socket
            || host.eq_ignore_ascii_case("localhost")
            || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(parts) = split(&self.0) else { return f.write_str("postgres://***") };
        f.write_str("postgres://")?;
        if let Some(user) = parts.user {
            write!(f, "{user}{}@", if parts.has_password { ":***" } else { "" })?;
        }
        f.write_str(parts.host)?;
        if let Some(port) = parts.port {
            write!(f, ":{port}")?;
        }
        if !parts.database.is_empty() {
            write!(f, "/{}", parts.database)?;
        }
        // Options may hold a password too.
        f.write_str(if parts.query.is_some() { "?…" } else { "" })
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

fn split(text: &str) -> Result<Parts<'_>, &'static str> {
    if text.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err("the address contains white space; remove it, or write it as %20");
    }
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or("the address must begin with postgres:// or postgresql://")?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A raw `/`, `?` or `#` in the password would cut it in two and put one half in the open.
    if tail.contains(['@', '#']) {
        return Err(
            "the address has `@` or `#` after the host; write special characters of the password \
             as %40 (@), %2F (/), %3F (?), %23 (#)",
        );
    }
    let (user, server) = match authority.rsplit_once('@') {
        Some((user, server)) => (Some(user), server),
        None => (None, authority),
    };
    let (user, has_password) = match user.map(|user| user.split_once(':').ok_or(user)) {
        Some(Ok((user, _))) => (Some(user), true),
        Some(Err(user)) => (Some(user), false),
        None => (None, false),
    };
    let bracket = server.find(']').unwrap_or(0);
    let (host, port) = match server[bracket..].find(':') {
        Some(colon) => (&server[..bracket + colon], Some(&server[bracket + colon + 1..])),
        None => (server, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the address has no port number after the host's `:`; write host:5432");
    }
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    let database = path.strip_prefix('/').unwrap_or(path);
    Ok(Parts { user, has_password, host, port, database, query })
}

/// The host that the driver will use: options win over the host's own place.
fn effective_host<'u>(parts: &Parts<'u>) -> &'u str {
    parts.option(&["host", "hostaddr"]).unwrap_or(parts.host)
}

fn connect_timeout(parts: &Parts<'_>) -> Result<Option<Duration>, &'static str> {
    let Some(value) = parts.option(&["connect_timeout"]) else { return Ok(None) };
    match value.parse().map(Duration::from_secs) {
        Ok(Duration::ZERO) => Ok(Some(CONNECT_TIMEOUT_MAX)),
        Ok(timeout) => Ok(Some(timeout.min(CONNECT_TIMEOUT_MAX))),
        Err(_) => Err(
            "connect_timeout in the address is not a number of seconds; write connect_timeout=15",
        ),
    }
}

/// Where a database's address is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Here.
    Url(DatabaseUrl),
    /// In this parameter of AWS Systems Manager.
    Parameter(String),
    /// In this secret of AWS Secrets Manager, by name or ARN.
    Secret(String),
}

impl Address {
    /// The address, if it is known without asking anybody.
    #[must_use]
    pub const fn known(&self) -> Option<&DatabaseUrl> {
        match self {
            Self::Url(url) => Some(url),
            Self::Parameter(_) | Self::Secret(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Parameter(name) => write!(f, "parameter {name}"),
            Self::Secret(name) => write!(f, "secret {name}"),
        }
    }
}

/// Reads an address: `{ env = "NAME" }`, `{ parameter = "/app/db" }`, `{ secret = "arn…" }`, or the address itself.
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

/// The name of a parameter or secret: whatever AWS may accept, of at most `length_max` bytes.
fn name(entry: &Node<'_>, shape: &str, length_max: usize) -> Option<String> {
    let name = entry.string(&format!("a name such as \"{shape}\""))?;
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "/_.-:+=@!".contains(character);
    let is_address = name.contains("://");
    if name.is_empty() || name.len() > length_max || is_address || !name.chars().all(is_plain) {
        // Somebody may have put the address itself here.
        return entry.wrong(format!("not a name; write for example \"{shape}\""));
    }
    Some(name.to_owned())
}

fn from_environment(entry: &Node<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<DatabaseUrl> {
    let name = entry.string(r#"the name of an environment variable such as "DATABASE_URL""#)?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| !c.is_ascii_digit());
    if !is_name {
        return entry.wrong(format!(
            "{} is not the name of an environment variable; use letters, digits and _",
            shown(name)
        ));
    }
    match env(name).filter(|value| !value.is_empty()) {
        Some(value) => DatabaseUrl::new(value).map_or_else(
            |fault| entry.wrong(format!("in the environment variable {name}, {fault}")),
            Some,
        ),
        None => entry.wrong(format!(
            "the environment variable {name} is not set or empty; \
             export {name}=postgres://user:password@host:5432/database"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> DatabaseUrl {
        DatabaseUrl::new(text).unwrap()
    }

    #[test]
    fn neither_debug_nor_display_shows_a_password() {
        for (text, display) in [
            ("postgres://app:hunter2@db:5432/x?sslmode=require", "postgres://app:***@db:5432/x?…"),
            ("postgresql://app:hun@ter2@db/x", "postgres://app:***@db/x"),
            ("postgres://app:hun:ter2@[::1]:5432/x", "postgres://app:***@[::1]:5432/x"),
            ("postgres://app@db", "postgres://app@db"),
            ("postgres://db/x?password=hunter2", "postgres://db/x?…"),
            ("postgres://:hunter2@db/x", "postgres://:***@db/x"),
        ] {
            assert_eq!(url(text).to_string(), display);
            assert_eq!(format!("{:?}", url(text)), format!("DatabaseUrl({display})"));
            assert_eq!(url(text).expose(), text);
        }
    }

    #[test]
    fn an_address_that_cannot_be_split_safely_is_refused() {
        for text in [
            "",
            "mysql://app:hunter2@db/x",
            "app:hunter2@db/x",
            "postgres://app:hun/ter2@db/x",
            "postgres://app:12?ter2@db/x",
            "postgres://app:12#ter2@db/x",
            "postgres://app:12#ter2",
            "postgres://app:hunter2@db:port/x",
            "postgres://app:hunter2@db:/x",
            "postgres://app:hunter2@/x",
            "postgres:///x",
            "postgres://app:hun ter2@db/x",
            "postgres://app:hunter2@db/x\n",
            "postgres://app:hunter2@db/x?connect_timeout=hunter2",
            "postgres://app:hunter2@db/x?connect_timeout=-1",
        ] {
            let fault = DatabaseUrl::new(text).unwrap_err();
            assert!(!fault.contains("ter2"), "{fault}");
        }
    }

    #[test]
    fn the_time_to_connect_is_that_of_the_address() {
        for (text, seconds, for_driver) in [
            ("postgres://app@db/x", None, "postgres://app@db/x"),
            ("postgres://app@db/x?connect_timeout=30", Some(30), "postgres://app@db/x?"),
            (
                "postgres://app@db/x?sslmode=require&connect_timeout=2&connect_timeout=60&host=b",
                Some(60),
                "postgres://app@db/x?sslmode=require&host=b",
            ),
            ("postgres://app@db/x?connect_timeout=0", Some(900), "postgres://app@db/x?"),
            ("postgres://app@db/x?connect_timeout=100000", Some(900), "postgres://app@db/x?"),
            // Words in other places say nothing.
            (
                "postgres://app:connect_timeout=9@db/connect_timeout=9?application_name=connect_timeout=9",
                None,
                "postgres://app:connect_timeout=9@db/connect_timeout=9?application_name=connect_timeout=9",
            ),
        ] {
            assert_eq!(url(text).connect_timeout(), seconds.map(Duration::from_secs), "{text}");
            assert_eq!(url(text).for_driver(), for_driver);
        }
    }

    #[test]
    fn a_loopback_server_is_recognised_wherever_the_host_is_named() {
        for text in [
            "postgres://app@localhost/x",
            "postgres://app@127.0.0.1:5432/x",
            "postgres://app@127.8.0.1/x",
            "postgres://app@[::1]:5432/x",
            "postgres://app@%2Fvar%2Frun%2Fpostgresql/x",
            "postgres:///x?host=/var/run/postgresql",
        ] {
            assert!(url(text).is_loopback(), "{text}");
        }
        for text in [
            "postgres://localhost@db.example.com/x",
            "postgres://app@localhost.example.com/x",
            "postgres://app@localhost/x?host=db.example.com",
            "postgres://app@localhost/x?ho%73t=db.example.com",
            "postgres://app@10.0.0.1/x",
            "postgres://app@[::2]/x",
        ] {
            assert!(!url(text).is_loopback(), "{text}");
        }
    }
}
