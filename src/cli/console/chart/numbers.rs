//! The numbers of a chart: what a request wants, and what the series answers.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::cli::console::target::ask;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal, timestamptz};
use crate::work::worker::Worker;

const DOING: &str = "reading the series";

/// Steps of a chart that nothing else was asked of.
const STEPS_DEFAULT: i32 = 60;

/// Steps of a chart. More would be closer than pixels.
const STEPS_MAX: i64 = 800;

/// The parts of a dimension that are drawn: the greatest.
pub(super) const PARTS_MAX: usize = 6;

/// Letters of a part's name that are shown.
const PART_MAX: usize = 60;

/// What a chart is asked for.
pub(super) struct Wanted {
    /// The measure. `None`: the first that can be drawn.
    measure: Option<String>,
    pub(super) by: Option<String>,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Wanted {
    pub(super) fn read(
        rollup: &Rollup,
        query: &BTreeMap<String, String>,
        now: DateTime<Utc>,
    ) -> Result<Self, Fault> {
        let text = |name: &str| query.get(name).filter(|it| !it.is_empty()).cloned();
        let instant = |name: &str, default| match text(name) {
            Some(text) => {
                rollup.calendar.instant(&text).map_err(|error| Fault::of(&error).at(name))
            }
            None => Ok(default),
        };
        let by = text("by");
        if let Some(by) = by.as_ref().filter(|by| !rollup.group_by.iter().any(|it| it.name == **by))
        {
            return Err(Fault::new(format!("`{by}` is no dimension of {}", rollup.name)));
        }
        let until = instant("to", now)?;
        let step = TimeDelta::seconds(seconds(rollup));
        let usual = until.checked_sub_signed(step * STEPS_DEFAULT).unwrap_or(until);
        let since = instant("from", usual)?.max(rollup.start);
        let steps = (until - since).num_seconds() / step.num_seconds().max(1);
        if steps > STEPS_MAX {
            let fault =
                Fault::new(format!("the range has {steps} steps, and a chart at most {STEPS_MAX}"));
            return Err(fault.remedy("ask for a shorter range"));
        }
        Ok(Self { measure: text("chart"), by, since, until })
    }

    pub(super) fn first_date(&self, rollup: &Rollup) -> String {
        self.since.with_timezone(&rollup.calendar.zone()).date_naive().to_string()
    }

    pub(super) fn last_date(&self, rollup: &Rollup) -> String {
        let last = self.until - TimeDelta::seconds(1);
        let next = last.with_timezone(&rollup.calendar.zone()).date_naive().succ_opt();
        next.map(|date| date.to_string()).unwrap_or_default()
    }
}

/// The length of a step: a slice, in whole days where it has some.
fn seconds(rollup: &Rollup) -> i64 {
    i64::try_from(rollup.calendar.width().approximate().as_secs()).unwrap_or(86_400).max(60)
}

/// A step in PostgreSQL's words.
fn interval(seconds: i64) -> String {
    match seconds {
        0..86_400 => format!("{seconds} seconds"),
        86_400..604_800 => "1 day".to_owned(),
        604_800..2_400_000 => "1 week".to_owned(),
        _ => format!("{} months", (seconds / 2_500_000).max(1)),
    }
}

/// The answer.
pub(super) struct Numbers {
    /// The measures that can be drawn.
    pub(super) measures: Vec<String>,
    /// The one that is drawn.
    pub(super) measure: String,
    /// The dimension whose values are told apart.
    pub(super) by: Option<String>,
    pub(super) step_seconds: i64,
    /// Of each part, the greatest first.
    pub(super) lines: Vec<Line>,
}

/// The steps of one part.
pub(super) struct Line {
    /// The dimension's value. `None`: it is NULL, or there is no dimension.
    pub(super) part: Option<String>,
    pub(super) is_parted: bool,
    pub(super) steps: Vec<Step>,
}

impl Line {
    pub(super) fn name(&self) -> &str {
        match (&self.part, self.is_parted) {
            (Some(part), _) => part,
            (None, true) => "NULL",
            (None, false) => "all",
        }
    }
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Its begin, in seconds of the epoch.
    pub(super) at: f64,
    /// `None`: nothing is computed, or the measure has no value.
    pub(super) value: Option<f64>,
    pub(super) is_complete: bool,
}

impl Step {
    /// Whether it has a number that is not final.
    pub(super) const fn is_open(&self) -> bool {
        self.value.is_some() && !self.is_complete
    }

