//! The client for HTTPS to addresses of the configuration.

use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::model::hint::Fault;

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
