//! A fingerprint of the source's shape, which tells whether DDL may have changed values since it
//! was stored.
//!
//! A rollup's item holds the fingerprint under which its slices were computed. A different one
//! makes all of them stale, as a changed definition does. It has three parts, each with its own
//! scope:
//!
//! - **types**, compared always: type with length and scale, and collation, of the columns that are
//!   used;
//! - **texts**, compared on the same major version, as another version formats them differently:
//!   generation expressions, views, and the functions that both call;
//! - **places**, compared in the same database of the same cluster: the tables and column numbers.
//!   They differ after a dump is restored elsewhere, and after another table took over the name.

use std::collections::BTreeMap;
use std::fmt;

use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::lookup::Lookup;
use crate::model::rollup::Rollup;
use crate::model::sql::{literal, table};

const DOING: &str = "looking at the source's shape";

/// The properties of the columns that decide their values, besides the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    major: String,
    database: String,
    columns: BTreeMap<String, HashedColumn>,
    texts: String,
    tables: String,
}

/// One column, as hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HashedColumn {
    sql_type: String,
    /// Its generation expression.
    expression: String,
    /// Its number in its table.
    number: String,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, database, columns, texts, tables } = self;
        let columns: Vec<String> = columns
            .iter()
            .map(|(name, it)| format!("{name}:{}:{}:{}", it.sql_type, it.expression, it.number))
            .collect();
        write!(f, "{major}|{database}|{}|{texts}|{tables}", columns.join(","))
    }
}

impl Fingerprint {
    /// Parses the output of `Display`. `None`: another version wrote it.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('|').collect();
        let [major, database, columns, texts, tables] = parts[..] else { return None };
        let columns = columns.split(',').filter(|column| !column.is_empty()).map(|column| {
            let parts: Vec<&str> = column.split(':').collect();
            let [name, sql_type, expression, number] = parts[..] else { return None };
            let [sql_type, expression] = [sql_type, expression].map(str::to_owned);
            Some((
                name.to_owned(),
                HashedColumn { sql_type, expression, number: number.to_owned() },
            ))
        });
        let columns = columns.collect::<Option<_>>()?;
        let [major, database] = [major, database].map(str::to_owned);
        let [texts, tables] = [texts, tables].map(str::to_owned);
        Some(Self { major, database, columns, texts, tables })
    }

    /// Whether values may differ from those when `known` was stored. Columns in only one of the two
    /// are ignored, as the definition has changed then.
    #[must_use]
    pub(crate) fn has_changed_since(&self, known: &Self) -> bool {
        let same_major = self.major == known.major;
        let same_place = !self.database.is_empty() && self.database == known.database;
        let has_changed = |(name, now): (&String, &HashedColumn)| {
            known.columns.get(name).is_some_and(|before| {
                now.sql_type != before.sql_type
                    || (same_major && now.expression != before.expression)
                    || (same_place && now.number != before.number)
            })
        };
        self.columns.iter().any(has_changed)
            || (same_major && self.texts != known.texts)
            || (same_place && self.tables != known.tables)
    }

    /// The fingerprint to store after `known`. Columns that are unused at present are kept, as they
    /// may be used again.
    #[must_use]
    pub(crate) fn after(&self, known: Option<&Self>) -> Self {
        let mut next = self.clone();
        for (name, column) in known.iter().flat_map(|known| &known.columns) {
            next.columns.entry(name.clone()).or_insert_with(|| column.clone());
        }
        next
    }

    /// Whether `known` already contains all of it.
    #[must_use]
    pub(crate) fn is_in(&self, known: &Self) -> bool {
        self.after(Some(known)) == *known
    }
}

/// Parses one column, then the next.
fn columns(text: &str) -> BTreeMap<String, HashedColumn> {
    Fingerprint::parse(&format!("||{text}||")).map(|it| it.columns).unwrap_or_default()
}

