//! `[notify]`: who hears of trouble.

use super::raw::Node;
use super::{Env, NoticeFormat, NotifyConfig, address};
use crate::clients::webhook::{HookAddress, HookUrl};
use crate::model::hint::Fault;
use crate::model::text::shown;

pub(super) const KEYS: [&str; 3] = ["url", "format", "ping"];

impl NoticeFormat {
    pub(super) const ALL: [Self; 2] = [Self::Slack, Self::Json];

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
    let format = match section.get("format") {
        Some(node) if url == Some(None) => node.wrong(
            Fault::new("there is no url beside it").remedy("write it beside the url it is for"),
        ),
        Some(node) => format(&node),
        None => Some(NoticeFormat::default()),
    };
    Some(NotifyConfig { url: url?, format: format?, ping: ping? })
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
