//! The environment variables of the OpenTelemetry specification:
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::model::hint::Fault;

/// The name of a service that the environment leaves unnamed.
const SERVICE: &str = "tallymark";

/// The specification's limit of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The specification's time between two messages.
const INTERVAL: Duration = Duration::from_mins(1);

/// A shorter one would only repeat the values.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// How metrics are sent.
#[derive(Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) url: Uri,
    pub(super) headers: HeaderMap,
    /// The longest time of a message.
    pub(super) timeout: Duration,
    /// The time between two messages of a process that stays.
    pub(super) interval: Duration,
    /// Whether counters tell what was added since the message before.
    pub(super) is_delta: bool,
    /// What the process is: names and values.
    pub(super) attributes: Vec<(String, String)>,
}

/// Reads the settings. `None`: the environment names no receiver.
///
/// # Errors
/// A variable cannot be used. The text names it, and shows no value that may be secret.
pub(super) fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Settings>, Fault> {
    // An empty variable counts as none.
    let own = |name: &str| {
        let text = env(name)?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    // That of metrics wins over that of every signal.
    let either = |name: &str| {
        let [of_metrics, of_all] =
            ["METRICS_", ""].map(|signal| format!("OTEL_EXPORTER_OTLP_{signal}{name}"));
        own(&of_metrics)
            .map(|text| (of_metrics, text))
            .or_else(|| Some((of_all.clone(), own(&of_all)?)))
    };
    let is_off = own("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let exporters = own("OTEL_METRICS_EXPORTER");
    let is_other = exporters.is_some_and(|it| it.split(',').all(|word| word.trim() != "otlp"));
    let endpoint = either("ENDPOINT").map(|(name, text)| match name.contains("METRICS") {
        true => (name, text),
        false => (name, format!("{}/v1/metrics", text.trim_end_matches('/'))),
    });
    let Some((variable, address)) = endpoint.filter(|_| !is_off && !is_other) else {
        return Ok(None);
    };
    if let Some((name, protocol)) = either("PROTOCOL").filter(|(_, it)| it != "http/protobuf") {
        let known =
            if protocol == "grpc" || protocol == "http/json" { &*protocol } else { "another" };
        let facts = format!("{name} asks for {known}, and Tallymark sends http/protobuf");
        return Err(Fault::new(facts).remedy(format!(
            "set {name} to http/protobuf, and {variable} to the receiver's address for OTLP over \
             HTTP, as a rule with port 4318"
        )));
    }
    let headers = match either("HEADERS") {
        Some((name, text)) => headers(&name, &text)?,
        None => HeaderMap::new(),
    };
    let milliseconds = |found: Option<(String, String)>| {
        found.map(|(name, text)| match text.parse::<u64>() {
            Ok(ms @ 1..) => Ok(Duration::from_millis(ms)),
            _ => Err(wrong(&name, "is no number of milliseconds", "write a number such as 10000")),
        })
    };
    let timeout = milliseconds(either("TIMEOUT")).transpose()?;
    let name = "OTEL_METRIC_EXPORT_INTERVAL";
    let interval = milliseconds(own(name).map(|text| (name.to_owned(), text))).transpose()?;
    let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let is_delta = match own(name).unwrap_or_default().to_lowercase().as_str() {
        "" | "cumulative" => false,
        "delta" | "lowmemory" => true,
        _ => return Err(wrong(name, "is unknown", "write cumulative or delta")),
    };
    Ok(Some(Settings {
        url: url(&variable, &address, !headers.is_empty())?,
        headers,
        timeout: timeout.unwrap_or(TIMEOUT),
        interval: interval.unwrap_or(INTERVAL).max(INTERVAL_MIN),
        is_delta,
        attributes: attributes(own("OTEL_SERVICE_NAME"), own("OTEL_RESOURCE_ATTRIBUTES"))?,
    }))
}

fn wrong(variable: &str, what: &str, remedy: &str) -> Fault {
    Fault::new(format!("{variable} {what}")).remedy(remedy)
}

/// The receiver's address. With headers, which may hold a key, it is encrypted or on this machine.
fn url(variable: &str, address: &str, has_headers: bool) -> Result<Uri, Fault> {
    let form = "write the whole address, such as https://otlp.example.com";
    let url: Uri = address.parse().map_err(|_| wrong(variable, "is no address", form))?;
    let host = url.host().ok_or_else(|| wrong(variable, "has no host", form))?;
    if url.authority().is_some_and(|it| it.as_str().contains('@')) {
        let remedy = "put the key into OTEL_EXPORTER_OTLP_HEADERS";
        return Err(wrong(variable, "holds a login, which is not sent", remedy));
    }
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_here || !has_headers => Ok(url),
        Some("http") => Err(wrong(
            variable,
            "is plain HTTP, over which everybody on the way would read the headers",
            "use the receiver's address with https://, or leave OTEL_EXPORTER_OTLP_HEADERS out",
        )),
        _ => Err(wrong(variable, "begins with neither https:// nor http://", form)),
    }
}

/// The pairs of a list such as `a=1,b=two%20words`. `None`: it is no such list.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let pair = |item: &str| {
        let (name, value) = item.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name = name.trim();
        (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
    };
    items.map(pair).collect()
}

