//! Access to AWS: region, credentials and endpoints as in every AWS SDK, and the limits of a call.

use std::env;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};

use crate::model::hint::Fault;

/// Tries of one call, including the first. A write whose reply was lost is recognised when it is
/// retried.
const ATTEMPTS_MAX: u32 = 3;
/// Wait before the first retry. The services answer within milliseconds, so the SDK's usual second
/// would waste an invocation's time.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// An answer takes milliseconds, or a second over a new connection from another continent. A try
/// that lasts this long is better repeated.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds one call with its credentials and all its tries, which take at most 6 s. The margin
/// covers a machine that stands still for some seconds: a try is then repeated, and the call
/// succeeds.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
/// A custom endpoint (a local server) has no regions, but requests must be signed for one.
const LOCAL_REGION: &str = "us-east-1";
/// Custom endpoints, as every AWS SDK reads them.
const ENDPOINTS: &str = "AWS_ENDPOINT_URL";

/// Region, credentials and endpoints, with the limits of a call. Nothing is sent yet. The region is
/// absent if none is configured.
pub(crate) async fn config() -> SdkConfig {
    let configured = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    let region = if has_own_endpoint() {
        configured.or_else(Region::from_static(LOCAL_REGION))
    } else {
        configured.or_default_provider()
    };
    aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .retry_config(retries())
        .timeout_config(timeouts())
        .load()
        .await
}

/// Where `service` (as in `AWS_ENDPOINT_URL_DYNAMODB`) is expected, for messages: ` at URL
/// (VARIABLE)`, ` in REGION`, or an empty text if the environment has neither.
pub(crate) fn place_of(service: &str) -> String {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    for name in [format!("{ENDPOINTS}_{service}"), ENDPOINTS.to_owned()] {
        if let Some(url) = set(&name) {
            // A name and a password before the host stay secret.
            let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            return format!(" at {scheme}://{host}, which {name} names");
        }
    }
    let region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION"));
    region.map_or_else(String::new, |region| format!(" in {region}"))
}

/// The setting in the environment that the AWS SDK cannot use: an endpoint that is no URL, or an
/// invalid region name. An endpoint may hold a password, so the text quotes no value.
pub(crate) fn refusal(of: impl Fn(&str) -> Option<String>) -> Option<Fault> {
    for suffix in ["", "_DYNAMODB", "_SQS", "_LAMBDA", "_SSM", "_SECRETS_MANAGER"] {
        let name = format!("{ENDPOINTS}{suffix}");
        let Some(url) = of(&name) else { continue };
        if url.is_empty() {
            return Some(
                Fault::new(format!("{name} is empty"))
                    .remedy(format!("unset it, or write {name}=http://HOST:PORT")),
            );
        }
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
            return Some(
                Fault::new(format!("{name} is no URL"))
                    .remedy(format!("write {name}=http://HOST:PORT, or https://")),
            );
        }
    }
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        let is_named = |it: &String| it.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if of(name).is_some_and(|region| !is_named(&region)) {
            return Some(
                Fault::new(format!("{name} is no region's name"))
                    .remedy(format!("write {name}=eu-central-1")),
            );
        }
    }
    None
}

fn has_own_endpoint() -> bool {
    env::vars_os().any(|(name, value)| {
        name.to_str().is_some_and(|name| name.starts_with(ENDPOINTS)) && !value.is_empty()
    })
}

/// The retry policy of calls.
pub(crate) fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX).with_initial_backoff(RETRY_FIRST)
}

/// The time limits of calls.
pub(crate) fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build()
}

/// The SDK's own texts ("dispatch failure", "service error") say little. The innermost error is
/// more precise, in its first line.
pub(crate) fn root_cause(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_end_matches(". Attempted:");
    crate::model::text::cut(first).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hint::Hinted as _;

    #[test]
    fn what_the_sdk_would_stumble_over_is_refused_by_name() {
        let ask = |name: &'static str, value: &'static str| {
            refusal(move |asked| (asked == name).then(|| value.to_owned()))
        };
        for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS"] {
            for value in ["", "127.0.0.1:8000", "http://", "ftp://host", " http://host"] {
                let said = ask(name, value).unwrap().in_one_line();
                assert!(said.starts_with(&format!("{name} is ")), "{value}: {said}");
                assert!(said.contains("; hint: "), "{value}: {said}");
            }
            for value in ["http://127.0.0.1:8000", "https://user:secret@host/path"] {
                assert_eq!(ask(name, value), None, "{value}");
            }
        }
        assert!(
            ask("AWS_REGION", "eu central")
                .unwrap()
                .hint()
                .unwrap()
                .contains("AWS_REGION=eu-central-1")
        );
        assert_eq!(ask("AWS_REGION", "eu-central-1"), None);
        assert_eq!(ask("AWS_REGION", ""), None);
    }
}
