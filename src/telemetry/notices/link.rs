//! The pages of the console that tell of an incident.

use chrono::{DateTime, Utc};

use super::incident::Notice;
use crate::config::Config;
use crate::model::clock::rfc3339_seconds;

/// The path of a rollup's page.
#[must_use]
pub(crate) fn rollup_page(name: &str) -> String {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    format!("/rollup/{name}")
}

/// The path of the page with a slice's story.
#[must_use]
pub(crate) fn slice_page(rollup: &str, start: DateTime<Utc>) -> String {
    format!("{}?slice={}", rollup_page(rollup), rfc3339_seconds(start))
}

/// The address of the page that tells of a notice's incident: the story of its first slice, or else
/// the rollup. `None`: the configuration names no console.
#[must_use]
pub(super) fn of(notice: &Notice, config: &Config) -> Option<String> {
    let console = config.notify.as_ref()?.console.as_ref()?;
    let name = &notice.rollup;
    let rollup = config.rollups.iter().find(|it| it.name == *name);
    // A slice of an earlier calendar has no page. The one that holds its start has.
    let slice = rollup.zip(notice.slices.first()).and_then(|(rollup, start)| {
        let slice = rollup.calendar.containing(*start);
        (slice.start() >= rollup.start).then_some(slice)
    });
    let page = slice.map_or_else(|| rollup_page(name), |slice| slice_page(name, slice.start()));
    Some(format!("{console}{page}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::incident::{Kind, Phase};
    use super::*;

    fn config(notify: &str) -> Config {
        let text = format!(
            r#"
            source.url = "postgres://app@db/shop"
            notify = {{ url = {{ parameter = "/app/hook" }}{notify} }}
            [[rollup]]
            name = "daily"
            from = "events"
            time = "at"
            start = "2026-02-03"
            slice = "1 day"
            measures = {{ events = "count" }}
            "#
        );
        Config::parse(Path::new("tallymark.toml"), &text, &|_| None).unwrap()
    }

    fn notice(slices: &[&str]) -> Notice {
        let at = |text: &&str| text.parse::<DateTime<Utc>>().unwrap();
        Notice {
            id: "exhausted-daily-1-begin".to_owned(),
            kind: Kind::Exhausted,
            phase: Phase::Begin,
            rollup: "daily".to_owned(),
            since: at(&"2026-02-10T00:00:00Z"),
            at: at(&"2026-02-10T00:00:00Z"),
            slices: slices.iter().map(at).collect(),
            text: "1 slice of daily failed too often".to_owned(),
            command: None,
        }
    }

    #[test]
    fn a_notice_leads_to_the_story_of_its_first_slice_or_to_its_rollup() {
        let with = config(r#", console = "https://tally.example.com/""#);
        for (slices, page) in [
            (&["2026-02-09T00:00:00Z", "2026-02-10T00:00:00Z"][..], "?slice=2026-02-09T00:00:00Z"),
            // Those of hours, before the slices were days.
            (&["2026-02-09T07:00:00Z"], "?slice=2026-02-09T00:00:00Z"),
            // History began earlier then.
            (&["2026-02-02T00:00:00Z"], ""),
            (&[], ""),
        ] {
            let address = format!("https://tally.example.com/rollup/daily{page}");
            assert_eq!(of(&notice(slices), &with), Some(address), "{slices:?}");
        }
        assert_eq!(of(&notice(&["2026-02-09T00:00:00Z"]), &config("")), None);
        let gone = Notice { rollup: "gone".to_owned(), ..notice(&["2026-02-09T00:00:00Z"]) };
        let address = "https://tally.example.com/rollup/gone";
        assert_eq!(of(&gone, &with).as_deref(), Some(address));
    }
}
