//! Bubble's Data API: searches in one branch of one app.
//!
//! The app's token may write and delete everything. So this module sends `GET` alone, to the host
//! of the configuration alone, and follows no redirect.

mod guess;
mod meta;
mod page;
mod search;
mod token;
mod units;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, DATE, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::OnceCell;

use crate::clients::aws::root_cause;
use crate::clients::https::{self, AGENT, HttpsClient};
use crate::model::hint::{Fault, Hinted};
use crate::model::text::cut;

pub(crate) use meta::{FieldType, Meta};
pub(crate) use page::{Page, Thing, instant};
pub(crate) use search::{CREATED, PAGE_MAX, ThingSearch};
pub use token::AppToken;
pub use units::Units;

/// The branch with the app's real data.
pub(crate) const LIVE: &str = "live";

/// A search is cut off by Bubble after 10 s, and a page arrives within a second.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Bytes of an answer: a hundred things of 160 kB each.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// One branch of a Bubble app. It connects when first used.
pub struct App {
    /// The app's address without a slash at its end.
    address: String,
    branch: String,
    token: AppToken,
    secret: OnceCell<String>,
    client: OnceCell<HttpsClient<Empty<Bytes>>>,
    /// The types for which the token's rights were proved in this process.
    proven: Mutex<HashSet<String>>,
    /// What it has billed in this process.
    billed: Mutex<Units>,
}

/// Why an app gave no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// It cannot answer at present.
    #[error("{fault}")]
    Busy {
        fault: Fault,
        /// How long the app asks to wait.
        retry_after: Option<Duration>,
    },
    /// Another try would get the same answer.
    #[error("{0}")]
    Refused(Fault),
}

impl Hinted for AppError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let (Self::Busy { fault, .. } | Self::Refused(fault)) = self;
        fault.hint()
    }
}

/// An answer with status 200.
struct Answer {
    body: Bytes,
    answered_at: Option<DateTime<Utc>>,
}

impl App {
    /// The app at `address`, which has a scheme and a host alone.
    #[must_use]
    pub(crate) fn new(address: &str, branch: &str, token: AppToken) -> Self {
        Self {
            address: address.trim_end_matches('/').to_owned(),
            branch: branch.to_owned(),
            token,
            secret: OnceCell::new(),
            client: OnceCell::new(),
            proven: Mutex::default(),
            billed: Mutex::default(),
        }
    }

    /// Its branch, for messages and comparisons.
    #[must_use]
    pub(crate) fn branch(&self) -> &str {
        &self.branch
    }

    /// Whether this process has proved that the token sees all things of this type.
    #[must_use]
    pub(crate) fn is_proven(&self, thing: &str) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(thing)
    }

    /// Remembers the proof.
    pub(crate) fn set_proven(&self, thing: &str) {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        proven.insert(thing.to_owned());
    }

    /// Remembers the price of an answer.
    pub(crate) fn bill(&self, units: Units) {
        let mut billed = self.billed.lock().unwrap_or_else(PoisonError::into_inner);
        *billed = *billed + units;
    }

    /// What it has billed in this process.
    #[must_use]
    pub(crate) fn billed(&self) -> Units {
        *self.billed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The things of `search`.
    ///
    /// # Errors
    /// The app cannot answer, or answers something else.
    pub(crate) async fn find(&self, search: &ThingSearch<'_>) -> Result<Page, AppError> {
        self.page(search, true).await
    }

    /// As [`App::find`], without the token.
    ///
    /// # Errors
    /// As [`App::find`]. Most apps refuse it.
    pub(crate) async fn find_as_stranger(
        &self,
        search: &ThingSearch<'_>,
    ) -> Result<Page, AppError> {
        self.page(search, false).await
    }

    async fn page(&self, search: &ThingSearch<'_>, with_token: bool) -> Result<Page, AppError> {
        let Answer { body, answered_at } = self.get(&search.path(), with_token).await?;
        let answered_at = answered_at.ok_or_else(|| {
            refused(
                "the app's answer has no header `Date`, so it is unknown whether a slice is over by \
                 the app's own clock",
                "let the proxy in front of the app leave the header in its answers",
            )
        })?;
        Page::decode(&body, answered_at, search)
    }

    /// What the app tells of itself, by its description or else its Swagger file, and the price of
    /// the answers.
    ///
    /// # Errors
    /// The app cannot answer, or hides both.
    pub(crate) async fn meta(&self) -> Result<(Meta, Units), AppError> {
        let hidden = match self.get("/api/1.1/meta", true).await {
            Ok(Answer { body, .. }) => {
                return Ok((Meta::decode(&body)?, Units::of_call(body.len() as u64)));
            }
            Err(hidden @ AppError::Refused(_)) => hidden,
            Err(error) => return Err(error),
        };
        match self.get("/api/1.1/meta/swagger.json", true).await {
            Ok(Answer { body, .. }) => {
                let units = Units::of_call(0) + Units::of_call(body.len() as u64);
                Ok((Meta::of_swagger(&body)?, units))
            }
            Err(AppError::Refused(_)) => Err(hidden),
            Err(error) => Err(error),
        }
    }

    /// Sends `GET` for a path below the branch.
    async fn get(&self, path: &str, with_token: bool) -> Result<Answer, AppError> {
        let base = match self.branch.as_str() {
            LIVE => self.address.clone(),
            branch => format!("{}/{branch}", self.address),
        };
        let mut request = Request::get(format!("{base}{path}")).header(USER_AGENT, AGENT);
        if with_token {
            let bearer = format!("Bearer {}", self.secret().await?);
            let mut value = hyper::header::HeaderValue::try_from(bearer).map_err(|_| {
                refused("the token holds characters that no token has", "copy it again")
            })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(Empty::new())
            .map_err(|_| refused("the app's address is no URL", "check `app` in [source]"))?;
        let client = self.client.get_or_try_init(|| async { https::client() });
        let client = client.await.map_err(AppError::Refused)?;
        let answered = tokio::time::timeout(ANSWER_MAX, async {
            let answer = client.request(request).await.map_err(|error| unreachable(&error))?;
            read(answer).await
        });
        answered.await.unwrap_or_else(|_| {
            let fault = format!("the app did not answer within {} s", ANSWER_MAX.as_secs());
            Err(busy(Fault::new(fault).remedy("run the command again later")))
        })
    }

    async fn secret(&self) -> Result<&String, AppError> {
        let read = self.secret.get_or_try_init(|| self.token.read()).await;
        read.map_err(|error| AppError::Refused(Fault::of(&error).within("the token's place")))
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, branch, .. } = self;
        f.debug_struct("App").field("address", address).field("branch", branch).finish()
    }
}

