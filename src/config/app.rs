//! `[source] bubble`: a Bubble app, which offers its rows through an API alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::{Node, Section};
use super::{AppConfig, NiceRatio, Settings, SourceConfig, TargetConfig, address, throttle};
use crate::clients::bubble::{AppToken, LIVE};
use crate::model::hint::Fault;
use crate::model::text::shown;

/// The keys of a source that is an app. The first one makes it one.
pub(super) const KEYS: [&str; 2] = ["bubble", "workload_units_per_month"];

/// The keys of `bubble`.
pub(super) const APP: [&str; 3] = ["app", "branch", "token"];

/// The largest plan has half a million.
pub(super) const UNITS: RangeInclusive<u32> = 1..=1_000_000_000;

/// The keys that only a database has, with the reasons.
pub(super) const REFUSED: [(&str, &str); 10] = [
    ("url", "the source is the app"),
    ("auth", "an app is read by its own token"),
    ("chunk_time", "an app is read page by page"),
    ("slots", "an app has no sessions to hold them; each worker asks for one page at a time"),
    ("nice_ratio", "an app is no database that could be kept from its work"),
    ("nice_min", "an app is no database that could be kept from its work"),
    ("naps", "an app runs no statements"),
    ("max_load", "an app does not tell its load"),
    ("critical_load", "an app does not tell its load"),
    ("throttle_query", "an app answers no query"),
];

/// Bytes of a branch's name.
pub(super) const BRANCH_MAX: usize = 63;

/// Refuses the keys of an app where the source is a database.
pub(super) fn refuse(section: &Section<'_>) {
    if let Some(node) = section.get(KEYS[1]) {
        let fault = Fault::new("is the budget of a Bubble app, and the source is a database");
        node.wrong::<()>(fault.remedy("remove the key, or write bubble = { app = … }"));
    }
}

/// Reads a source that is an app. Its mirrors are in the target, so that has to be a database.
pub(super) fn read(
    section: &Section<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    target: Option<&TargetConfig>,
) -> Option<SourceConfig> {
    for (key, why) in REFUSED {
        if let Some(node) = section.get(key) {
            node.wrong::<()>(Fault::new(why).remedy("remove the key"));
        }
    }
    let app = section.get(KEYS[0]).and_then(|node| app(&node, env));
    let units = section
        .need(
            KEYS[1],
            "write the budget of all mirrors, such as workload_units_per_month = 20000: an app that \
             has used up its workload may go offline",
        )
        .and_then(|node| node.integer(UNITS));
    let hours = throttle::read(section);
    let url = match target.map(|target| &target.url) {
        Some(Some(url)) => Some(url.clone()),
        Some(None) => section.wrong(
            Fault::new("a Bubble app has no room for the tables of Tallymark")
                .remedy(r#"add [target] with url = { env = "TARGET_DATABASE_URL" }"#),
        ),
        None => None,
    };
    let (address, branch, token) = app?;
    Some(SourceConfig {
        url: url?,
        chunk_time: Duration::from_secs(1),
        governor: Settings { nice_ratio: NiceRatio::Fixed(0.0), naps: false, ..hours? },
        app: Some(AppConfig { address, branch, token, units_per_month: units? }),
    })
}

/// Address, branch and token.
fn app(
    node: &Node<'_>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<(String, String, AppToken)> {
    let mut section =
        node.section(r#"{ app = "https://app.example.com", token = { env = "BUBBLE_TOKEN" } }"#)?;
    section.only(&APP);
    let address =
        section.need("app", r#"write app = "https://app.example.com""#).and_then(|it| host(&it));
    let branch = section.get("branch").map_or_else(|| Some(LIVE.to_owned()), |it| branch(&it));
    let token = section
        .need("token", r#"write token = { env = "BUBBLE_TOKEN" }"#)
        .and_then(|node| token(&node, env));
    Some((address?, branch?, token?))
}

/// The app's address: HTTPS and a host, because the token goes there. Plain HTTP stays on this
/// machine.
fn host(node: &Node<'_>) -> Option<String> {
    const FORM: &str = r#"write such as app = "https://app.example.com""#;
    let text = node.string(r#"an address such as "https://app.example.com""#)?;
    let wrong = |facts: String, remedy: &str| node.wrong(Fault::new(facts).remedy(remedy));
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong(format!("{} has no scheme", shown(text)), FORM);
    };
    let rest = rest.trim_end_matches('/');
    // The last colon of an IPv6 address stands within its brackets.
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (rest, None),
    };
    if rest.contains('/') {
        return wrong(
            "the address has a path".to_owned(),
            r#"write scheme and host alone, and the branch as branch = "version-test""#,
        );
    }
    let is_named = |it: char| it.is_ascii_alphanumeric() || "-.:[]".contains(it);
    if name.is_empty() || !name.chars().all(is_named) {
        return wrong("the address is more than a scheme and a host".to_owned(), FORM);
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return wrong("the port is no number up to 65535".to_owned(), FORM);
    }
    let is_here = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    match scheme {
        "https" => {}
        "http" if is_here => {}
        "http" => {
            return wrong(
                "over plain HTTP everybody on the way would read the token".to_owned(),
                "write https://",
            );
        }
        _ => return wrong("the address begins with neither https:// nor http://".to_owned(), FORM),
    }
    Some(format!("{scheme}://{rest}"))
}

fn branch(node: &Node<'_>) -> Option<String> {
    let text = node.string(r#"a branch such as "live" or "version-test""#)?;
    let is_plain = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
    if text == "test" {
        return node.wrong(
            Fault::new("the branch with the test data is called differently in addresses")
                .remedy(r#"write "version-test""#),
        );
    }
    if text.is_empty() || text.len() > BRANCH_MAX || !text.chars().all(is_plain) {
        return node.wrong(
            Fault::new(format!("{} is no branch of an app", shown(text)))
                .remedy(r#"write "live", "version-test", or the ID of a branch"#),
        );
    }
    Some(text.to_owned())
}

fn token(node: &Node<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<AppToken> {
    if node.as_str().is_some() {
        return node.wrong(
            Fault::new(
                "the token may write and delete everything in the app, and stands in a file",
            )
            .remedy(r#"keep it elsewhere: token = { env = "BUBBLE_TOKEN" }"#),
        );
    }
    let (key, entry) = address::place(node, r#"{ env = "BUBBLE_TOKEN" }"#)?;
    match key {
        "parameter" => address::parameter(&entry).map(AppToken::Parameter),
        "secret" => address::secret(&entry).map(AppToken::Secret),
        _ => address::variable(&entry, env, ("BUBBLE_TOKEN", "the token of Settings → API"))
            .map(|(_, value)| AppToken::Text(value)),
    }
}
