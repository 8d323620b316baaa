//! Where the server listens, and who may call it.

use std::env;
use std::fmt::{self, Debug, Formatter};
use std::net::SocketAddr;

use aws_smithy_types::base64;
use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, lookup_host};

use crate::cli::Failure;
use crate::model::hint::Fault;
use crate::work::worker::Severity;

/// Stands in `--listen` for the port that the host gives in the environment. A shell expands it,
/// and where no shell is, Tallymark does.
const PORT: &str = "$PORT";

/// A shorter token can be guessed.
const TOKEN_MIN: usize = 16;

/// A token, as its hash: a comparison takes equally long for every wrong one.
#[derive(Clone)]
pub(super) struct Token {
    digest: [u8; 32],
    /// The environment variable that holds it.
    pub(super) variable: String,
}

impl Debug for Token {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.variable)
    }
}

impl Token {
    /// The token in the environment variable `variable`.
    pub(super) fn of(variable: &str) -> Result<Self, Failure> {
        let token = env::var(variable).unwrap_or_default();
        let problem = match token.len() {
            0 => "is empty or not set".to_owned(),
            _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                "holds white space, or a character that no header can carry".to_owned()
            }
            length if length < TOKEN_MIN => format!("has only {length} characters"),
            _ => return Ok(Self::of_text(&token, variable)),
        };
        let fault = Fault::new(format!("the token in {variable} {problem}"));
        Err(Failure::usage(fault.remedy(format!(
            "make one of at least {TOKEN_MIN} random characters, for example with `openssl rand \
             -hex 32`"
        ))))
    }

    pub(super) fn of_text(token: &str, variable: &str) -> Self {
        Self { digest: digest(token), variable: variable.to_owned() }
    }

    /// Whether the request brings it, as `Authorization: Bearer TOKEN`.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        credentials(headers, "bearer").is_some_and(|token| self.is(token))
    }

    /// As [`Token::is_in`], or as the password that browsers ask a person for.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let basic = credentials(headers, "basic").and_then(|it| base64::decode(it).ok());
        let basic = basic.and_then(|bytes| String::from_utf8(bytes).ok());
        let password = basic.as_deref().and_then(|it| it.split_once(':')).map(|(_, it)| it);
        self.is_in(headers) || password.is_some_and(|password| self.is(password))
    }

    fn is(&self, token: &str) -> bool {
        digest(token).ct_eq(&self.digest).into()
    }

    /// What forms of pages carry that only its holders see. It does not tell the token.
    pub(super) fn for_forms(&self) -> String {
        let digest = Sha256::new().chain_update(b"form of ").chain_update(self.digest).finalize();
        base64::encode(digest)
    }
}

/// The credentials of the request's only `Authorization`, if it is of this scheme.
fn credentials<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then(|| credentials.trim())
}

/// Whether two texts are equal. It takes equally long for all texts of a length.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    digest(one).ct_eq(&digest(other)).into()
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Listens at `listen`, and tells whether only this machine reaches it. Outside of this machine it
/// needs a token for ticks.
pub(super) async fn listen(
    listen: &str,
    port: Option<&str>,
    has_token: bool,
) -> Result<(TcpListener, bool), Failure> {
    let listen = match port {
        Some(port) => listen.replace(PORT, port),
        None if listen.contains(PORT) => {
            let facts = format!("--listen {listen}: the environment variable PORT is not set");
            return Err(Failure::usage(Fault::new(facts).remedy("export PORT=8080")));
        }
        None => listen.to_owned(),
    };
    let wrong = |error: std::io::Error| {
        let fault = Fault::new(format!("--listen {listen}: {error}"));
        Failure::usage(fault.remedy("write an address and a port, such as 0.0.0.0:8080"))
    };
    let addresses: Vec<SocketAddr> = lookup_host(&listen).await.map_err(wrong)?.collect();
    let is_local = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
    if !is_local && !has_token {
        let fault = Fault::new(format!(
            "--listen {listen} can be reached from other machines, and every caller could start a \
             tick"
        ));
        let remedy = "name the environment variable of a token with --tick-token-env";
        return Err(Failure::usage(fault.remedy(remedy)));
    }
    let bound = TcpListener::bind(&*addresses).await.map_err(|error| {
        let fault = Fault::new(format!("cannot listen at {listen}: {error}"));
        Failure::of(Severity::Failed, fault.remedy("choose another port with --listen"))
    });
    Ok((bound?, is_local))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token::of_text(text, "CRON_SECRET")
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = token("0123456789abcdef");
        for right in
            ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER  0123456789abcdef"]
        {
            assert!(token.is_in(&headers(&[right])), "{right}");
        }
        for wrong in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["0123456789abcdef"],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer 0123456789ABCDEF"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            assert!(!token.is_in(&headers(wrong)), "{wrong:?}");
        }
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[tokio::test]
    async fn outside_of_this_machine_a_token_is_needed() {
        for (address, is_local) in [
            ("127.0.0.1:0", true),
            ("[::ffff:127.0.0.1]:0", true),
            ("0.0.0.0:0", false),
            ("[::ffff:0.0.0.0]:0", false),
        ] {
            let bound = listen(address, None, false).await;
            assert_eq!(bound.is_ok(), is_local, "{address}: {bound:?}");
            assert!(bound.is_ok_and(|(_, it)| it) == is_local, "{address}");
        }
        assert!(listen("0.0.0.0:0", None, true).await.is_ok_and(|(_, is_local)| !is_local));
        assert!(listen("127.0.0.1:$PORT", Some("0"), false).await.is_ok());
        for wrong in ["127.0.0.1:$PORT", "8080", "nonsense", "127.0.0.1:99999"] {
            let failure = listen(wrong, None, false).await.unwrap_err();
            assert_eq!(failure.severity, Severity::Usage, "{wrong}: {failure:?}");
        }
    }
}
