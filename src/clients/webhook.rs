//! Addresses that hear of trouble: a webhook, or the address that a dead-man's service listens at.
//!
//! Who knows such an address may write to it, so no output shows more of it than its host.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use tokio::sync::OnceCell;

use super::aws::root_cause;
use super::https::{self, AGENT, HttpsClient, Refusal};
use super::secret;
use crate::model::hint::{Fault, Hinted};

/// A receiver that takes longer is asked again later.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The time for the words of a receiver that took a trial.
const WORDS_MAX: Duration = Duration::from_secs(1);

/// Bytes of an address.
const ADDRESS_MAX: usize = 2_048;

/// An address with HTTPS. Plain HTTP stays on this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl(Uri);

impl HookUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// It is none, or everybody on the way could read it. The text does not show the address.
    pub(crate) fn new(text: &str) -> Result<Self, Fault> {
        const FORM: &str = "copy the whole address, which begins with https://";
        let wrong = |facts: &str| Fault::new(facts).remedy(FORM);
        if text.len() > ADDRESS_MAX {
            return Err(wrong("the address is longer than 2,048 bytes"));
        }
        let url: Uri = text.trim().parse().map_err(|_| wrong("the text is no address"))?;
        let host = url.host().ok_or_else(|| wrong("the address has no host"))?;
        if url.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(wrong("the address holds a login, which is not sent"));
        }
        let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        match url.scheme_str() {
            Some("https") => Ok(Self(url)),
            Some("http") if is_here => Ok(Self(url)),
            Some("http") => Err(Fault::new(
                "over plain HTTP everybody on the way would read the address and the notices",
            )
            .remedy("use the receiver's address with https://")),
            _ => Err(wrong("the address begins with neither https:// nor http://")),
        }
    }

    /// The host, for messages.
    fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookUrl({}/…)", self.host())
    }
}

/// Where an address is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookAddress {
    /// The address itself, from the environment.
    Url(HookUrl),
    /// A parameter of AWS Systems Manager.
    Parameter(String),
    /// A secret of AWS Secrets Manager.
    Secret(String),
}

impl HookAddress {
    async fn read(&self) -> Result<HookUrl, Fault> {
        let (text, place) = match self {
            Self::Url(url) => return Ok(url.clone()),
            Self::Parameter(name) => (secret::parameter(name).await, "the parameter"),
            Self::Secret(name) => (secret::secret(name).await, "the secret"),
        };
        let text = text.map_err(|error| Fault::of(&error).within("the address's place"))?;
        HookUrl::new(&text).map_err(|fault| fault.within(place))
    }
}

/// Why a receiver did not take what was sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{fault}")]
pub(crate) struct HookError {
    fault: Fault,
    /// Whether the same request may be taken soon.
    pub(crate) may_pass: bool,
    /// How long the receiver asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

impl HookError {
    pub(super) fn refused(fault: Fault) -> Self {
        Self { fault, may_pass: false, retry_after: None }
    }

    fn busy(fault: Fault) -> Self {
        Self { fault, may_pass: true, retry_after: None }
    }

    pub(super) fn unreachable(host: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let facts = format!("{host} cannot be reached: {}", root_cause(error));
        Self::busy(Fault::new(facts).remedy("check the address and the network"))
    }

    pub(super) fn by(host: &str, refusal: &Refusal, remedy: &str) -> Self {
        let fault = Fault::new(refusal.facts(host)).remedy(remedy);
        Self { fault, may_pass: refusal.may_pass(), retry_after: refusal.retry_after }
    }
}

impl Hinted for HookError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        self.fault.hint()
    }
}

/// One address. It connects when first used.
#[derive(Debug)]
pub(crate) struct Webhook {
    address: HookAddress,
    url: OnceCell<HookUrl>,
    client: OnceCell<HttpsClient<Full<Bytes>>>,
}

impl Webhook {
    #[must_use]
    pub(crate) fn new(address: HookAddress) -> Self {
        Self { address, url: OnceCell::new(), client: OnceCell::new() }
    }

    /// Sends a JSON document.
    ///
    /// # Errors
    /// The receiver did not answer in time with a status from 200 to 299.
    pub(crate) async fn post(&self, document: String) -> Result<(), HookError> {
        self.send(Method::POST, document.into()).await.map(drop)
    }

