//! The forms in which notices are sent.

use serde_json::{Value, json};

use super::incident::{Notice, Phase};
use crate::config::NoticeFormat;

/// The document with these notices. `dropped` earlier ones were never sent.
#[must_use]
pub(super) fn document(format: NoticeFormat, notices: &[Notice], dropped: u64) -> String {
    let document = match format {
        NoticeFormat::Slack => slack(notices, dropped),
        NoticeFormat::Json => json!({ "version": 1, "notices": notices, "dropped": dropped }),
    };
    document.to_string()
}

/// Slack's form, which others take too: a line for each notice, and one for its command.
fn slack(notices: &[Notice], dropped: u64) -> Value {
    let mut lines = Vec::new();
    for notice in notices {
        let sign = match notice.phase {
            Phase::Begin => ":red_circle:",
            Phase::End => ":large_green_circle:",
        };
        lines.push(format!("{sign} {}", escaped(&notice.text)));
        lines.extend(notice.command.iter().map(|command| format!("> `{}`", escaped(command))));
    }
    if dropped > 0 {
        lines.push(format!("{dropped} earlier notices were dropped, as nothing could be sent"));
    }
    json!({ "text": lines.join("\n") })
}

/// Slack reads these three characters as the begin of a link or a mention.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