fn headers(variable: &str, text: &str) -> Result<HeaderMap, Fault> {
    let form = "write name=value, and a comma between two; a space in a value is %20";
    let no_list = || wrong(variable, "is no list of headers", form);
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(text).ok_or_else(no_list)? {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| no_list())?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| no_list())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// What the process is. The name of the service has a variable of its own, which wins.
fn attributes(
    service: Option<String>,
    others: Option<String>,
) -> Result<Vec<(String, String)>, Fault> {
    let remedy = "write name=value, and a comma between two";
    let no_list = || wrong("OTEL_RESOURCE_ATTRIBUTES", "is no list of attributes", remedy);
    let mut attributes = pairs(&others.unwrap_or_default()).ok_or_else(no_list)?;
    if let Some(service) = service {
        attributes.retain(|(name, _)| name != "service.name");
        attributes.push(("service.name".to_owned(), service));
    }
    for (name, value) in [("service.name", SERVICE), ("service.version", env!("CARGO_PKG_VERSION"))]
    {
        if !attributes.iter().any(|(known, _)| known == name) {
            attributes.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hint::Hinted as _;

    fn read_of(variables: &[(&str, &str)]) -> Result<Option<Settings>, Fault> {
        read(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/");

    #[test]
    fn without_an_address_or_switched_off_nothing_is_sent() {
        for off in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[("OTEL_SERVICE_NAME", "shop")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")],
            &[ENDPOINT, ("OTEL_METRICS_EXPORTER", "none")],
            &[ENDPOINT, ("OTEL_METRICS_EXPORTER", "console,prometheus")],
        ] {
            assert_eq!(read_of(off), Ok(None), "{off:?}");
        }
        let on = [ENDPOINT, ("OTEL_SDK_DISABLED", "no"), ("OTEL_METRICS_EXPORTER", "otlp")];
        assert!(read_of(&on).unwrap().is_some());
    }

    #[test]
    fn variables_mean_what_the_specification_says() {
        let plain = read_of(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!(plain.url, "http://127.0.0.1:4318/v1/metrics");
        assert_eq!((plain.timeout, plain.interval), (TIMEOUT, INTERVAL));
        assert!(!plain.is_delta && plain.headers.is_empty());
        let version = env!("CARGO_PKG_VERSION");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let named = [pair("service.name", "tallymark"), pair("service.version", version)];
        assert_eq!(plain.attributes, named);
        let settings = read_of(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://otlp.example.com/own?x=1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20swordfish, X-Org = 7,"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,host.name=a%2Cb,service.version=9"),
            ("OTEL_SERVICE_NAME", "shop"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.url, "https://otlp.example.com/own?x=1");
        assert_eq!(settings.headers["authorization"], "Bearer swordfish");
        assert_eq!(settings.headers["x-org"], "7");
        assert!(!format!("{settings:?}").contains("swordfish"), "{settings:?}");
        let times = (Duration::from_millis(2_500), INTERVAL_MIN);
        assert_eq!((settings.timeout, settings.interval), times);
        assert!(settings.is_delta);
        let named =
            [pair("host.name", "a,b"), pair("service.version", "9"), pair("service.name", "shop")];
        assert_eq!(settings.attributes, named);
    }

    #[test]
    fn what_cannot_be_used_is_told_by_the_variables_name_and_without_its_value() {
        const OTHER: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(read_of(&[OTHER]).unwrap().is_some(), "metrics alone may be plain");
        for (told, variables) in [
            ("ENDPOINT is no address", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "swordfish /")][..]),
            ("ENDPOINT begins", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://swordfish")]),
            ("a login", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://swordfish@example.com")]),
            ("plain HTTP", &[OTHER, ("OTEL_EXPORTER_OTLP_HEADERS", "key=swordfish")]),
            ("HEADERS is no", &[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "swordfish")]),
            ("HEADERS is no", &[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "a=swordfish%0A")]),
            ("asks for grpc", &[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]),
            ("asks for another", &[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "swordfish")]),
            ("TIMEOUT is no", &[ENDPOINT, ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")]),
            ("INTERVAL is no", &[ENDPOINT, ("OTEL_METRIC_EXPORT_INTERVAL", "0")]),
            ("ATTRIBUTES is no", &[ENDPOINT, ("OTEL_RESOURCE_ATTRIBUTES", "swordfish")]),
            (
                "PREFERENCE is",
                &[ENDPOINT, ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "swordfish")],
            ),
        ] {
            let fault = read_of(variables).unwrap_err();
            let text = fault.in_one_line();
            assert!(fault.facts().contains(told), "{told}: {text}");
            assert!(!text.contains("swordfish"), "{text}");
        }
    }
}
