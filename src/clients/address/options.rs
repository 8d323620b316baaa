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
    /// These values match the default behaviour. Others are refused for this reason.
    Only(&'static [&'static str], &'static str),
    /// It is refused for this reason.
    Refused(&'static str),
}

use crate::model::text::nearest;
use Rule::{Only, Refused, Works};

const NO_KEEPALIVE: &str =
    "remove it; Tallymark limits every statement and connection itself, and keeps none idle";
const NO_SERVICE: &str = "write host, user, password and database into the address";
const NO_KERBEROS: &str = "remove it and log in with a password or a certificate";
const NO_TLS_VERSION: &str = "remove it; connections use TLS 1.2 or 1.3";
const NO_CRL: &str = "remove it; this driver reads no revocation lists";
const PRISMA: &str = "this is Prisma's; remove it";
const RAILS: &str = "this is Rails'; remove it";
const ONE_SERVER: &str =
    "Tallymark connects to one server: name the primary, or a proxy that finds it, and remove it";

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
            "this driver cannot tie the login to the encrypted channel; remove it: without an \
             sslmode, or with sslmode=verify-full, the server's certificate is verified and keeps \
             others out",
        ),
    ),
    ("client_encoding", Only(&["utf8", "utf-8"], "text is read as UTF-8; remove it")),
    ("gssdelegation", Only(&["0"], NO_KERBEROS)),
    ("gssencmode", Only(&["disable", "prefer"], "this driver has no GSS encryption; remove it")),
    ("gsslib", Refused(NO_KERBEROS)),
    ("keepalives", Refused(NO_KEEPALIVE)),
    ("keepalives_count", Refused(NO_KEEPALIVE)),
    ("keepalives_idle", Refused(NO_KEEPALIVE)),
    ("keepalives_interval", Refused(NO_KEEPALIVE)),
    ("krbsrvname", Refused(NO_KERBEROS)),
    ("load_balance_hosts", Only(&["disable"], ONE_SERVER)),
    ("max_protocol_version", Refused("remove it; the driver speaks version 3.0")),
    ("min_protocol_version", Refused("remove it; the driver speaks version 3.0")),
    ("oauth_client_id", Refused("remove it and log in with a password or a certificate")),
    ("oauth_client_secret", Refused("remove it and log in with a password or a certificate")),
    ("oauth_issuer", Refused("remove it and log in with a password or a certificate")),
    ("oauth_scope", Refused("remove it and log in with a password or a certificate")),
    ("passfile", Refused("set the environment variable PGPASSFILE to the file in its place")),
    ("replication", Only(&["false", "off", "no", "0"], "Tallymark reads by queries; remove it")),
    ("require_auth", Refused("this driver cannot insist on a kind of login; remove it")),
    ("requirepeer", Refused("this driver cannot look at the socket's owner; remove it")),
    ("scram_client_key", Refused("write the password in its place")),
    ("scram_server_key", Refused("write the password in its place")),
    ("service", Refused(NO_SERVICE)),
    ("servicefile", Refused(NO_SERVICE)),
    ("ssl_max_protocol_version", Only(&["tlsv1.3"], NO_TLS_VERSION)),
    ("ssl_min_protocol_version", Only(&["tlsv1", "tlsv1.1", "tlsv1.2"], NO_TLS_VERSION)),
    ("sslcertmode", Only(&["allow"], "remove it, and sslcert to send no certificate")),
    ("sslcompression", Only(&["0"], "connections are not compressed; remove it")),
    ("sslcrl", Refused(NO_CRL)),
    ("sslcrldir", Refused(NO_CRL)),
    ("sslkeylogfile", Refused("remove it; no keys are written")),
    ("sslnegotiation", Only(&["postgres"], "this driver asks for TLS first; remove it")),
    (
        "sslpassword",
        Refused("this driver reads keys without a password; store the key without, and remove it"),
    ),
    ("sslsni", Only(&["1"], "the server's name is sent; remove it")),
    ("target_session_attrs", Only(&["any"], ONE_SERVER)),
    ("tcp_user_timeout", Refused(NO_KEEPALIVE)),
    // Options of other clients.
    ("connection_limit", Refused(PRISMA)),
    ("pgbouncer", Refused("this is Prisma's; remove it (a pooler needs no option here)")),
    ("pool_timeout", Refused(PRISMA)),
    ("schema", Refused("this is Prisma's; remove it (tallymark.toml names schemas)")),
    ("socket_timeout", Refused(PRISMA)),
    ("sslaccept", Refused("this is Prisma's; write sslmode in its place")),
    ("sslidentity", Refused("this is Prisma's; write sslcert and sslkey")),
    ("statement_cache_size", Refused(PRISMA)),
    ("pool", Refused(RAILS)),
    ("prepared_statements", Refused(RAILS)),
    ("reaping_frequency", Refused(RAILS)),
    ("timeout", Refused("this is Rails'; write connect_timeout")),
    ("currentschema", Refused("this is JDBC's; remove it (tallymark.toml names schemas)")),
    ("loginTimeout", Refused("this is JDBC's; write connect_timeout")),
    ("prepareThreshold", Refused("this is JDBC's; remove it")),
    ("sslfactory", Refused("this is JDBC's; write sslmode=require")),
    ("async_fallback", Refused("this is SQLAlchemy's; remove it")),
    ("prepared_statement_cache_size", Refused("this is SQLAlchemy's; remove it")),
    ("uselibpqcompat", Refused("this is node-postgres'; remove it")),
    ("statement-cache-capacity", Refused("this is sqlx's; remove it")),
    ("search_path", Refused("this is pgx's; remove it (tallymark.toml names schemas)")),
    ("pool_max_conns", Refused("this is pgx's; remove it (--concurrency says how many)")),
    ("default_query_exec_mode", Refused("this is pgx's; remove it")),
    ("supa", Refused("this is Supabase's for other clients; remove it")),
    ("pool_mode", Refused("remove it; each transaction stands for itself here")),
    ("workaround", Refused("this is Supabase's for other clients; remove it")),
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
pub(super) fn read(query: &str) -> Result<Vec<(&'static str, String)>, String> {
    let mut options = Vec::new();
    let mut before = "";
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let unsaid = |what: &str| {
            format!(
                "the address has an option {what}; write name=value, and & within a value as %26"
            )
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
            Only(_, why) => {
                return Err(format!(
                    "the address has `{known}` with a value that does not work: {why}"
                ));
            }
            Refused(why) => return Err(format!("the address has the option `{known}`: {why}")),
        }
    }
    Ok(options)
}

