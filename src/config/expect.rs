//! `expect`: what the numbers of a rollup's newest slice are compared with, for notices.

use std::ops::RangeInclusive;

use super::raw::{Node, Section};
use crate::model::hint::Fault;
use crate::model::measure::Measure;
use crate::model::operand::GroupKey;
use crate::model::rollup::expect::{Expect, Limits};
use crate::model::text::{listed, nearest, shown};

/// The key beside the measures. A measure of this name has a table of limits instead.
pub(super) const WEEKDAYS: &str = "weekdays";

/// The limits of a measure.
pub(super) const LIMITS: [&str; 3] = ["min", "max", "drop"];

/// The values of `min` and `max`.
pub(super) const TOTAL: RangeInclusive<f64> = -1e15..=1e15;

/// Reads `expect` of a rollup with these columns. `None`: they have errors, which are reported.
pub(super) fn read(
    section: &Section<'_>,
    columns: Option<&(Vec<GroupKey>, Vec<Measure>)>,
) -> Option<Expect> {
    let Some(node) = section.get("expect") else { return Some(Expect::default()) };
    let entries = node.section("a table of measures such as { events = { min = 1 } }")?.entries();
    if entries.is_empty() {
        return node.wrong(
            Fault::new("is empty")
                .remedy("write limits such as { events = { min = 1 } }, or { weekdays = false }"),
        );
    }
    let mut expect = Expect::default();
    for (name, node) in entries {
        match node.as_bool().filter(|_| name == WEEKDAYS) {
            Some(weekdays) => expect.weekdays = weekdays,
            None => expect.limits.extend(limits(name, &node, columns)),
        }
    }
    Some(expect)
}

/// Reads the limits of the measure `name`.
fn limits(
    name: &str,
    node: &Node<'_>,
    columns: Option<&(Vec<GroupKey>, Vec<Measure>)>,
) -> Option<Limits> {
    const NONE: &str = r#"write one such as { min = 1 }, { max = 1000 } or { drop = "50%" }"#;
    let mut section = node.section("limits such as { min = 1, drop = \"50%\" }")?;
    section.only(&LIMITS);
    if section.entries().is_empty() {
        return node.wrong(Fault::new("has no limit").remedy(NONE));
    }
    let total = |key| section.get(key).map_or(Some(None), |node| node.number(TOTAL).map(Some));
    let (min, max) = (total("min"), total("max"));
    let drop = section.get("drop").map_or(Some(None), |node| percentage(&node).map(Some));
    if let (Some(Some(min)), Some(Some(max)), Some(node)) = (min, max, section.get("min"))
        && min > max
    {
        return node.wrong(Fault::new(format!("is above `max`, {max}")).remedy("exchange both"));
    }
    adds_up(name, node, &columns?.1)?;
    Some(Limits { measure: name.to_owned(), min: min?, max: max?, drop: drop? })
}

/// Refuses a name that is no measure, and a measure whose groups have no sum.
fn adds_up(name: &str, node: &Node<'_>, measures: &[Measure]) -> Option<()> {
    let sums = || measures.iter().filter(|it| it.adds_up()).map(|it| it.name.as_str());
    let Some(measure) = measures.iter().find(|it| it.name == name) else {
        let hint = match nearest(name, sums()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use {}", listed(sums())),
        };
        let facts = format!("{} is no measure of this rollup", shown(name));
        return node.wrong(Fault::new(facts).remedy(hint));
    };
    if measure.adds_up() {
        return Some(());
    }
    let word = measure.kind.word();
    node.wrong(
        Fault::new(format!("values of `{word}` do not add up over the groups of a slice"))
            .remedy("limit a count or a sum"),
    )
}

