//! The client for HTTPS to addresses of the configuration.

use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::model::hint::Fault;
use crate::model::text::{cut_to, shown};

/// The name by which receivers know this program.
pub(super) const AGENT: &str = concat!("tallymark/", env!("CARGO_PKG_VERSION"));

/// Bytes of a refusal that are read, for its reason.
const REASON_MAX: usize = 1_000;

pub(super) type HttpsClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// A client that verifies certificates by the machine's roots and follows no redirect.
///
/// # Errors
/// The machine has no root certificates.
pub(super) fn client<B>() -> Result<HttpsClient<B>, Fault>
where
    B: Body + Send,
    B::Data: Send,
{
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider);
    let builder = builder.map_err(|error| {
        let facts = format!("the machine's root certificates cannot be read: {error}");
        Fault::new(facts).remedy("install ca-certificates")
    })?;
    // The configuration takes plain HTTP to this machine alone.
    let connector = builder.https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The answer of a receiver that does not take a request.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// The receiver's words. Empty where it has none.
    pub(super) reason: String,
    /// How long it asks to wait.
    pub(super) retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) async fn read(answer: Response<Incoming>) -> Self {
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        let retry_after = retry_after.and_then(|it| it.trim().parse().ok());
        // A longer answer is a page, and no reason.
        let reason = match Limited::new(answer.into_body(), REASON_MAX).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
            Err(_) => String::new(),
        };
        Self { status, reason, retry_after: retry_after.map(Duration::from_secs) }
    }

    /// The facts, for an error.
    pub(super) fn facts(&self, host: &str) -> String {
        let reason = match &*self.reason {
            "" => String::new(),
            reason => format!(": {}", shown(&cut_to(reason, 100))),
        };
        format!("{host} answers with status {}{reason}", self.status.as_u16())
    }

    /// Whether the same request may be taken soon.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429) || self.status.is_server_error()
    }
}
