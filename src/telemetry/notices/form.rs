//! The forms in which notices are sent.

use serde::Serialize;
use serde_json::{Value, json};

use super::incident::{Notice, Phase};
use crate::config::NoticeFormat;

/// A notice with the page of the console that tells more.
#[derive(Debug, Serialize)]
pub(super) struct Linked<'n> {
    #[serde(flatten)]
    pub(super) notice: &'n Notice,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
}

/// The document with these notices. `dropped` earlier ones were never sent.
#[must_use]
pub(super) fn document(format: NoticeFormat, notices: &[Linked<'_>], dropped: u64) -> String {
    let document = match format {
        NoticeFormat::Slack => slack(notices, dropped),
        NoticeFormat::Json => json!({ "version": 1, "notices": notices, "dropped": dropped }),
    };
    document.to_string()
}

/// The document of a trial, which tells of no incident. `id` is its own.
#[must_use]
pub(super) fn trial(format: NoticeFormat, id: &str, at: &str) -> String {
    const TEXT: &str = "this is a trial by `tallymark check --notify`: notices arrive here";
    let document = match format {
        NoticeFormat::Slack => json!({ "text": format!(":white_circle: {TEXT}") }),
        NoticeFormat::Json => json!({
            "version": 1,
            "notices": [
                { "id": format!("trial-{id}"), "kind": "trial", "phase": "trial", "at": at, "text": TEXT },
            ],
            "dropped": 0,
        }),
    };
    document.to_string()
}

/// Slack's form, which others take too: a line for each notice, and one each for its command and
/// its page.
fn slack(notices: &[Linked<'_>], dropped: u64) -> Value {
    let mut lines = Vec::new();
    for Linked { notice, link } in notices {
        let sign = match notice.phase {
            Phase::Begin => ":red_circle:",
            Phase::End => ":large_green_circle:",
        };
        lines.push(format!("{sign} {}", escaped(&notice.text)));
        lines.extend(notice.command.iter().map(|command| format!("> `{}`", escaped(command))));
        lines.extend(link.iter().map(|link| format!("> <{}|in the console>", escaped(link))));
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

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::incident::Kind;
    use super::*;

    fn notice(phase: Phase) -> Notice {
        let at = DateTime::UNIX_EPOCH;
        let (id, rollup) = ("numbers-daily-0-begin".to_owned(), "daily".to_owned());
        let text = "the numbers of daily look wrong: <!here> & 2 > 1".to_owned();
        let command = Some("tallymark status daily".to_owned()).filter(|_| phase == Phase::Begin);
        let slices = vec![at];
        Notice { id, kind: Kind::Numbers, phase, rollup, since: at, at, slices, text, command }
    }

    #[test]
    fn both_forms_have_the_link_and_slack_is_told_no_markup_of_others() {
        let (begin, end) = (notice(Phase::Begin), notice(Phase::End));
        let link = Some("https://tally.example.com/rollup/daily?slice=1970".to_owned());
        let linked = [Linked { notice: &begin, link }, Linked { notice: &end, link: None }];
        let sent: Value = serde_json::from_str(&document(NoticeFormat::Slack, &linked, 3)).unwrap();
        assert_eq!(
            sent["text"],
            ":red_circle: the numbers of daily look wrong: &lt;!here&gt; &amp; 2 &gt; 1\n\
             > `tallymark status daily`\n\
             > <https://tally.example.com/rollup/daily?slice=1970|in the console>\n\
             :large_green_circle: the numbers of daily look wrong: &lt;!here&gt; &amp; 2 &gt; 1\n\
             3 earlier notices were dropped, as nothing could be sent"
        );
        let sent: Value = serde_json::from_str(&document(NoticeFormat::Json, &linked, 3)).unwrap();
        let notices = &sent["notices"];
        assert_eq!(notices[0]["link"], "https://tally.example.com/rollup/daily?slice=1970");
        assert_eq!(
            (&notices[0]["kind"], &notices[0]["slices"][0]),
            (&"numbers".into(), &"1970-01-01T00:00:00Z".into())
        );
        assert_eq!((&notices[1]["link"], &sent["dropped"]), (&Value::Null, &3.into()));
    }

    #[test]
    fn a_trial_says_that_it_is_one_in_both_forms() {
        for format in NoticeFormat::ALL {
            let sent: Value =
                serde_json::from_str(&trial(format, "7", "1970-01-01T00:00:00Z")).unwrap();
            let text = match format {
                NoticeFormat::Slack => &sent["text"],
                NoticeFormat::Json => &sent["notices"][0]["text"],
            };
            assert!(text.as_str().is_some_and(|it| it.contains("this is a trial")), "{sent}");
        }
    }
}
