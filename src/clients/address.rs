//! A database's address. It contains a password and never shows it.

mod options;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use crate::model::hint::Fault;

/// The address of a PostgreSQL database: `postgres://user:password@host:5432/database`.
///
/// `Debug` and `Display` hide the password and all options.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    text: String,
    server: Server,
    /// All settings for the driver except the server, decoded, by libpq's names.
    settings: BTreeMap<&'static str, String>,
    connect_timeout: Option<Duration>,
}

/// Where the server listens.
#[derive(Clone, PartialEq, Eq)]
struct Server {
    /// A name, an address without brackets, or a socket's directory.
    host: String,
    port: Option<u16>,
}

/// The longest connection time that an address can set. No budget exceeds a Lambda function's 15
/// minutes.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(900);

const PORT: u16 = 5432;

fn no_host() -> Fault {
    Fault::new("the address names no host")
        .remedy("write postgres://user:password@host:5432/database")
}

/// The relevant parts of an address, undecoded.
struct Parts<'u> {
    user: Option<&'u str>,
    password: Option<&'u str>,
    host: &'u str,
    port: Option<&'u str>,
    database: &'u str,
    query: Option<&'u str>,
}

impl DatabaseUrl {
    /// Checks `text`. The error contains no part of any value.
    ///
    /// # Errors
    /// The text has not the form of an address, or an option is unsupported.
    pub fn new(text: impl Into<String>) -> Result<Self, Fault> {
        let text = text.into();
        let parts = split(&text)?;
        let mut settings = BTreeMap::new();
        for (name, raw) in [
            ("host", Some(parts.host)),
            ("port", parts.port),
            ("user", parts.user),
            ("password", parts.password),
            ("dbname", Some(parts.database)),
        ] {
            // As in libpq, an empty part counts as missing.
            if let Some(raw) = raw.filter(|raw| !raw.is_empty()) {
                settings.insert(name, decoded(raw)?.into_owned());
            }
        }
        for (name, value) in options::read(parts.query.unwrap_or_default())? {
            // As in libpq, the last of several counts, and it overrides the address's own part.
            match value.is_empty() {
                true => settings.remove(name),
                false => settings.insert(name, value),
            };
        }
        let server = Server::taken_from(&mut settings)?;
        verification(&mut settings)?;
        if let Some(name) = settings.remove("fallback_application_name") {
            settings.entry("application_name").or_insert(name);
        }
        let connect_timeout =
            settings.remove("connect_timeout").map(|it| connect_timeout(&it)).transpose()?;
        Ok(Self { text, server, settings, connect_timeout })
    }