    pub(super) const fn state(&self) -> &'static str {
        match (self.value, self.is_complete) {
            (_, true) => "final",
            (Some(_), false) => "not final",
            (None, false) => "not computed",
        }
    }
}

/// Reads the numbers of a chart. `None`: the rollup has no series with numbers.
pub(super) async fn read(
    worker: &Worker,
    rollup: &Rollup,
    wanted: &Wanted,
) -> Result<Option<Numbers>, Fault> {
    let series =
        format!("{}.{}", ident(&worker.target.schema), ident(&format!("{}_series", rollup.name)));
    let columns = (DOING, columns_sql(&series));
    let measures = ask(worker, rollup, columns, |row| row.try_get("name")).await?;
    let measures: Vec<String> = measures
        .into_iter()
        .filter(|name: &String| !rollup.group_by.iter().any(|it| it.name == *name))
        .collect();
    let named = measures.iter().find(|it| wanted.measure.as_ref() == Some(*it));
    let Some(measure) = named.or(measures.first()).cloned() else { return Ok(None) };
    let sql = numbers_sql(rollup, &series, &measure, wanted);
    let read = |row: &PgRow| {
        let place: i64 = row.try_get("place")?;
        let part: Option<String> = row.try_get("part")?;
        let is_complete: Option<bool> = row.try_get("complete")?;
        let is_complete = is_complete.unwrap_or(false);
        Ok((
            place,
            part,
            Step { at: row.try_get("at")?, value: row.try_get("value")?, is_complete },
        ))
    };
    let rows = ask(worker, rollup, (DOING, sql), read).await?;
    let mut lines: Vec<Line> = Vec::new();
    let mut last = 0;
    for (place, part, step) in rows {
        if place != last {
            last = place;
            let part = part.map(|part| brief(&part));
            lines.push(Line { part, is_parted: wanted.by.is_some(), steps: Vec::new() });
        }
        if let Some(line) = lines.last_mut() {
            line.steps.push(step);
        }
    }
    let (by, step_seconds) = (wanted.by.clone(), seconds(rollup));
    Ok(Some(Numbers { measures, measure, by, step_seconds, lines }))
}

/// A value of a dimension, as far as a legend has room for it.
fn brief(part: &str) -> String {
    match part.char_indices().nth(PART_MAX) {
        Some((end, _)) => format!("{}…", &part[..end]),
        None => part.to_owned(),
    }
}

fn columns_sql(series: &str) -> String {
    format!(include_str!("columns.sql"), series = literal(series))
}

fn numbers_sql(rollup: &Rollup, series: &str, measure: &str, wanted: &Wanted) -> String {
    let (part, by) = match &wanted.by {
        Some(name) => (format!("s.{}::text", ident(name)), format!("ARRAY[{}]", literal(name))),
        None => ("NULL::text".to_owned(), "'{}'::text[]".to_owned()),
    };
    format!(
        include_str!("numbers.sql"),
        part = part,
        series = series,
        by = by,
        measure = ident(measure),
        since = timestamptz(wanted.since),
        until = timestamptz(wanted.until),
        step = literal(&interval(seconds(rollup))),
        parts_max = PARTS_MAX,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_letters() {
        let full = "ש🦀".repeat(PART_MAX / 2);
        assert_eq!(brief(&full), full);
        assert_eq!(brief(&format!("{full}x")), format!("{full}…"));
        assert_eq!(brief(""), "");
    }
}
