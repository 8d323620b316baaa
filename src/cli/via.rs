//! The deployed function in place of this process: sends it events, and shows what it did.

use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::error::{DisplayErrorContext, SdkError};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, LogType};
use serde_json::Value;

use super::{Failure, ui};
use crate::worker::Severity;

/// The longest that Lambda lets a function run.
const RUN_MAX: Duration = Duration::from_secs(900);

/// The same, and time to get there.
const INVOCATION_TIMEOUT: Duration = Duration::from_secs(930);

/// Asks the function and waits for its answer: a quarter of an hour at most, as long as Lambda lets it run. Prints the
/// summary lines of its log.
pub(super) async fn invoke(function: &str, event: &Value) -> Result<Value, Failure> {
    let shared = crate::aws::config().await;
    // What is not set here would be as for the short calls of everything else.
    let limits = TimeoutConfig::builder()
        .read_timeout(RUN_MAX)
        .disable_operation_attempt_timeout()
        .operation_timeout(INVOCATION_TIMEOUT)
        .build();
    let config = aws_sdk_lambda::config::Builder::from(&shared)
        .timeout_config(limits)
        // A second invocation would do no harm, but hide what became of the first.
        .retry_config(RetryConfig::disabled())
        .build();
    let request = Client::from_conf(config)
        .invoke()
        .function_name(function)
        .invocation_type(InvocationType::RequestResponse)
        .log_type(LogType::Tail)
        .payload(Blob::new(event.to_string()));
    let answer = request.send().await.map_err(|error| {
        // Only what Lambda calls the caller's fault is a matter of usage; being asked to slow down is none.
        let status = error.raw_response().map(|raw| raw.status().as_u16());
        let severity = match status {
            Some(429) => Severity::Unreachable,
            Some(400..=499) => Severity::Usage,
            _ if matches!(error, SdkError::ConstructionFailure(_)) => Severity::Usage,
            _ => Severity::Unreachable,
        };
        let text = DisplayErrorContext(&error).to_string();
        let text = crate::text::cut(text.lines().next().unwrap_or_default());
        Failure::of(severity, format!("function `{function}` could not be invoked: {text}"))
    })?;
    if let Some(log) = answer.log_result() {
        tell_log(log);
    }
    let payload = answer.payload().map(Blob::as_ref).unwrap_or_default();
    let payload: Value = serde_json::from_slice(payload).unwrap_or(Value::Null);
    if answer.function_error().is_none() {
        return Ok(payload);
    }
    let kind = payload["errorType"].as_str().unwrap_or("unknown error");
    let message = payload["errorMessage"].as_str().unwrap_or_default();
    let severity = match kind {
        "EventNotUnderstood" | "WrongConfiguration" | "WrongUsage" => Severity::Usage,
        "Unreachable" | "OutOfTime" => Severity::Unreachable,
        _ => Severity::Failed,
    };
    Err(Failure::of(severity, format!("function `{function}`: {message} ({kind})")))
}

/// Prints the slices' summary lines of the last 4 KB of a log, which is what Lambda returns.
fn tell_log(encoded: &str) {
    let Ok(bytes) = aws_smithy_types::base64::decode(encoded) else { return };
    for line in String::from_utf8_lossy(&bytes).lines() {
        if let Some(summary) = summary(line) {
            ui::note(summary);
        }
    }
}

/// What the summary line of a slice says; `None`: it is another line.
fn summary(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let (rollup, start) = (line["rollup"].as_str()?, line["slice.start"].as_str()?);
    let outcome = line["outcome"].as_str()?.replace('_', " ");
    let count = |name: &str| ui::number(line[name].as_u64().unwrap_or(0));
    let mut text = format!("{rollup}@{start} {outcome}");
    match line["reason"].as_str() {
        Some(reason) => text.push_str(&format!(": {reason}")),
        None => text.push_str(&format!(
            ": {} rows, {} groups, {} ms",
            count("rows_read"),
            count("groups"),
            count("elapsed_ms")
        )),
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_summary_lines_are_shown() {
        let line = r#"{"timestamp":"2026-02-13T00:05:01Z","level":"INFO","message":"slice succeeded","rollup":"daily","slice.start":"2026-02-12T00:00:00Z","attempt":1,"outcome":"succeeded","rows_read":1440,"groups":24,"elapsed_ms":35}"#;
        let shown = "daily@2026-02-12T00:00:00Z succeeded: 1,440 rows, 24 groups, 35 ms";
        assert_eq!(summary(line).as_deref(), Some(shown));
        for other in ["START RequestId: 1", "{}", r#"{"message":"metrics"}"#] {
            assert_eq!(summary(other), None);
        }
    }
}
