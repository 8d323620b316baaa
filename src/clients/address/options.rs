//! The options of an address. Each works as in libpq, or is refused by name with the remedy.
//!
//! Every option is handled here, and unknown ones never reach the driver, which would log their
//! value. An option's value is never quoted, as it may be a password.

use std::borrow::Cow;

/// How an option is treated.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// It is supported.
    Works,
    /// These values match the default behaviour. Others are refused.
    Only(&'static [&'static str], Refusal),
    /// It is refused.
    Refused(Refusal),
}

/// Why an option is refused, if more can be said than that it is, and the remedy.
type Refusal = (&'static str, &'static str);

use crate::model::hint::Fault;
use crate::model::text::nearest;
use Rule::{Only, Refused, Works};

const REMOVE: &str = "remove it from the address";
const LOG_IN: &str = "remove it from the address, and log in with a password or a certificate";
const NO_SCHEMA: &str = "remove it from the address; tallymark.toml names schemas";
const WRITE_PASSWORD: &str = "write the password in its place";

const NO_KEEPALIVE: Refusal =
    ("Tallymark limits every statement and connection itself, and keeps none idle", REMOVE);
const NO_SERVICE: Refusal =
    ("Tallymark reads no service file", "write host, user, password and database into the address");
const NO_KERBEROS: Refusal = ("this driver has no Kerberos", LOG_IN);
const NO_OAUTH: Refusal = ("this driver has no OAuth", LOG_IN);
const NO_VERSION: Refusal = ("the driver speaks version 3.0", REMOVE);
const NO_SCRAM_KEY: Refusal = ("this driver logs in with a password", WRITE_PASSWORD);
const NO_TLS_VERSION: Refusal = ("connections use TLS 1.2 or 1.3", REMOVE);
const NO_CRL: Refusal = ("this driver reads no revocation lists", REMOVE);
const PRISMA: Refusal = ("this is Prisma's", REMOVE);
const RAILS: Refusal = ("this is Rails'", REMOVE);
const JDBC: Refusal = ("this is JDBC's", REMOVE);
const SQLALCHEMY: Refusal = ("this is SQLAlchemy's", REMOVE);
const SUPABASE: Refusal = ("this is Supabase's for other clients", REMOVE);
const ONE_SERVER: Refusal = (
    "Tallymark connects to one server",
    "name the primary, or a proxy that finds it, and remove the option",
);