/// Reads a whole number of percent.
fn percentage(node: &Node<'_>) -> Option<u32> {
    let text = node.string(r#"a percentage such as "50%""#)?;
    let digits = text.trim().strip_suffix('%').map(str::trim_end);
    let digits = digits.filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
    let read = digits.and_then(|it| it.parse().ok()).filter(|it| (1..=99).contains(it));
    read.or_else(|| {
        let fault = Fault::new(format!("{} is no percentage", shown(text)));
        node.wrong(fault.remedy(r#"write one from "1%" to "99%""#))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::model::hint::Hinted as _;

    /// What a rollup with these lines expects, or the complaints.
    fn parsed(expect: &str) -> Result<Expect, String> {
        let text = format!(
            r#"
            source.url = "postgres://app@db/shop"
            [[rollup]]
            name = "daily"
            from = "events"
            time = "at"
            start = "2025-01-01"
            slice = "1 day"
            measures = {{ events = "count", revenue = {{ sum = "amount" }}, users = {{ distinct = "id" }}, weekdays = "count" }}
            {expect}
            [[rollup]]
            name = "monthly"
            from = {{ rollup = "daily" }}
            slice = "1 month"
            measures = ["revenue"]
            expect = {{ revenue = {{ drop = "20%" }} }}
            "#
        );
        let config = Config::parse(Path::new("tallymark.toml"), &text, &|_| None);
        let config = config.map_err(|error| Fault::of(&error).in_one_line())?;
        let limits = &config.rollups[1].expect.limits;
        assert_eq!(limits.iter().map(|it| it.drop).collect::<Vec<_>>(), [Some(20)]);
        Ok(config.rollups[0].expect.clone())
    }

    #[test]
    fn limits_of_counts_and_sums_are_read_and_the_definition_stays() {
        assert_eq!(parsed(""), Ok(Expect { weekdays: true, limits: Vec::new() }));
        let found = parsed(
            r#"expect = { weekdays = false, events = { min = 1, max = 1e6, drop = " 050 %" }, revenue = { min = -0.5 } }"#,
        );
        let events =
            Limits { measure: "events".to_owned(), min: Some(1.0), max: Some(1e6), drop: Some(50) };
        let revenue =
            Limits { measure: "revenue".to_owned(), min: Some(-0.5), max: None, drop: None };
        assert_eq!(found, Ok(Expect { weekdays: false, limits: vec![events, revenue] }));
        let named = parsed("expect = { weekdays = { max = 7 } }").unwrap();
        assert!(named.weekdays, "a measure of that name");
        assert_eq!(named.limits.len(), 1);
    }

    #[test]
    fn a_limit_that_cannot_be_judged_is_refused_with_its_remedy() {
        for (expect, problem) in [
            ("{}", "expect: is empty; hint: write limits"),
            ("false", "expect: expected a table of measures"),
            ("{ weekdays = 1 }", "expect.weekdays: expected limits"),
            ("{ events = {} }", "expect.events: has no limit; hint: write one"),
            (
                "{ events = { mini = 1 } }",
                "expect.events.mini: unknown key; hint: did you mean `min`?",
            ),
            (
                "{ events = { min = 2, max = 1 } }",
                "expect.events.min: is above `max`, 1; hint: exchange",
            ),
            ("{ events = { drop = 50 } }", "expect.events.drop: expected a percentage"),
            ("{ events = { drop = \"100%\" } }", "\"100%\" is no percentage; hint: write one from"),
            ("{ events = { drop = \"+5%\" } }", "\"+5%\" is no percentage"),
            ("{ events = { max = \"x\" } }", "expect.events.max: expected a number from"),
            (
                "{ event = { min = 1 } }",
                "\"event\" is no measure of this rollup; hint: did you mean",
            ),
            ("{ users = { min = 1 } }", "values of `distinct` do not add up over the groups"),
        ] {
            let refused = parsed(&format!("expect = {expect}")).unwrap_err();
            assert!(refused.contains(problem), "{expect}: {refused}");
            assert_eq!(refused.lines().count(), 1, "{refused}");
        }
    }
}
