//! The columns of a captured table that its rollups use. A change of another column changes no
//! number.
//!
//! Columns that a condition or an expression reads are found by their names in its text. Whatever
//! else the text says, such as a function or a literal of the same name, only adds to them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal, shown};
use crate::source::changes::capture::relation::Relation;

/// Columns that change with every update of a row.
const SYSTEM_COLUMNS: [&str; 6] = ["xmin", "xmax", "cmin", "cmax", "ctid", "tableoid"];

/// PostgreSQL cuts a longer identifier in an expression. A name near that length is looked for
/// without its end.
const NAME_BYTES: usize = 60;

/// Columns of a table. `None`: all of them, and those that are added later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsedColumns(Option<BTreeSet<String>>);

impl UsedColumns {
    pub(super) const ALL: Self = Self(None);

    /// Those of an array in the database. NULL means all.
    pub(crate) fn of(columns: Option<Vec<String>>) -> Self {
        Self(columns.map(|columns| columns.into_iter().collect()))
    }

    const fn none() -> Self {
        Self(Some(BTreeSet::new()))
    }

    /// These and `others`.
    pub(crate) fn and(self, others: &Self) -> Self {
        match (self.0, &others.0) {
            (Some(mut columns), Some(others)) => {
                columns.extend(others.iter().cloned());
                Self(Some(columns))
            }
            (None, _) | (_, None) => Self::ALL,
        }
    }

    /// Those that the catalogue shows too. All stay all.
    pub(super) fn in_both(self, shown: &Self) -> Self {
        match (self.0, &shown.0) {
            (Some(columns), Some(shown)) => {
                Self(Some(columns.into_iter().filter(|it| shown.contains(it)).collect()))
            }
            (own, _) => Self(own),
        }
    }

    /// Those that a table still has.
    pub(super) fn within(self, columns: &[String]) -> Self {
        let found = self.0.map(|own| own.into_iter().filter(|name| columns.contains(name)));
        Self(found.map(Iterator::collect))
    }

    /// Whether these include `others`.
    #[must_use]
    pub(crate) fn cover(&self, others: &Self) -> bool {
        match (&self.0, &others.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => others.is_subset(own),
        }
    }

    /// Those of `self` that `others` lack, in words.
    pub(super) fn beyond(&self, others: &Self) -> String {
        match (&self.0, &others.0) {
            (Some(own), Some(others)) => in_words(own.difference(others)),
            _ => self.in_words(),
        }
    }

    /// Their names for an operator.
    #[must_use]
    pub(crate) fn in_words(&self) -> String {
        match &self.0 {
            None => "every column".to_owned(),
            Some(columns) => in_words(columns.iter()),
        }
    }

    /// Their names, or `None` for all.
    #[must_use]
    pub(crate) fn names(&self) -> Option<Vec<&str>> {
        self.0.as_ref().map(|columns| columns.iter().map(String::as_str).collect())
    }

    /// An SQL expression of them, as [`UsedColumns::of`] reads them.
    #[must_use]
    pub(crate) fn array(&self) -> String {
        match &self.0 {
            None => "NULL::text[]".to_owned(),
            Some(columns) => {
                let names: Vec<String> = columns.iter().map(|name| literal(name)).collect();
                format!("ARRAY[{}]::text[]", names.join(", "))
            }
        }
    }

    /// The condition that an update changed one of them. `None`: every update counts as a change.
    ///
    /// It compares the values' stored forms, as types without equality (`json`) and equal values of
    /// different forms (`1.0` and `1.00`) change numbers too.
    pub(in crate::source::changes) fn changed(&self) -> Option<String> {
        let columns = self.0.as_ref().filter(|columns| !columns.is_empty())?;
        let row = |row: &str| {
            let values: Vec<String> =
                columns.iter().map(|name| format!("{row}.{}", ident(name))).collect();
            format!("ROW({})", values.join(", "))
        };
        // The operator `*<>` by its function: a dump prints the operator without the casts that it
        // needs to be read back.
        Some(format!("pg_catalog.record_image_ne({}, {})", row("OLD"), row("NEW")))
    }
}

