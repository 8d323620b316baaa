//! Uses the deployed function instead of this process: sends it events, and shows the results.

use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::error::{DisplayErrorContext, SdkError};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, LogType};
use serde_json::Value;

use super::{Failure, ui};
use crate::model::hint::Fault;
use crate::work::worker::Severity;

/// Lambda's maximum run time of a function.
const RUN_MAX: Duration = Duration::from_secs(900);

/// The same, plus time for the connection.
const INVOCATION_TIMEOUT: Duration = Duration::from_secs(930);

/// Invokes the function and waits for its answer, for at most a quarter of an hour, Lambda's
/// maximum run time. Prints the summary lines of its log.
pub(super) async fn invoke(function: &str, event: &Value) -> Result<Value, Failure> {
    let shared = crate::clients::aws::config().await;
    // Limits that are not set here would be inherited from the short calls to other services.
    let limits = TimeoutConfig::builder()
        .read_timeout(RUN_MAX)
        .disable_operation_attempt_timeout()
        .operation_timeout(INVOCATION_TIMEOUT)
        .build();
    let config = aws_sdk_lambda::config::Builder::from(&shared)
        .timeout_config(limits)
        // A second invocation would be harmless, but would hide the result of the first.
        .retry_config(RetryConfig::disabled())
        .build();
    let request = Client::from_conf(config)
        .invoke()
        .function_name(function)
        .invocation_type(InvocationType::RequestResponse)
        .log_type(LogType::Tail)
        .payload(Blob::new(event.to_string()));
    let answer = request.send().await.map_err(|error| {
        // Only errors that Lambda blames on the caller are wrong usage. Throttling is not one of
        // them.
        let status = error.raw_response().map(|raw| raw.status().as_u16());
        let severity = match status {
            Some(429) => Severity::Unreachable,
            Some(400..=499) => Severity::Usage,
            _ if matches!(error, SdkError::ConstructionFailure(_)) => Severity::Usage,
            _ => Severity::Unreachable,
        };
        let text = DisplayErrorContext(&error).to_string();
        let text = crate::model::text::cut(text.lines().next().unwrap_or_default());
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
        "EventNotUnderstood" | "WrongConfiguration" | "WrongUsage" | "AnswerTooLarge" => {
            Severity::Usage
        }
        "Unreachable" | "OutOfTime" => Severity::Unreachable,
        _ => Severity::Failed,
    };
    let (facts, hint) = match message.split_once("; hint: ") {
        Some((facts, hint)) => (facts, Some(hint)),
        None => (message, None),
    };
    let fault = Fault::new(format!("function `{function}`: {facts} ({kind})"));
    Err(Failure::of(severity, fault.remedy_if_known(hint)))
}

/// Prints the slices' summary lines from the last 4 KB of a log, the part that Lambda returns.
fn tell_log(encoded: &str) {
    let Ok(bytes) = aws_smithy_types::base64::decode(encoded) else { return };
    for line in String::from_utf8_lossy(&bytes).lines() {
        if let Some(summary) = summary(line) {
            ui::note(summary);
        }
    }
}

/// The text of a slice's summary line. `None`: it is another line.
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

/// A response as text for an operator. docs/EVENTS.md lists its fields.
pub(super) fn text(answer: &Value) -> String {
    let mut lines = Vec::new();
    let listed = answer["slices"].as_array().into_iter().flatten();
    let slices: Vec<_> = listed.chain(answer.get("slice")).collect();
    lines.extend((!slices.is_empty()).then(|| table(&slices)));
    for slice in slices {
        lines.extend(trouble(slice));
    }
    for key in ["failed", "refused"] {
        let troubled = answer[key].as_array().into_iter().flatten();
        lines.extend(troubled.filter_map(trouble));
    }
    lines.extend(answer["held"].as_array().into_iter().flatten().map(|held| {
        let (rollup, reason) = (word(&held["rollup"]), word(&held["reason"]));
        let fault = Fault::new(format!("{rollup} is held back: {reason}"));
        ui::hinted(&fault.remedy_if_known(held["hint"].as_str()), 2)
    }));
    let counts: Vec<String> = [
        ("succeeded", "succeeded"),
        ("failed", "failed"),
        ("refused", "not done"),
        ("reopened", "reopened"),
        ("sent", "sent to other invocations"),
        ("unlisted", "more worked on"),
        ("left", "left to the next tick"),
    ]
    .iter()
    .filter_map(|(key, what)| {
        let value = &answer[*key];
        let count = value.as_array().map_or(value.as_u64(), |all| Some(all.len() as u64))?;
        let count = usize::try_from(count).ok().filter(|count| *count > 0)?;
        Some(format!("{} {what}", ui::counted(count, "slice")))
    })
    .collect();
    lines.extend((!counts.is_empty()).then(|| counts.join(", ")));
    if lines.is_empty() {
        return "nothing is due".into();
    }
    lines.join("\n")
}

/// Ends the command as the same work in this process would end it.
pub(super) fn ended(answers: &[Value]) -> Result<(), Failure> {
    let count = |key: &str| {
        answers.iter().filter_map(|answer| answer[key].as_array()).map(Vec::len).sum::<usize>()
    };
    let slices = answers.iter().flat_map(|answer| {
        answer["slices"].as_array().into_iter().flatten().chain(answer.get("slice"))
    });
    let failed = slices.filter(|slice| slice["outcome"] == "failed").count() + count("failed");
    let parts: Vec<String> = [
        (failed, "slice", "failed"),
        (count("refused"), "slice", "could not be claimed"),
        (count("problems"), "problem", "found"),
    ]
    .iter()
    .filter(|(count, ..)| *count > 0)
    .map(|(count, noun, what)| format!("{} {what}", ui::counted(*count, noun)))
    .collect();
    if parts.is_empty() {
        return Ok(());
    }
    let fault = Fault::new(format!("{}, as said above", parts.join(", ")));
    Err(Failure::printed(Severity::Failed, fault.remedy(super::run::FAILED)))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn named(slice: &Value) -> String {
    format!("{}@{}", word(&slice["rollup"]), word(&slice["start"]))
}

fn table(slices: &[&Value]) -> String {
    let rows: Vec<Vec<String>> = slices
        .iter()
        .map(|slice| {
            let count = |name: &str| slice[name].as_u64().unwrap_or(0);
            let rewritten =
                ["inserted", "updated", "deleted"].iter().map(|name| count(name)).sum::<u64>();
            vec![
                named(slice),
                word(&slice["outcome"]).replace('_', " "),
                ui::number(count("rows_read")),
                ui::number(count("groups")),
                ui::number(rewritten),
            ]
        })
        .collect();
    ui::table(&["slice", "outcome", ">rows", ">groups", ">rewritten"], &rows)
}

/// Why a slice did not succeed.
fn trouble(slice: &Value) -> Option<String> {
    let reason = slice["reason"].as_str()?;
    Some(ui::wrapped(&format!("{}: {reason}", named(slice)), 2))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_response_is_text_for_a_person() {
        let slice = |outcome: &str, reason: Value| {
            json!({ "rollup": "daily", "start": "2026-02-12T00:00:00Z", "outcome": outcome,
                    "reason": reason, "rows_read": 1440, "groups": 24, "inserted": 24 })
        };
        let tick = json!({ "trigger": "schedule", "slices": [slice("already_succeeded", Value::Null)],
            "sent": 3, "left": 1, "held": [{ "rollup": "hourly", "reason": "paused" }] });
        let shown = text(&tick);
        for words in [
            "daily@2026-02-12T00:00:00Z  already succeeded  1,440",
            "hourly is held back: paused",
            "3 slices sent to other invocations, 1 slice left to the next tick",
        ] {
            assert!(shown.contains(words), "{shown}");
        }
        let replay = json!({ "trigger": "replay", "succeeded": 2, "reopened": 3,
            "failed": [slice("failed", "no disk".into())], "refused": [], "left": 0 });
        assert!(ended(std::slice::from_ref(&tick)).is_ok());
        let failure = ended(&[tick, replay.clone()]).unwrap_err();
        assert_eq!(failure.severity, Severity::Failed);
        assert_eq!(
            text(&replay),
            "daily@2026-02-12T00:00:00Z: no disk\n2 slices succeeded, 1 slice failed, 3 slices reopened"
        );
        let none = json!({ "trigger": "schedule", "slices": [], "sent": 0, "left": 0, "held": [] });
        assert_eq!(text(&none), "nothing is due");
    }

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
