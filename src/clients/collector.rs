//! The receiver of metrics by the OpenTelemetry protocol over HTTP.

use std::fmt;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use tokio::sync::OnceCell;

use super::https::{self, AGENT, HttpsClient, Refusal};
use super::webhook::HookError;

/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;

/// One receiver. It connects when first used.
pub(crate) struct Collector {
    url: Uri,
    /// They may hold a key, so no output shows them.
    headers: HeaderMap,
    client: OnceCell<HttpsClient<Full<Bytes>>>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collector({}/…)", self.host())
    }
}

impl Collector {
    #[must_use]
    pub(crate) const fn new(url: Uri, headers: HeaderMap) -> Self {
        Self { url, headers, client: OnceCell::const_new() }
    }

    /// The host, for messages.
    pub(crate) fn host(&self) -> &str {
        self.url.host().unwrap_or_default()
    }

    /// Sends a message in the encoding of protocol buffers, and returns the answer's body. The caller
    /// limits the time.
    ///
    /// # Errors
    /// The receiver cannot be reached, or answers with another status than 200 to 299.
    pub(crate) async fn post(&self, message: Bytes) -> Result<Bytes, HookError> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let client = self.client.get_or_try_init(|| async { https::client() }).await;
        let client = client.map_err(HookError::refused)?;
        let answer = client.request(request).await;
        let answer = answer.map_err(|error| HookError::unreachable(self.host(), &error))?;
        if !answer.status().is_success() {
            let refusal = Refusal::read(answer).await;
            return Err(HookError::by(self.host(), &refusal, remedy(&refusal)));
        }
        match Limited::new(answer.into_body(), ANSWER_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            // It was taken, and what it says of that is missing.
            Err(_) => Ok(Bytes::new()),
        }
    }
}

fn remedy(refusal: &Refusal) -> &'static str {
    match refusal.status.as_u16() {
        _ if refusal.may_pass() => "check the receiver",
        300..=399 => "write the address that it redirects to: redirects are not followed",
        401 | 403 => "compare OTEL_EXPORTER_OTLP_HEADERS with the key that the receiver asks for",
        404 | 405 => {
            "compare OTEL_EXPORTER_OTLP_ENDPOINT with the receiver's address for OTLP over HTTP, to \
             which /v1/metrics is added"
        }
        _ => "compare what the receiver takes with docs/METRICS.md",
    }
}