    /// As [`Webhook::post`], and says what the receiver answered.
    ///
    /// # Errors
    /// As [`Webhook::post`].
    pub(crate) async fn try_post(&self, document: String) -> Result<String, HookError> {
        let answer = self.send(Method::POST, document.into()).await?;
        let (host, status) = (self.host().await?, answer.status());
        // Its words are worth a moment.
        let read = tokio::time::timeout(WORDS_MAX, Refusal::read(answer)).await;
        Ok(read.map_or_else(
            |_| format!("{host} answers with status {}", status.as_u16()),
            |answer| answer.facts(&host),
        ))
    }

    /// The host of its address, for messages.
    ///
    /// # Errors
    /// The address cannot be read.
    pub(crate) async fn host(&self) -> Result<String, HookError> {
        let url = self.url.get_or_try_init(|| self.address.read()).await;
        Ok(url.map_err(HookError::refused)?.host().to_owned())
    }

    /// Asks for the address, as a sign of life.
    ///
    /// # Errors
    /// As [`Webhook::post`].
    pub(crate) async fn ping(&self) -> Result<(), HookError> {
        self.send(Method::GET, Bytes::new()).await.map(drop)
    }

    /// Sends a request. The receiver took it, and the rest of its answer is still to be read.
    async fn send(&self, method: Method, body: Bytes) -> Result<Response<Incoming>, HookError> {
        let url = self.url.get_or_try_init(|| self.address.read()).await;
        let url = url.map_err(HookError::refused)?;
        let mut request =
            Request::builder().method(method).uri(url.0.clone()).header(USER_AGENT, AGENT);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|_| HookError::refused(Fault::new("the address is no URL")))?;
        let client = self.client.get_or_try_init(|| async { https::client() }).await;
        let client = client.map_err(HookError::refused)?;
        let answered = tokio::time::timeout(ANSWER_MAX, async {
            let answer = client
                .request(request)
                .await
                .map_err(|error| HookError::unreachable(url.host(), &error))?;
            taken(url.host(), answer).await
        });
        answered.await.unwrap_or_else(|_| {
            let facts = format!("{} gave no answer in {} s", url.host(), ANSWER_MAX.as_secs());
            Err(HookError::busy(Fault::new(facts).remedy("check the receiver")))
        })
    }
}

/// Reads whether the receiver took what was sent.
async fn taken(host: &str, answer: Response<Incoming>) -> Result<Response<Incoming>, HookError> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    Err(refusal(host, &Refusal::read(answer).await))
}

fn refusal(host: &str, refusal: &Refusal) -> HookError {
    let remedy = match refusal.status.as_u16() {
        _ if refusal.may_pass() => "the next tick sends it again",
        300..=399 => "write the address that it redirects to: redirects are not followed",
        400 => "compare `format` in [notify] with what the receiver takes",
        _ => "make a new webhook there, and put its address in the place that [notify] names",
    };
    HookError::by(host, refusal, remedy)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    #[test]
    fn an_address_leaves_this_machine_over_https_alone_and_is_not_shown() {
        for good in [
            "https://hooks.slack.com/services/T0/B0/swordfish",
            "http://127.0.0.1:8000/swordfish",
            "http://[::1]:8000/x",
            " https://hc-ping.com/swordfish\n",
        ] {
            let url = HookUrl::new(good).unwrap();
            let address = HookAddress::Url(url);
            let said = format!("{address:?} {:?}", Webhook::new(address.clone()));
            assert!(!said.contains("swordfish"), "{said}");
        }
        let long = format!("https://example.com/{}", "x".repeat(ADDRESS_MAX));
        for bad in [
            "",
            "swordfish",
            "/swordfish",
            "ftp://example.com/swordfish",
            "http://example.com/swordfish",
            "http://127.0.0.1.example.com/swordfish",
            "https://user:swordfish@example.com/",
            "https://example.com/a b",
            &long,
        ] {
            let fault = HookUrl::new(bad).unwrap_err();
            assert!(!fault.in_one_line().contains("swordfish"), "{fault}");
            assert!(fault.hint().is_some(), "{bad}: {fault}");
        }
    }

    #[test]
    fn a_status_that_may_pass_is_told_from_one_that_stays() {
        for (status, may_pass) in
            [(302, false), (400, false), (404, false), (408, true), (429, true), (500, true)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            let (reason, retry_after) = ("no_text".to_owned(), Some(Duration::from_secs(7)));
            let error = refusal("example.com", &Refusal { status, reason, retry_after });
            assert_eq!(
                (error.may_pass, error.retry_after),
                (may_pass, Some(Duration::from_secs(7)))
            );
            assert!(error.to_string().contains("no_text") && error.hint().is_some(), "{error}");
        }
    }
}
