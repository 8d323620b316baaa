//! Requests and their answers.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::access::Token;
use super::pages::{self, Gate, Refusal};
use super::ticker::{AskedBy, Ticker, TicksSeen};
use crate::cli::console::{self, Actions};
use crate::cli::{parse_duration, ui};
use crate::model::visible;
use crate::telemetry::prometheus;
use crate::telemetry::registry::{Sample, TICK_RUNNING};
use crate::work::worker::Worker;

/// Bytes of a request's body: that of a form, or one that a scheduler sends and nobody needs.
const BODY_MAX: usize = 64 * 1024;

/// A body has arrived within this time.
const BODY_TIME: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The content type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) type Answer = Response<Full<Bytes>>;

/// What the server answers from.
pub(super) struct Site {
    pub(super) ticker: Arc<Ticker>,
    /// The interval of the schedule, if there is one.
    pub(super) every: Option<Duration>,
    pub(super) tick_token: Option<Token>,
    pub(super) gate: Gate,
    /// The clients of pages. Those of ticks share transactions among their reads.
    pub(super) console: Worker,
    /// What operators did in this process.
    pub(super) actions: Arc<Actions>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Act,
    Alive,
    Health,
    Metrics,
    Page,
    Tick,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/act" => Self::Act,
            "/livez" => Self::Alive,
            "/healthz" => Self::Health,
            "/metrics" => Self::Metrics,
            "/tick" => Self::Tick,
            _ if console::is_page(path) => Self::Page,
            _ => return None,
        })
    }

    /// The methods that it answers.
    const fn methods(self) -> (&'static [Method], &'static str) {
        match self {
            Self::Tick => (&[Method::GET, Method::POST], "GET, POST"),
            Self::Act => (&[Method::POST], "POST"),
            _ => (&[Method::GET, Method::HEAD], "GET, HEAD"),
        }
    }
}

/// Answers one request. No page of another site can read or show the answer.
pub(super) async fn answer(site: &Site, request: Request<Incoming>) -> Answer {
    pages::kept_apart(reply(site, request).await)
}

