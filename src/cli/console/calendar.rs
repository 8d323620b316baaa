//! The calendar of a rollup's slices: a letter each, in lines, by years.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::html::{Setting, class, escaped};
use crate::cli::status::grid::{CalendarLines, arranged, color, counts, letter};
use crate::cli::ui;
use crate::model::rollup::Rollup;
use crate::work::due::{Planned, Standing};

/// Cells of a line that fit beside others.
const NARROW_MAX: usize = 31;

/// The calendar with its legend. In a server's page a letter leads to its slice, and a line's name
/// to a list of its slices.
pub(super) fn calendar(rollup: &Rollup, slices: &[Planned], setting: Setting<'_>) -> Markup {
    let lines = arranged(rollup, slices);
    let mut years: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for label in lines.keys() {
        years.entry(label.get(..4).unwrap_or(label)).or_default().push(label);
    }
    let is_long = lines.values().any(|cells| cells.len() > NARROW_MAX);
    html! {
        @if slices.is_empty() { p { "No slice has ended yet." } }
        div class=(if is_long { "years long" } else { "years" }) {
            @for (year, labels) in years.iter().rev() {
                h3 { (year) }
                ul {
                    @for label in labels { li { (line(rollup, label, &lines[*label], setting)) } }
                }
            }
        }
        (legend(slices))
    }
}

/// The slices of the line `label`, oldest first.
pub(super) fn line_of<'s>(lines: &CalendarLines<'s>, label: &str) -> Option<Vec<&'s Planned>> {
    lines.get(label).map(|cells| cells.values().copied().collect())
}

fn line(
    rollup: &Rollup,
    label: &str,
    cells: &BTreeMap<usize, &Planned>,
    setting: Setting<'_>,
) -> Markup {
    let told = counts(cells.values().copied());
    let told = told.iter().map(|(standing, count)| format!("{count} {}", standing.word()));
    let told = told.collect::<Vec<_>>().join(", ");
    html! {
        @if setting.is_served {
            a href={ "/rollup/" (escaped(&rollup.name)) "?line=" (escaped(label)) } {
                (label) span.sr { ": " (told) }
            }
        } @else {
            span { (label) span.sr { ": " (told) } }
        }
        span.cells aria-hidden="true" {
            @if setting.is_served { (linked(cells)) } @else { (runs(cells)) }
        }
    }
}

/// A letter for each slice, which leads to its page.
fn linked(cells: &BTreeMap<usize, &Planned>) -> Markup {
    let mut next = 0;
    html! {
        @for (place, planned) in cells {
            (gap(&mut next, *place))
            a tabindex="-1" href={ "?slice=" (ui::instant(planned.slice.start())) }
                class=(class(color(planned.standing))) { (shown(planned.standing)) }
        }
    }
}

/// The letters, with one element for equal ones beside each other.
fn runs(cells: &BTreeMap<usize, &Planned>) -> Markup {
    let mut next = 0;
    let mut runs: Vec<(Option<Standing>, String)> = Vec::new();
    let mut add = |standing: Option<Standing>, text: String| match runs.last_mut() {
        Some((last, letters)) if *last == standing => letters.push_str(&text),
        _ => runs.push((standing, text)),
    };
    for (place, planned) in cells {
        let gap = gap(&mut next, *place);
        if !gap.is_empty() {
            add(None, gap);
        }
        add(Some(planned.standing), shown(planned.standing).to_string());
    }
    html! {
        @for (standing, letters) in &runs {
            @match standing {
                Some(standing) => { i class=(class(color(*standing))) { (letters) } }
                None => (letters),
            }
        }
    }
}

/// Blanks for the places that no slice has, before `place`.
fn gap(next: &mut usize, place: usize) -> String {
    let gap = " ".repeat(place.saturating_sub(*next));
    *next = place + 1;
    gap
}

/// The letter of a standing; a slice that goes on has a mark too, as it can be pointed at.
fn shown(standing: Standing) -> char {
    match letter(standing) {
        ' ' => '·',
        letter => letter,
    }
}

fn legend(slices: &[Planned]) -> Markup {
    html! {
        p.legend {
            @for (standing, count) in counts(slices.iter()) {
                span {
                    b class=(class(color(standing))) { (shown(standing)) }
                    " " (ui::count(count)) " " (standing.word())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use chrono::DateTime;

    use super::*;
    use crate::config::Config;

    /// Bytes of a page, of which the calendar is most.
    const PAGE_MAX: usize = 1_000_000;

    fn rollup(slice: &str) -> Rollup {
        let text = format!(
            "[source]\nurl = \"postgres://localhost/app\"\n[[rollup]]\nname = \"daily\"\n\
             from = \"events\"\ntime = \"at\"\nstart = \"1990-01-01\"\nslice = \"{slice}\"\n\
             measures = {{ events = \"count\" }}\n"
        );
        Config::parse(Path::new("t.toml"), &text, &|_| None).unwrap().rollups[0].clone()
    }

    fn slices(rollup: &Rollup, count: usize) -> Vec<Planned> {
        let end = rollup.start + chrono::TimeDelta::days(40_000);
        let standing = |place: usize| match place % 97 {
            0 => Standing::Exhausted,
            1..5 => Standing::Stale,
            _ => Standing::Succeeded,
        };
        let slices = rollup.calendar.slices(rollup.start, end).take(count).enumerate();
        slices.map(|(place, slice)| Planned { slice, standing: standing(place) }).collect()
    }

    #[test]
    fn ten_thousand_slices_are_each_in_the_calendar_of_a_small_page() {
        let now = DateTime::from_timestamp(1_770_000_000, 0).unwrap();
        for width in ["1 day", "1 hour", "15 minutes"] {
            let rollup = rollup(width);
            let slices = slices(&rollup, 10_000);
            for is_served in [true, false] {
                let setting = Setting { form_token: None, process: None, is_served, now };
                let shown = calendar(&rollup, &slices, setting).into_string();
                assert!(shown.len() < PAGE_MAX, "{width}: {} bytes", shown.len());
                let links = shown.matches("?slice=").count();
                assert_eq!(links, if is_served { 10_000 } else { 0 }, "{width}");
                assert!(shown.contains("exhausted") && shown.contains("stale"), "{width}");
            }
        }
    }

    #[test]
    fn a_letter_stands_at_the_place_of_its_slice() {
        let rollup = rollup("1 day");
        let start = rollup.start + chrono::TimeDelta::days(2);
        let slice = rollup.calendar.containing(start);
        let planned = [Planned { slice, standing: Standing::Missing }];
        let lines = arranged(&rollup, &planned);
        let cells = lines.get("1990-01").unwrap();
        assert_eq!(runs(cells).into_string(), "  <i class=\"dim\">.</i>");
        let linked = linked(cells).into_string();
        assert!(
            linked.starts_with("  <a tabindex=\"-1\" href=\"?slice=1990-01-03T00:00:00Z\""),
            "{linked}"
        );
        assert_eq!(line_of(&lines, "1990-02").map(|it| it.len()), None);
    }
}