/// libpq's options, and further ones of frameworks and providers.
const OPTIONS: &[(&str, Rule)] = &[
    ("application_name", Works),
    ("connect_timeout", Works),
    ("dbname", Works),
    ("fallback_application_name", Works),
    ("host", Works),
    ("hostaddr", Works),
    ("options", Works),
    ("password", Works),
    ("port", Works),
    ("sslcert", Works),
    ("sslkey", Works),
    ("sslmode", Works),
    ("sslrootcert", Works),
    ("user", Works),
    (
        "channel_binding",
        Only(
            &["prefer", "disable"],
            (
                "this driver cannot tie the login to the encrypted channel",
                "remove it from the address; without an sslmode, or with sslmode=verify-full, the \
                 server's certificate is verified and keeps others out",
            ),
        ),
    ),
    ("client_encoding", Only(&["utf8", "utf-8"], ("text is read as UTF-8", REMOVE))),
    ("gssdelegation", Only(&["0"], NO_KERBEROS)),
    ("gssencmode", Only(&["disable", "prefer"], ("this driver has no GSS encryption", REMOVE))),
    ("gsslib", Refused(NO_KERBEROS)),
    ("keepalives", Refused(NO_KEEPALIVE)),
    ("keepalives_count", Refused(NO_KEEPALIVE)),
    ("keepalives_idle", Refused(NO_KEEPALIVE)),
    ("keepalives_interval", Refused(NO_KEEPALIVE)),
    ("krbsrvname", Refused(NO_KERBEROS)),
    ("load_balance_hosts", Only(&["disable"], ONE_SERVER)),
    ("max_protocol_version", Refused(NO_VERSION)),
    ("min_protocol_version", Refused(NO_VERSION)),
    ("oauth_client_id", Refused(NO_OAUTH)),
    ("oauth_client_secret", Refused(NO_OAUTH)),
    ("oauth_issuer", Refused(NO_OAUTH)),
    ("oauth_scope", Refused(NO_OAUTH)),
    (
        "passfile",
        Refused((
            "this driver reads the file that the environment names",
            "set PGPASSFILE to it in the environment, and remove the option",
        )),
    ),
    ("replication", Only(&["false", "off", "no", "0"], ("Tallymark reads by queries", REMOVE))),
    ("require_auth", Refused(("this driver cannot insist on a kind of login", REMOVE))),
    ("requirepeer", Refused(("this driver cannot look at the socket's owner", REMOVE))),
    ("scram_client_key", Refused(NO_SCRAM_KEY)),
    ("scram_server_key", Refused(NO_SCRAM_KEY)),
    ("service", Refused(NO_SERVICE)),
    ("servicefile", Refused(NO_SERVICE)),
    ("ssl_max_protocol_version", Only(&["tlsv1.3"], NO_TLS_VERSION)),
    ("ssl_min_protocol_version", Only(&["tlsv1", "tlsv1.1", "tlsv1.2"], NO_TLS_VERSION)),
    (
        "sslcertmode",
        Only(
            &["allow"],
            (
                "this driver sends a certificate if it has one",
                "remove it from the address, and sslcert too to send no certificate",
            ),
        ),
    ),
    ("sslcompression", Only(&["0"], ("connections are not compressed", REMOVE))),
    ("sslcrl", Refused(NO_CRL)),
    ("sslcrldir", Refused(NO_CRL)),
    ("sslkeylogfile", Refused(("no keys are written", REMOVE))),
    ("sslnegotiation", Only(&["postgres"], ("this driver asks for TLS first", REMOVE))),
    (
        "sslpassword",
        Refused((
            "this driver reads keys without a password",
            "store the key without, and remove the option",
        )),
    ),
    ("sslsni", Only(&["1"], ("the server's name is sent", REMOVE))),
    ("target_session_attrs", Only(&["any"], ONE_SERVER)),
    ("tcp_user_timeout", Refused(NO_KEEPALIVE)),
    // Options of other clients.
    ("connection_limit", Refused(PRISMA)),
    (
        "pgbouncer",
        Refused(("this is Prisma's", "remove it from the address; a pooler needs no option here")),
    ),
    ("pool_timeout", Refused(PRISMA)),
    ("schema", Refused(("this is Prisma's", NO_SCHEMA))),
    ("socket_timeout", Refused(PRISMA)),
    ("sslaccept", Refused(("this is Prisma's", "write sslmode in its place"))),
    ("sslidentity", Refused(("this is Prisma's", "write sslcert and sslkey in its place"))),
    ("statement_cache_size", Refused(PRISMA)),
    ("pool", Refused(RAILS)),
    ("prepared_statements", Refused(RAILS)),
    ("reaping_frequency", Refused(RAILS)),
    ("timeout", Refused(("this is Rails'", "write connect_timeout in its place"))),
    ("currentschema", Refused(("this is JDBC's", NO_SCHEMA))),
    ("loginTimeout", Refused(("this is JDBC's", "write connect_timeout in its place"))),
    ("prepareThreshold", Refused(JDBC)),
    ("sslfactory", Refused(("this is JDBC's", "write sslmode=require in its place"))),
    ("async_fallback", Refused(SQLALCHEMY)),
    ("prepared_statement_cache_size", Refused(SQLALCHEMY)),
    ("uselibpqcompat", Refused(("this is node-postgres'", REMOVE))),
    ("statement-cache-capacity", Refused(("this is sqlx's", REMOVE))),
    ("search_path", Refused(("this is pgx's", NO_SCHEMA))),
    (
        "pool_max_conns",
        Refused(("this is pgx's", "remove it from the address; --concurrency says how many")),
    ),
    ("default_query_exec_mode", Refused(("this is pgx's", REMOVE))),
    ("supa", Refused(SUPABASE)),
    ("pool_mode", Refused(("each transaction stands for itself here", REMOVE))),
    ("workaround", Refused(SUPABASE)),
];