/// Reads the fingerprint of the input of `rollup`. Afterwards the transaction's search path is
/// PostgreSQL's own.
pub(super) async fn read(tx: &mut Tx, rollup: &Rollup) -> Result<Option<Fingerprint>, DbError> {
    let sql = format!(
        "SELECT to_regclass({})::oid::bigint AS oid, \
         (current_setting('server_version_num')::int / 10000)::text AS major, \
         (SELECT oid FROM pg_database WHERE datname = current_database())::text AS database, \
         has_function_privilege('pg_control_system()', 'EXECUTE') AS may_see, \
         set_config('search_path', 'pg_catalog', true) AS path",
        literal(&table(&rollup.from))
    );
    let row = tx.row(DOING, sql).await?;
    let read = |source| DbError::new(crate::clients::db::Side::Source, DOING, source);
    let Some(oid) = row.try_get::<Option<i64>, _>("oid").map_err(read)? else { return Ok(None) };
    let mut database: String = row.try_get("database").map_err(read)?;
    if row.try_get("may_see").map_err(read)? {
        let sql = "SELECT system_identifier::text FROM pg_control_system()".to_owned();
        let system: String = tx.row(DOING, sql).await?.try_get(0).map_err(read)?;
        database = format!("{database}/{system}");
    } else {
        // A copy of a cluster looks like the original here, so table numbers cannot be compared.
        database.clear();
    }
    let reads = rollup.reads();
    let named = reads.iter().filter(|(_, operand)| operand.sql().is_none());
    let names = std::iter::once(rollup.time.column.as_str())
        .chain(named.map(|(_, operand)| operand.name()));
    let names: Vec<String> = names.map(literal).collect();
    let expressions = rollup.expressions();
    let expressions: Vec<&str> = expressions.iter().filter_map(|(_, it)| it.sql()).collect();
    let conditions: Vec<&str> = rollup
        .filter
        .as_deref()
        .into_iter()
        .chain(rollup.measures.iter().filter_map(|measure| measure.filter.as_deref()))
        .chain(expressions.iter().copied())
        .collect();
    let sql = format!(
        include_str!("fingerprint.sql"),
        oid = oid,
        names = names.join(", "),
        conditions = literal(&conditions.join(" ")),
        expressions = literal(&expressions.join(" ")),
    );
    let shape = tx.row(DOING, sql).await?;
    let part = |name| shape.try_get::<String, _>(name).map_err(read);
    let mut found = Fingerprint {
        major: row.try_get("major").map_err(read)?,
        columns: columns(&part("columns")?),
        tables: part("places")?,
        texts: part("texts")?,
        database,
    };
    for lookup in &rollup.lookups {
        found.add(tx, lookup).await?;
    }
    Ok(Some(found))
}

impl Fingerprint {
    /// Adds the columns and the table of a lookup.
    async fn add(&mut self, tx: &mut Tx, lookup: &Lookup) -> Result<(), DbError> {
        let names: Vec<String> = lookup.deciding().into_iter().map(literal).collect();
        let sql = format!(
            include_str!("fingerprint.sql"),
            // The lookup has a schema, so the search path does not matter.
            oid = format!("to_regclass({})", literal(&table(&lookup.table))),
            names = names.join(", "),
            conditions = literal(""),
            expressions = literal(""),
        );
        let shape = tx.row(DOING, sql).await?;
        let part = |name| shape.try_get::<String, _>(name).map_err(|it| tx.error(DOING, it));
        let own = columns(&part("columns")?);
        self.columns.extend(own.into_iter().map(|(name, it)| (lookup.named(&name), it)));
        self.tables.push_str(&part("places")?);
        self.texts.push_str(&part("texts")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_places_count_only_where_they_can_be_compared() {
        let known = Fingerprint::parse("15|7/1|a:t:e:1,b:t:e:2|texts|tables").unwrap();
        assert_eq!(known.to_string(), "15|7/1|a:t:e:1,b:t:e:2|texts|tables");
        for (now, has_changed) in [
            ("15|7/1|a:t:e:1,b:t:e:2|texts|tables", false),
            ("15|7/1|a:t:e:1,c:t:e:3|texts|tables", false),
            ("16|8/2|a:t:o:7,b:t:e:2|other|other", false),
            ("15|8/2|a:t:e:7|texts|other", false),
            ("15||a:t:e:7|texts|other", false),
            ("15|7/1|a:t:e:7|texts|tables", true),
            ("15|7/1|a:t:e:1|texts|other", true),
            ("15|8/2|a:t:e:1|other|tables", true),
            ("15|8/2|a:t:o:1|texts|tables", true),
            ("16|8/2|a:o:e:1|texts|tables", true),
        ] {
            let now = Fingerprint::parse(now).unwrap();
            assert_eq!(now.has_changed_since(&known), has_changed, "{now}");
        }
        let other = Fingerprint::parse("15|7/1|a:t:e:1,c:t:e:3|texts|tables").unwrap();
        assert!(known.is_in(&known) && !other.is_in(&known));
        assert!(other.is_in(&other.after(Some(&known))) && known.is_in(&other.after(Some(&known))));
        assert_eq!(Fingerprint::parse("of another version"), None);
    }
}