fn refused(facts: &str, remedy: &str) -> AppError {
    AppError::Refused(Fault::new(facts).remedy(remedy))
}

fn busy(fault: Fault) -> AppError {
    AppError::Busy { fault, retry_after: None }
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> AppError {
    let facts = format!("the app cannot be reached: {}", root_cause(error));
    busy(Fault::new(facts).remedy("check `app` in [source] and this machine's network"))
}

/// Reads an answer up to its end, and takes only one with status 200.
async fn read(answer: Response<hyper::body::Incoming>) -> Result<Answer, AppError> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await;
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(refused(
                &format!("the app's answer has more than {BODY_MAX} bytes"),
                "mirror a type with smaller things: Bubble always sends all fields",
            ));
        }
        Err(error) => return Err(unreachable(&*error)),
    };
    if parts.status == StatusCode::OK {
        let answered_at = header(&parts.headers, DATE).and_then(http_date);
        return Ok(Answer { body, answered_at });
    }
    Err(failure(parts.status, &parts.headers, &body))
}

fn header(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that servers may send.
fn http_date(text: &str) -> Option<DateTime<Utc>> {
    let parsed = NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S GMT").ok()?;
    Some(parsed.and_utc())
}

/// What an answer with another status means.
fn failure(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> AppError {
    let said = message(body).map_or_else(String::new, |said| format!(": {}", cut(&said)));
    let facts = format!("the app answers with status {}{said}", status.as_u16());
    if matches!(status.as_u16(), 408 | 429) || status.is_server_error() {
        let retry_after = header(headers, RETRY_AFTER).and_then(|it| it.trim().parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let remedy = "run the command again later; Bubble's own pages show its state";
        return AppError::Busy { fault: Fault::new(facts).remedy(remedy), retry_after };
    }
    let remedy = match status.as_u16() {
        300..=399 => {
            let to = header(headers, LOCATION).unwrap_or_default();
            return refused(
                &format!("{facts}: it redirects to {}", cut(to)),
                "write that address as `app` in [source]: the token goes to no other host",
            );
        }
        401 | 403 => "set `token` in [source] to one of Settings → API in the app",
        404 => {
            "tick the type in Settings → API, deploy, and compare type and fields with the app: this \
             never means that there are no rows"
        }
        _ => "compare type and fields with the app",
    };
    AppError::Refused(Fault::new(facts).remedy(remedy))
}

/// Bubble's own message, in one of the forms that it has.
fn message(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let places = ["/body/message", "/message", "/translation", "/body/status"];
    places.iter().find_map(|place| Some(json.pointer(place)?.as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_that_pass_are_told_from_those_that_stay() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "7".parse().unwrap())]);
        for status in [408, 429, 500, 502, 503, 504] {
            let error = failure(StatusCode::from_u16(status).unwrap(), &headers, b"");
            let AppError::Busy { retry_after, .. } = error else { panic!("{error}") };
            assert_eq!(retry_after, Some(Duration::from_secs(7)));
        }
        let body =
            br#"{"statusCode":404,"body":{"status":"MISSING_DATA","message":"Missing object"}}"#;
        for status in [301, 400, 401, 403, 404, 405] {
            let error = failure(StatusCode::from_u16(status).unwrap(), &headers, body);
            assert!(matches!(error, AppError::Refused(_)), "{error}");
            assert!(error.to_string().contains("Missing object"), "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn the_apps_clock_is_read_from_its_answer() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(date.to_rfc3339(), "1994-11-06T08:49:37+00:00");
    }

    #[test]
    fn no_output_shows_the_token() {
        let token = AppToken::Text("swordfish".into());
        let app = App::new("https://shop.example.com/", LIVE, token.clone());
        let said = format!("{app:?} {token:?}");
        assert!(!said.contains("swordfish") && said.contains("shop.example.com"), "{said}");
    }
}