fn in_words<'a>(columns: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<String> = columns.map(|name| shown(name)).collect();
    names.join(", ")
}

/// What a rollup reads of a row, as its definition says it.
#[derive(Clone, Debug)]
pub(super) struct RowUse {
    pub(super) rollup: String,
    table: String,
    names: BTreeSet<String>,
    /// Conditions and expressions.
    pub(super) texts: Vec<String>,
}

impl RowUse {
    pub(super) fn by(rollup: &Rollup) -> Self {
        let mut names = BTreeSet::from([rollup.time.column.clone()]);
        let measured = rollup.measures.iter().filter_map(|measure| measure.filter.clone());
        let mut texts: Vec<String> = rollup.filter.iter().cloned().chain(measured).collect();
        for (_, operand) in rollup.reads() {
            match operand.sql() {
                Some(sql) => texts.push(sql.to_owned()),
                None => drop(names.insert(operand.name().to_owned())),
            }
        }
        // Columns of a lookup are those of another table, which the source's own columns find.
        for lookup in &rollup.lookups {
            names.retain(|name| lookup.columns.iter().all(|column| lookup.named(column) != *name));
            names.extend(lookup.on.iter().map(|on| on.column.clone()));
        }
        Self { rollup: rollup.name.clone(), table: rollup.from.name.clone(), names, texts }
    }

    /// The columns of the table `relations` that it reads. A generated column counts as the columns
    /// that it is computed from.
    pub(super) fn columns(&self, relations: &[Relation]) -> UsedColumns {
        let Some(root) = relations.first() else { return UsedColumns::ALL };
        let text = self.texts.join("\n").to_lowercase();
        // Of a whole row, or of a function that reads more than its arguments, any column may count.
        let is_any = |name: &str| mentions(&text, name).next().is_some();
        let unsteady = root.unsteady.iter().map(String::as_str);
        if SYSTEM_COLUMNS.into_iter().chain(unsteady).any(is_any)
            || has_whole_row(&text, &self.table, &root.columns)
            || text.contains("u&\"")
        {
            return UsedColumns::ALL;
        }
        let mentioned = root.columns.iter().filter(|column| is_any(column));
        let mut used = UsedColumns::none();
        for name in self.names.iter().chain(mentioned) {
            used = used.and(&UsedColumns(stored(name, relations)));
        }
        // A child of a table may compute a column from one that the table lacks.
        let is_in_root =
            |names: &BTreeSet<String>| names.iter().all(|it| root.columns.contains(it));
        if used.0.as_ref().is_some_and(is_in_root) { used } else { UsedColumns::ALL }
    }
}

/// The column itself, and where it is generated the columns that it is computed from.
fn stored(name: &str, relations: &[Relation]) -> Option<BTreeSet<String>> {
    let computed: Vec<&Vec<String>> =
        relations.iter().filter_map(|relation| relation.generated.get(name)).collect();
    Some(match computed.is_empty() {
        true => BTreeSet::from([name.to_owned()]),
        false => computed.into_iter().flatten().cloned().collect(),
    })
}

/// Whether `text`, in lower case, names the table other than as that of a column.
fn has_whole_row(text: &str, table: &str, columns: &[String]) -> bool {
    mentions(text, table).any(|end| {
        let rest = &text[end..];
        let rest = rest.strip_prefix('"').unwrap_or(rest);
        let rest = rest.strip_prefix('.').map(|rest| rest.strip_prefix('"').unwrap_or(rest));
        let begins = |column: &String, rest: &str| {
            let column = column.to_lowercase();
            rest.starts_with(&column) && mentions(rest, &column).next() == Some(column.len())
        };
        !rest.is_some_and(|rest| columns.iter().any(|column| begins(column, rest)))
    })
}