/// Other names of the same option in drivers.
const ALIASES: [(&str, &str); 5] = [
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];

/// After these, a name may be the rest of a secret that contains an `&`.
const SECRETS: [&str; 4] = ["password", "sslpassword", "oauth_client_secret", "scram_client_key"];

/// The supported options, decoded, in their order.
pub(super) fn read(query: &str) -> Result<Vec<(&'static str, String)>, Fault> {
    let mut options = Vec::new();
    let mut before = "";
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let unsaid = |what: &str| {
            Fault::new(format!("the address has an option {what}"))
                .remedy("write name=value, and & within a value as %26")
        };
        let Some((name, value)) = option.split_once('=') else {
            return Err(unsaid("without a value"));
        };
        let (name, value) = (super::decoded(name)?, super::decoded(value)?);
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, name)| *name);
        let found = OPTIONS.iter().find(|(known, _)| {
            *known == alias.unwrap_or(&name) || known.eq_ignore_ascii_case(&name) && name != "ssl"
        });
        let Some((known, rule)) = found else {
            if name == "ssl" {
                options.push(("sslmode", ssl(&value)?));
                continue;
            }
            if SECRETS.contains(&before) || !is_name(&name) {
                return Err(unsaid("that no client of PostgreSQL knows (its name is not shown)"));
            }
            return Err(unknown(&name));
        };
        before = known;
        match rule {
            Works => options.push((*known, value.into_owned())),
            Only(values, _) if values.iter().any(|fit| value.eq_ignore_ascii_case(fit)) => {}
            Only(_, (why, remedy)) => {
                let facts = format!("the address has `{known}` with a value that does not work");
                return Err(Fault::new(format!("{facts}: {why}")).remedy(*remedy));
            }
            Refused((why, remedy)) => {
                let facts = format!("the address has the option `{known}`: {why}");
                return Err(Fault::new(facts).remedy(*remedy));
            }
        }
    }
    Ok(options)
}

/// JDBC's and node's `ssl=true`, as libpq reads it.
fn ssl(value: &str) -> Result<String, Fault> {
    match value {
        "true" | "1" => Ok("require".to_owned()),
        _ => Err(Fault::new("the address has `ssl` with a value other than true")
            .remedy("write sslmode=disable, require or verify-full in its place")),
    }
}

fn is_name(name: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "_-.[]".contains(letter);
    (2..=40).contains(&name.len()) && name.chars().all(is_letter)
}

fn unknown(name: &str) -> Fault {
    let works = OPTIONS.iter().filter(|(_, rule)| matches!(rule, Works | Only(..)));
    let facts = format!("the address has an option `{name}` that no client of PostgreSQL knows");
    Fault::new(facts).remedy(match nearest(name, works.map(|(name, _)| *name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => REMOVE.to_owned(),
    })
}

/// The names of the supported options, for the documentation's test.
#[cfg(test)]
pub(super) fn working() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|(_, rule)| matches!(rule, Works)).map(|(name, _)| *name)
}

/// Checks an `sslmode` of libpq or another client.
pub(super) fn ssl_mode(mode: &str) -> Result<Cow<'static, str>, Fault> {
    const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
    if let Some(mode) = MODES.iter().find(|known| mode.eq_ignore_ascii_case(known)) {
        return Ok(Cow::Borrowed(mode));
    }
    let (facts, remedy) = match mode {
        "no-verify" => (
            "sslmode=no-verify in the address is node-postgres'",
            "write sslmode=require: encrypted, without verification",
        ),
        "allow" => (
            "sslmode=allow in the address is not done by this driver",
            "write sslmode=prefer (encrypted where the server can), or better require or verify-full",
        ),
        _ => (
            "the address has an unknown sslmode",
            "write sslmode=disable, prefer, require, verify-ca or verify-full",
        ),
    };
    Err(Fault::new(facts).remedy(remedy))
}
