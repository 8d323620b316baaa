//! The frame of every page, and the pieces that all pages share.

use std::borrow::Cow;
use std::sync::LazyLock;

use aws_smithy_types::base64;
use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::process::Process;
use crate::cli::ui::{self, Paint};
use crate::model::visible;
use crate::telemetry::notices::slice_page;

const STYLE: &str = include_str!("style.css");

/// The content security policy: a page takes nothing from anywhere but its own text, runs nothing,
/// and sends forms to its own server only.
pub(in crate::cli) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = base64::encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; img-src data:; form-action 'self'; \
         base-uri 'none'"
    )
});

/// How pages are shown.
#[derive(Clone, Copy)]
pub(in crate::cli) struct Setting<'s> {
    /// The proof that a form comes from a page of this server. `None`: pages only show.
    pub(in crate::cli) form_token: Option<&'s str>,
    /// Whether a server shows them. Otherwise they are parts of one file.
    pub(in crate::cli) is_served: bool,
    /// What the serving process knows.
    pub(in crate::cli) process: Option<&'s Process>,
    /// When the facts were read.
    pub(in crate::cli) now: DateTime<Utc>,
}

impl Setting<'_> {
    /// The address of a rollup's page.
    pub(super) fn rollup(&self, name: &str) -> String {
        let name = escaped(name);
        if self.is_served { format!("/rollup/{name}") } else { format!("#rollup-{name}") }
    }

    /// The address of a slice's page. `None`: the file tells of the slice where it is named.
    pub(super) fn slice(&self, rollup: &str, start: DateTime<Utc>) -> Option<String> {
        self.is_served.then(|| slice_page(rollup, start))
    }

    /// A slice's name, which leads to its page where there is one.
    pub(super) fn slice_link(&self, rollup: &str, start: DateTime<Utc>, text: &str) -> Markup {
        html! {
            @match self.slice(rollup, start) {
                Some(address) => { a href=(address) { (text) } }
                None => { (text) }
            }
        }
    }
}

/// A name as a part of an address.
pub(super) fn escaped(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

/// A whole page. `path` are the pages above it, with their addresses.
pub(super) fn page(
    title: &str,
    path: &[(&str, String)],
    setting: Setting<'_>,
    body: &Markup,
) -> String {
    let shown = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(*POLICY);
                meta name="referrer" content="same-origin";
                link rel="icon" href="data:,";
                title { (foreign(title)) " · Tallymark" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    @if !path.is_empty() {
                        nav aria-label="Path" {
                            @for (name, address) in path { a href=(address) { (foreign(name)) } }
                        }
                    }
                }
                main #main {
                    h1 { (foreign(title)) }
                    (body)
                }
                footer { (footer(setting)) }
            }
        }
    };
    shown.into_string()
}

fn footer(setting: Setting<'_>) -> Markup {
    html! {
        p {
            "As of " (at(setting.now)) ", by Tallymark " (env!("CARGO_PKG_VERSION")) ". Times are UTC "
            "unless they say otherwise."
        }
        @if setting.is_served {
            nav aria-label="Service" {
                a href="/" { "Overview" }
                a href="/healthz" { "Health" }
                a href="/metrics" { "Metrics" }
            }
        }
    }
}

/// Text of others, with hidden characters as escapes.
pub(super) fn foreign(text: &str) -> Cow<'_, str> {
    visible::text(text)
}

/// A sentence for a terminal, in which backticks enclose commands.
pub(super) fn said(text: &str) -> Markup {
    let text = foreign(text);
    let parts: Vec<&str> = text.split('`').collect();
    // A backtick without a partner is a letter.
    let is_paired = parts.len() % 2 == 1;
    html! {
        @if is_paired {
            @for (place, part) in parts.iter().enumerate() {
                @if place % 2 == 1 { code { (part) } } @else { (part) }
            }
        } @else { (text) }
    }
}

/// An instant.
pub(super) fn at(at: DateTime<Utc>) -> Markup {
    html! { time { (ui::instant(at)) } }
}

/// An instant, or a dash.
pub(super) fn maybe_at(instant: Option<DateTime<Utc>>) -> Markup {
    html! { @match instant { Some(instant) => (at(instant)), None => "–" } }
}

/// The class of a colour.
pub(super) const fn class(paint: Paint) -> &'static str {
    match paint {
        Paint::Green => "ok",
        Paint::Cyan | Paint::Title => "busy",
        Paint::Yellow => "wait",
        Paint::Red | Paint::Alarm => "bad",
        Paint::Bold | Paint::Dim => "dim",
    }
}

/// A word on its colour.
pub(super) fn badge(paint: Paint, word: &str) -> Markup {
    html! { span class={ "badge " (class(paint)) } { (word) } }
}

/// Names and values. Pairs without a value are left out.
pub(super) fn pairs(pairs: &[(&str, Option<Markup>)]) -> Markup {
    html! {
        dl {
            @for (name, value) in pairs {
                @if let Some(value) = value {
                    dt { (name) }
                    dd { (value) }
                }
            }
        }
    }
}

/// Dashes below these headings of [`table`].
pub(super) fn dashes(titles: &[&str]) -> Markup {
    html! {
        @for title in titles {
            @if title.starts_with('>') { td.n { "–" } } @else { td { "–" } }
        }
    }
}

/// A column's heading. A `>` before it stands for numbers.
fn heading(title: &str) -> Markup {
    match title.strip_prefix('>') {
        Some(title) => html! { th.n scope="col" { (title) } },
        None => html! { th scope="col" { (title) } },
    }
}

/// A table with these headings; `rows` are its `tr` elements.
pub(super) fn table(caption: &str, titles: &[&str], rows: &Markup) -> Markup {
    html! {
        div.wide role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { @for title in titles { (heading(title)) } } }
                tbody { (rows) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::cli::console) fn setting(is_served: bool) -> Setting<'static> {
        let now = DateTime::from_timestamp(1_770_000_000, 0).unwrap();
        Setting { form_token: None, is_served, process: None, now }
    }

    #[test]
    fn a_hostile_title_is_text_and_the_policy_covers_the_style() {
        let hostile = "</title><script>alert(1)</script>\u{202e}\"'&";
        let shown = page(hostile, &[(hostile, "/".into())], setting(true), &html! {});
        assert!(!shown.contains("<script") && !shown.contains('\u{202e}'), "{shown}");
        let style = shown.split("<style>").nth(1).and_then(|it| it.split("</style>").next());
        let digest = base64::encode(Sha256::digest(style.unwrap()));
        assert!(shown.contains(&format!("'sha256-{digest}'")), "{shown}");
        for loaded in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!shown.contains(loaded), "{loaded}");
        }
    }

    #[test]
    fn commands_in_a_sentence_are_code_and_all_of_it_is_text() {
        for (text, shown) in [
            ("run `tallymark init` first", "run <code>tallymark init</code> first"),
            ("`a` and `b`", "<code>a</code> and <code>b</code>"),
            ("a lone ` stays", "a lone ` stays"),
            ("`<b>` <i>", "<code>&lt;b&gt;</code> &lt;i&gt;"),
            ("", ""),
        ] {
            assert_eq!(said(text).into_string(), shown);
        }
    }

    #[test]
    fn a_name_stays_one_part_of_an_address() {
        assert_eq!(setting(true).rollup("a/b?c#d e"), "/rollup/a%2Fb%3Fc%23d+e");
        assert_eq!(setting(false).slice("daily", setting(false).now), None);
    }
}
