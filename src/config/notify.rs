//! `[notify]`: who hears of trouble.

use super::raw::Node;
use super::{Env, NoticeFormat, NotifyConfig, address};
use crate::clients::webhook::{HookAddress, HookUrl};
use crate::model::hint::Fault;
use crate::model::text::shown;

pub(super) const KEYS: [&str; 4] = ["url", "format", "ping", "console"];

/// Bytes of the console's address.
pub(super) const CONSOLE_MAX: usize = 255;

impl NoticeFormat {
    pub(crate) const ALL: [Self; 2] = [Self::Slack, Self::Json];

    /// Its word in the file.
    #[must_use]
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Json => "json",
        }
    }
}

pub(super) fn read(node: &Node<'_>, env: Env<'_>) -> Option<NotifyConfig> {
    const URL: (&str, &str) = ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/...");
    const PING: (&str, &str) = ("PING_URL", "https://hc-ping.com/...");
    let mut section = node.section("a table: [notify]")?;
    section.only(&KEYS);
    let optional = |key, example| match section.get(key) {
        Some(node) => hook(&node, env, example).map(Some),
        None => Some(None),
    };
    let (url, ping) = (optional("url", URL), optional("ping", PING));
    if !section.has_typos() && url == Some(None) && ping == Some(None) {
        section.need("url", r#"write url = { env = "SLACK_WEBHOOK_URL" }"#)?;
    }
    let beside_url = |key| match section.get(key) {
        Some(node) if url == Some(None) => node.wrong(
            Fault::new("there is no url beside it").remedy("write it beside the url it is for"),
        ),
        node => Some(node),
    };
    let format = beside_url("format")
        .and_then(|node| node.map_or_else(|| Some(NoticeFormat::default()), |node| format(&node)));
    let console = beside_url("console")
        .and_then(|node| node.map_or(Some(None), |node| console(&node).map(Some)));
    Some(NotifyConfig { url: url?, format: format?, ping: ping?, console: console? })
}

/// The address of a console, without a slash at its end. The pages of a console begin at its root.
fn console(node: &Node<'_>) -> Option<String> {
    const FORM: &str =
        r#"scheme and host of `tallymark serve` such as "https://tally.example.com""#;
    let text = node.string(FORM)?;
    let address = text.strip_suffix('/').unwrap_or(text);
    let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b".:[]-".contains(&byte);
    match host {
        Some(host)
            if !host.is_empty() && host.bytes().all(is_known) && text.len() <= CONSOLE_MAX =>
        {
            Some(address.to_owned())
        }
        _ => node.wrong(Fault::new("is no address of a console").remedy(format!("write {FORM}"))),
    }
}

fn format(node: &Node<'_>) -> Option<NoticeFormat> {
    let word = node.string(r#""slack" or "json""#)?;
    let found = NoticeFormat::ALL.into_iter().find(|format| format.word() == word);
    found.or_else(|| {
        let remedy = r#"use "slack", which Mattermost and others take too, or "json""#;
        node.wrong(Fault::new(format!("{} is unknown", shown(word))).remedy(remedy))
    })
}

/// An address that hears of trouble. Who knows it may write there, so it stands in no file.
fn hook(node: &Node<'_>, env: Env<'_>, example: (&str, &str)) -> Option<HookAddress> {
    let form = format!("{{ env = \"{}\" }}", example.0);
    if node.as_str().is_some() {
        return node.wrong(
            Fault::new("who knows the address may write to it, and it stands in a file")
                .remedy(format!("keep it elsewhere: {} = {form}", key(example))),
        );
    }
    let (key, entry) = address::place(node, &form)?;
    match key {
        "parameter" => address::parameter(&entry).map(HookAddress::Parameter),
        "secret" => address::secret(&entry).map(HookAddress::Secret),
        _ => {
            let (name, value) = address::variable(&entry, env, example)?;
            HookUrl::new(&value).map_or_else(
                |fault| entry.wrong(fault.within(format!("the environment variable {name}"))),
                |url| Some(HookAddress::Url(url)),
            )
        }
    }
}

/// The key that an example belongs to.
fn key((variable, _): (&str, &str)) -> &'static str {
    if variable.starts_with("PING") { "ping" } else { "url" }
}