async fn reply(site: &Site, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let Some(page) = Endpoint::at(head.uri.path()) else {
        return error(
            StatusCode::NOT_FOUND,
            "nothing is here; /tick, /healthz, /livez, /metrics and the console at / are",
        );
    };
    let (methods, allowed) = page.methods();
    if !methods.contains(&head.method) {
        let text = format!("write {}", allowed.replace(", ", " or "));
        return with(error(StatusCode::METHOD_NOT_ALLOWED, &text), ALLOW, allowed);
    }
    if let Some(refusal) = refusal(site, page, &head.headers) {
        return refusal;
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match page {
        Endpoint::Act => pages::act(site, &head, &body).await,
        Endpoint::Alive => of(StatusCode::OK, TEXT, "alive\n".into()),
        Endpoint::Health => health(site),
        Endpoint::Metrics => of(StatusCode::OK, PROMETHEUS, metrics(site)),
        Endpoint::Page => pages::show(site, &head).await,
        Endpoint::Tick => tick(site, head.uri.query().unwrap_or_default()).await,
    }
}

/// Why the caller may not have what is for machines. The console refuses by itself.
fn refusal(site: &Site, page: Endpoint, headers: &HeaderMap) -> Option<Answer> {
    let is_allowed = match page {
        Endpoint::Tick => match &site.tick_token {
            Some(token) => token.is_in(headers),
            None => return pages::refuse_other_sites(headers).err().map(Refusal::answer),
        },
        Endpoint::Metrics => match site.gate.may_read(headers) {
            Ok(()) => true,
            Err(Refusal::NoToken) => false,
            Err(refusal) => return Some(refusal.answer()),
        },
        Endpoint::Act | Endpoint::Alive | Endpoint::Health | Endpoint::Page => true,
    };
    let refuse = || {
        let refusal = error(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer TOKEN`");
        with(refusal, WWW_AUTHENTICATE, "Bearer realm=\"tallymark\"")
    };
    (!is_allowed).then(refuse)
}

/// Reads the body, within limits.
async fn read(body: Incoming) -> Result<Bytes, Answer> {
    let too_large = || error(StatusCode::PAYLOAD_TOO_LARGE, "this body is too large");
    if body.size_hint().lower() > BODY_MAX as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

/// What a request asks of a tick.
#[derive(Debug, PartialEq, Eq)]
struct TickQuery {
    waits: bool,
    budget: Duration,
}

impl TickQuery {
    fn of(query: &str) -> Result<Self, String> {
        let mut wanted = Self { waits: true, budget: Duration::MAX };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("wait", "true") => wanted.waits = true,
                ("wait", "false") => wanted.waits = false,
                ("budget", text) => wanted.budget = parse_duration(text)?,
                _ => {
                    let pair = visible::line(pair);
                    return Err(format!("`{pair}` is not known; write wait=false or budget=50s"));
                }
            }
        }
        Ok(wanted)
    }
}

/// Starts a tick, and waits for its end if asked to. The tick goes on if the client goes away.
async fn tick(site: &Site, query: &str) -> Answer {
    let TickQuery { waits, budget } = match TickQuery::of(query) {
        Ok(wanted) => wanted,
        Err(problem) => return error(StatusCode::BAD_REQUEST, &problem),
    };
    let ticker = &site.ticker;
    if ticker.worker.interrupt.is_raised() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the process is ending");
    }
    let started = ticker.start(AskedBy::Request, budget);
    let ended = match started {
        Err(running) => {
            let document = json!({ "state": "already running", "running": running.document() });
            return of_json(StatusCode::ACCEPTED, &document);
        }
        Ok(_) if !waits => {
            let running = ticker.running().map(|running| running.document());
            let document = json!({ "state": "started", "running": running });
            return of_json(StatusCode::ACCEPTED, &document);
        }
        Ok(ended) => ended.await,
    };
    let Ok(ended) = ended else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the process is ending");
    };
    let status = match ended.is_good() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    match &ended.result {
        Ok(report) => of_json(status, &json!(report)),
        Err(failure) => of_json(status, &failure.document()),
    }
}

/// The state of the last ticks. It is open, so it has no text of a server.
fn health(site: &Site) -> Answer {
    let TicksSeen { last, health, next_at, .. } = site.ticker.known();
    let is_well = health.reasons.is_empty();
    let document = json!({
        "status": if is_well { "ok" } else { "failing" },
        "since": health.since.map(ui::instant),
        "reasons": health.reasons,
        "last_tick": last.map(|ended| ended.document()),
        "running": site.ticker.running().map(|running| running.document()),
        "next_tick": next_at.map(ui::instant),
    });
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    of_json(status, &document)
}

fn metrics(site: &Site) -> String {
    let mut samples = site.ticker.known().samples();
    let is_running = f64::from(u8::from(site.ticker.running().is_some()));
    samples.push(Sample::new(&TICK_RUNNING, is_running));
    samples.push(Sample::of_this_build());
    prometheus::text(&samples)
}

pub(super) fn error(status: StatusCode, text: &str) -> Answer {
    of_json(status, &json!({ "error": text }))
}

fn of_json(status: StatusCode, document: &Value) -> Answer {
    let text = format!("{document:#}\n");
    of(status, JSON, visible::json(&text).into_owned())
}

pub(super) fn of(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // A kept answer would be no tick.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub(super) fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_long_and_whether_to_wait() {
        let wanted = |query| TickQuery::of(query).unwrap();
        assert_eq!(wanted(""), TickQuery { waits: true, budget: Duration::MAX });
        assert_eq!(wanted("wait=true"), wanted(""));
        let budget = Duration::from_secs(50);
        assert_eq!(wanted("wait=false&budget=50s"), TickQuery { waits: false, budget });
        for wrong in ["wait", "wait=no", "budget", "budget=soon", "slice=now", "wait=false&x"] {
            assert!(TickQuery::of(wrong).is_err(), "{wrong}");
        }
    }
}