    /// The address with its password.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        &self.text
    }

    /// The address with its password, for the driver, with only those options that the driver
    /// knows.
    #[must_use]
    pub(crate) fn for_driver(&self) -> String {
        let Server { host, port } = &self.server;
        let port = port.unwrap_or(PORT);
        let mut url = format!("postgres://localhost/?host={}&port={port}", encoded(host));
        for (name, value) in &self.settings {
            let _ = write!(url, "&{name}={}", encoded(value));
        }
        url
    }

    /// The application name that the address sets.
    #[must_use]
    pub(crate) fn application_name(&self) -> Option<&str> {
        self.settings.get("application_name").map(String::as_str)
    }

    /// The server for messages: `db.example.com:5432`, `[::1]:5432`, or a socket's directory and
    /// port.
    #[must_use]
    pub(crate) fn place(&self) -> String {
        let Server { host, port } = &self.server;
        let port = port.unwrap_or(PORT);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The time limit of connecting, if the address sets one. It is the option `connect_timeout`,
    /// in seconds, as in libpq, where 0 means no limit. The maximum is 15 minutes.
    #[must_use]
    pub(crate) const fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The encryption of the connection, if the address sets it.
    #[must_use]
    pub(crate) fn ssl_mode(&self) -> Option<&str> {
        self.settings.get("sslmode").map(String::as_str)
    }

    #[must_use]
    pub(crate) fn user(&self) -> Option<&str> {
        self.settings.get("user").map(String::as_str)
    }

    #[must_use]
    pub(crate) fn has_password(&self) -> bool {
        self.settings.contains_key("password")
    }

    /// The server's name, address or socket directory, and its port.
    #[must_use]
    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        (&self.server.host, self.server.port.unwrap_or(PORT))
    }

    /// Whether the server is this machine: a loopback address, `localhost` or a Unix socket.
    #[must_use]
    pub(crate) fn is_loopback(&self) -> bool {
        let host = &self.server.host;
        host.starts_with('/')
            || host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(parts) = split(&self.text) else { return f.write_str("postgres://***") };
        f.write_str("postgres://")?;
        if let Some(user) = parts.user {
            write!(f, "{user}{}@", if parts.password.is_some() { ":***" } else { "" })?;
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

impl Server {
    /// Removes host and port from the settings and returns them.
    fn taken_from(settings: &mut BTreeMap<&'static str, String>) -> Result<Self, Fault> {
        let host = settings.remove("host");
        let host = match (host, settings.remove("hostaddr")) {
            (host, None) => host.unwrap_or_default(),
            (None, Some(address)) if address.parse::<IpAddr>().is_ok() => address,
            (None, Some(_)) => {
                return Err(Fault::new("hostaddr in the address is no IP address")
                    .remedy("write host in its place"));
            }
            (Some(_), Some(_)) => {
                return Err(Fault::new("the address has both a host and hostaddr")
                    .remedy("remove hostaddr"));
            }
        };
        let port = settings.remove("port");
        if host.contains(',') || port.as_ref().is_some_and(|port| port.contains(',')) {
            return Err(Fault::new(
                "the address names several hosts, and Tallymark connects to one",
            )
            .remedy("name the primary, or a proxy that finds it"));
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(&host).to_owned();
        if host.is_empty() {
            return Err(no_host());
        }
        if host.starts_with('@') {
            return Err(Fault::new("the address names an abstract socket")
                .remedy("write the directory of the socket file, host=/var/run/postgresql"));
        }
        let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or_else(no_port));
        Ok(Self { host, port: port.transpose()? })
    }
}

fn no_port() -> Fault {
    Fault::new("the address has no port number where one belongs").remedy("write host:5432")
}

/// Gives `sslmode` and `sslrootcert` the meaning that they have in libpq.
fn verification(settings: &mut BTreeMap<&'static str, String>) -> Result<(), Fault> {
    let mode = settings.get("sslmode").map(|mode| options::ssl_mode(mode)).transpose()?;
    if let Some(mode) = &mode {
        settings.insert("sslmode", mode.to_string());
    }
    match (settings.get("sslrootcert").map(String::as_str), mode.as_deref()) {
        (Some("system"), None | Some("verify-full")) => {
            settings.remove("sslrootcert");
            settings.insert("sslmode", "verify-full".into());
        }
        (Some("system"), Some(_)) => {
            return Err(Fault::new("sslrootcert=system in the address needs sslmode=verify-full")
                .remedy("write sslmode=verify-full, or remove sslrootcert"));
        }
        // A configured authority implies verification.
        (Some(_), Some("require")) => {
            settings.insert("sslmode", "verify-ca".into());
        }
        _ => {}
    }
    Ok(())
}

fn split(text: &str) -> Result<Parts<'_>, Fault> {
    if text.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err(
            Fault::new("the address contains white space").remedy("remove it, or write it as %20")
        );
    }
    let rest = without_scheme(text)?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A raw `/`, `?` or `#` in the password would split it and expose one half.
    if tail.contains(['@', '#']) {
        return Err(Fault::new("the address has `@` or `#` after the host").remedy(
            "write special characters of the password as %40 (@), %2F (/), %3F (?), %23 (#)",
        ));
    }
    let (user, server) = match authority.rsplit_once('@') {
        Some((user, server)) => (Some(user), server),
        None => (None, authority),
    };
    let (user, password) = match user.map(|user| user.split_once(':').ok_or(user)) {
        Some(Ok((user, password))) => (Some(user), Some(password)),
        Some(Err(user)) => (Some(user), None),
        None => (None, None),
    };
    let bracket = server.find(']').unwrap_or(0);
    let (host, port) = match server[bracket..].find(':') {
        // Several hosts are reported as such, and not as an invalid port.
        Some(_) if server.contains(',') => (server, None),
        Some(colon) => (&server[..bracket + colon], Some(&server[bracket + colon + 1..])),
        None => (server, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(no_port());
    }
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    let database = path.strip_prefix('/').unwrap_or(path);
    Ok(Parts { user, password, host, port, database, query })
}

/// The part after `postgres://`.
fn without_scheme(text: &str) -> Result<&str, Fault> {
    const SCHEMES: [&str; 2] = ["postgres", "postgresql"];
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    if SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Ok(rest);
    }
    // `postgresql+psycopg2`, `jdbc:postgresql`. The rest may stay as it is.
    let is_driver = |known: &&str| scheme.to_ascii_lowercase().starts_with(&format!("{known}+"));
    let (facts, remedy) = match scheme {
        "jdbc:postgresql" => (
            "the address begins as JDBC's do",
            "write postgres:// in place of jdbc:postgresql://, and user and password before the host",
        ),
        _ if SCHEMES.iter().any(is_driver) => {
            ("the address names a driver after a +", "write postgresql:// without it")
        }
        "prisma" | "prisma+postgres" => {
            ("the address is one of Prisma's proxy", "write that of the database")
        }
        _ => (
            "the address begins with neither postgres:// nor postgresql://",
            "write postgres://user:password@host:5432/database",
        ),
    };
    Err(Fault::new(facts).remedy(remedy))
}

/// `text` with its `%XX` decoded. As in libpq, a `+` stays a plus.
fn decoded(text: &str) -> Result<Cow<'_, str>, Fault> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let wrong = || Fault::new("the address has a % that begins no escape").remedy("write % as %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let code = digit(rest.next()).zip(digit(rest.next()));
        let code = code.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(code.filter(|code| *code != 0).ok_or_else(wrong)?);
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| wrong())
}

/// RFC 3986: encodes all but the unreserved characters as `%XX`.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

fn connect_timeout(value: &str) -> Result<Duration, Fault> {
    match value.parse().map(Duration::from_secs) {
        Ok(Duration::ZERO) => Ok(CONNECT_TIMEOUT_MAX),
        Ok(timeout) => Ok(timeout.min(CONNECT_TIMEOUT_MAX)),
        Err(_) => Err(Fault::new("connect_timeout in the address is not a number of seconds")
            .remedy("write connect_timeout=15")),
    }
}

/// The place of a database's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// In the configuration itself.
    Url(DatabaseUrl),
    /// In this parameter of AWS Systems Manager.
    Parameter(String),
    /// In this secret of AWS Secrets Manager, by name or ARN.
    Secret(String),
    /// There, and the login is by tokens of RDS instead of a password.
    WithToken(Box<Address>),
}

impl Address {
    /// The address, if it is known without a request.
    #[must_use]
    pub(crate) const fn known(&self) -> Option<&DatabaseUrl> {
        match self {
            Self::Url(url) => Some(url),
            Self::WithToken(address) => address.known(),
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
            Self::WithToken(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