/// Where the identifier `name` ends in `text`, which is in lower case, quoted or not.
fn mentions(text: &str, name: &str) -> impl Iterator<Item = usize> {
    let name = name.to_lowercase();
    let is_cut = name.len() >= NAME_BYTES;
    let name = match is_cut {
        true => name[..name.floor_char_boundary(NAME_BYTES)].to_owned(),
        false => name,
    };
    let quoted = name.replace('"', "\"\"");
    let is_apart = |inner: Option<char>, outer: Option<char>| {
        !(inner.is_some_and(is_of_name) && outer.is_some_and(is_of_name))
    };
    text.char_indices().filter_map(move |(at, _)| {
        let rest = [&name, &quoted].into_iter().find_map(|it| text[at..].strip_prefix(&**it))?;
        let is_one = is_apart(name.chars().next(), text[..at].chars().next_back())
            && (is_cut || is_apart(name.chars().next_back(), rest.chars().next()));
        is_one.then_some(text.len() - rest.len())
    })
}

fn is_of_name(letter: char) -> bool {
    letter == '_' || letter == '$' || letter.is_ascii_alphanumeric() || !letter.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str], generated: &[(&str, &[&str])]) -> Vec<Relation> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        vec![Relation {
            name: "public.events".into(),
            kind: "r".into(),
            is_partition: false,
            triggers: std::collections::BTreeMap::new(),
            function: None,
            description: None,
            has_marks: false,
            has_consumers: false,
            has_mark_function: false,
            columns: owned(columns),
            compared: UsedColumns::ALL,
            generated: generated
                .iter()
                .map(|(name, bases)| ((*name).to_owned(), owned(bases)))
                .collect(),
            unsteady: vec!["looks_up".into()],
            seen_at: chrono::DateTime::UNIX_EPOCH,
        }]
    }

    fn used(text: &str) -> Option<Vec<String>> {
        let long = format!("{}x", "n".repeat(62));
        let columns = [
            "at",
            "id",
            "user_id",
            "Kind",
            "a b",
            "say \"hi\"",
            "day",
            "both",
            "one",
            "two",
            "foreign",
            "é",
            &long,
        ];
        let by = RowUse {
            rollup: "daily".into(),
            table: "events".into(),
            names: BTreeSet::from(["at".to_owned()]),
            texts: vec![text.to_owned()],
        };
        let relations = table(&columns, &[("both", &["one", "two"]), ("foreign", &["of_a_child"])]);
        let names = by.columns(&relations).0?.into_iter().filter(|name| name != "at");
        Some(names.map(|name| if name == long { "long".to_owned() } else { name }).collect())
    }

    #[test]
    fn columns_are_found_by_their_names_however_they_are_written() {
        for (text, expected) in [
            ("", vec![]),
            ("user_id > 3", vec!["user_id"]),
            ("ID=1 OR user_ID=2", vec!["id", "user_id"]),
            ("\"Kind\" = 'x'", vec!["Kind"]),
            ("\"a b\"||\"say \"\"hi\"\"\"", vec!["a b", "say \"hi\""]),
            ("id_of(user_id_2)", vec![]),
            ("day(id)", vec!["day", "id"]),
            ("both::int", vec!["one", "two"]),
            ("É > 1", vec!["é"]),
            ("events.id + public.\"events\".\"Kind\"", vec!["Kind", "id"]),
            ("lower(the_events)", vec![]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(used(text), Some(expected), "{text}");
        }
        let long = format!("{}xyz > 1", "n".repeat(62));
        assert_eq!(used(&long), Some(vec!["long".to_owned()]));
    }

    #[test]
    fn what_may_depend_on_any_column_depends_on_all() {
        for text in [
            "events IS NULL",
            "num_nulls(Events.*)",
            "events.looks",
            "looks_up(id)",
            "foreign + 1",
            "xmin::text = '1'",
            "U&\"\\0069d\" = 1",
        ] {
            assert_eq!(used(text), None, "{text}");
        }
    }
}