/// JDBC's and node's `ssl=true`, as libpq reads it.
fn ssl(value: &str) -> Result<String, String> {
    match value {
        "true" | "1" => Ok("require".to_owned()),
        _ => Err("the address has `ssl` with a value other than true; write sslmode=disable, \
                  require or verify-full"
            .to_owned()),
    }
}

fn is_name(name: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "_-.[]".contains(letter);
    (2..=40).contains(&name.len()) && name.chars().all(is_letter)
}

fn unknown(name: &str) -> String {
    let works = OPTIONS.iter().filter(|(_, rule)| matches!(rule, Works | Only(..)));
    let said = format!("the address has an option `{name}` that no client of PostgreSQL knows");
    match nearest(name, works.map(|(name, _)| *name)) {
        Some(near) => format!("{said}; did you mean `{near}`?"),
        None => format!("{said}; remove it"),
    }
}

/// The names of the supported options, for the documentation's test.
#[cfg(test)]
pub(super) fn working() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|(_, rule)| matches!(rule, Works)).map(|(name, _)| *name)
}

/// Checks an `sslmode` of libpq or another client.
pub(super) fn ssl_mode(mode: &str) -> Result<Cow<'static, str>, String> {
    const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
    if let Some(mode) = MODES.iter().find(|known| mode.eq_ignore_ascii_case(known)) {
        return Ok(Cow::Borrowed(mode));
    }
    Err(match mode {
        "no-verify" => {
            "sslmode=no-verify in the address is node-postgres'; write sslmode=require: \
                        encrypted, without verification"
        }
        "allow" => {
            "sslmode=allow in the address is not done by this driver; write prefer \
                    (encrypted where the server can), or better require or verify-full"
        }
        _ => {
            "sslmode in the address is none of disable, prefer, require, verify-ca and verify-full"
        }
    }
    .to_owned())
}
