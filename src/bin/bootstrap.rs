//! The Lambda function: polls for events and hands each to [`tallymark::lambda::handle`].

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tallymark::clock::{Deadline, SystemClock};
use tallymark::config::Config;
use tallymark::lambda::handle;
use tallymark::telemetry;
use tallymark::worker::Worker;
use tokio::sync::OnceCell;

/// Kept back of Lambda's deadline, at which it kills: for posting the response.
const MARGIN: TimeDelta = TimeDelta::milliseconds(500);

/// One thread: an invocation waits for servers, and below 1,769 MB Lambda has less than one CPU.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    telemetry::lambda();
    if env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        bail!("`bootstrap` runs inside AWS Lambda; on a command line use `tallymark run`");
    }
    // Built by the first invocation, so that a wrong configuration is that invocation's answer
    // instead of a crash that Lambda repeats.
    let worker = OnceCell::new();
    let answer = |event: LambdaEvent<Value>| async {
        let result = invoke(&worker, event).await;
        result.inspect_err(|Diagnostic { error_type, error_message }| {
            tracing::error!(error.kind = error_type, error = error_message, "invocation failed");
        })
    };
    lambda_runtime::run(service_fn(answer)).await.map_err(anyhow::Error::from_boxed)
}

async fn invoke(worker: &OnceCell<Worker>, event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let diagnostic = |error_type: &str, error_message| Diagnostic {
        error_type: error_type.to_owned(),
        error_message,
    };
    let worker = worker
        .get_or_try_init(build)
        .await
        .map_err(|error| diagnostic("WrongConfiguration", format!("{error:#}")))?;
    let deadline = i64::try_from(event.context.deadline)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .ok_or_else(|| diagnostic("NoDeadline", "lambda gave no deadline".to_owned()))?;
    // Boxed: the whole path of a slice is too deep a type for the runtime's layers around it.
    Box::pin(handle(worker, event.payload, Deadline::at(deadline - MARGIN)))
        .await
        .map_err(|error| diagnostic(error.kind(), error.to_string()))
}

/// The clients, none of them connected.
async fn build() -> anyhow::Result<Worker> {
    let name = env::var("TALLYMARK_CONFIG").unwrap_or_else(|_| "tallymark.toml".to_owned());
    let path = PathBuf::from(env::var_os("LAMBDA_TASK_ROOT").unwrap_or_default()).join(name);
    let config = Config::load(&path, &|name| env::var(name).ok())?;
    Worker::new(config, Arc::new(SystemClock), 1).await.context("building the clients")
}
