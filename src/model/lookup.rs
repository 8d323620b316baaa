//! Lookups: tables whose columns stand beside each row of the source, found by a unique key.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::model::sql::{TableName, ident, table};

/// Begins the names of lookups in statements, and so in plans.
pub(crate) const PREFIX: &str = "__lookup_";

/// A table that has at most one row for each row of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Its name in the configuration, by which expressions and conditions read its columns.
    pub(crate) name: String,
    pub(crate) table: TableName,
    /// The columns of its unique key, in their order.
    pub(crate) on: Vec<LookupKey>,
    /// The columns that the rollup reads, in their order.
    pub(crate) columns: BTreeSet<String>,
}

/// A column of a lookup's unique key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookupKey {
    pub(crate) key: String,
    /// The source's column that equals it.
    pub(crate) column: String,
}

impl Lookup {
    /// The name of its column in statements: `account.country`. No column of the source has it, so
    /// no name becomes ambiguous.
    #[must_use]
    pub(crate) fn named(&self, column: &str) -> String {
        format!("{}.{column}", self.name)
    }

    /// The columns that decide its values for a row: those of its key, and those that are read.
    #[must_use]
    pub(crate) fn deciding(&self) -> BTreeSet<&str> {
        let keys = self.on.iter().map(|on| on.key.as_str());
        keys.chain(self.columns.iter().map(String::as_str)).collect()
    }

    /// The parts that decide its values.
    #[must_use]
    pub(crate) fn definition(&self) -> Value {
        let on: Vec<_> = self.on.iter().map(|on| json!([on.key, on.column])).collect();
        json!([self.name, self.table.schema, self.table.name, on])
    }

    /// Its columns as a relation with the names of [`Lookup::named`].
    #[must_use]
    pub(crate) fn relation(&self) -> String {
        let columns: Vec<String> = self
            .deciding()
            .into_iter()
            .map(|column| format!("{} AS {}", ident(column), ident(&self.named(column))))
            .collect();
        let name = ident(&format!("{PREFIX}{}", self.name));
        format!("(SELECT {} FROM {} AS {name}) AS {name}", columns.join(", "), table(&self.table))
    }
}

/// `relation` with the columns of `lookups` beside its own. A row without a match has NULLs there.
///
/// PostgreSQL merges the inner query into the outer one, so the indexes of both tables serve, and
/// leaves out a lookup that a statement does not read.
#[must_use]
pub(crate) fn joined(mut relation: String, lookups: &[Lookup]) -> String {
    for lookup in lookups {
        let pairs = lookup
            .on
            .iter()
            .map(|on| format!("{} = {}", ident(&lookup.named(&on.key)), ident(&on.column)));
        let on = pairs.collect::<Vec<_>>().join(" AND ");
        relation.push_str(&format!(" LEFT JOIN {} ON {on}", lookup.relation()));
    }
    relation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_stands_beside_the_source_under_names_of_its_own() {
        let own = |text: &str| text.to_owned();
        let lookup = Lookup {
            name: own("account"),
            table: TableName { schema: Some(own("public")), name: own("accounts") },
            on: vec![LookupKey { key: own("id"), column: own("account_id") }],
            columns: BTreeSet::from([own("country")]),
        };
        let expected = r#"t LEFT JOIN (SELECT "country" AS "account.country", "id" AS "account.id" FROM "public"."accounts" AS "__lookup_account") AS "__lookup_account" ON "account.id" = "account_id""#;
        assert_eq!(joined(own("t"), &[lookup]), expected);
        assert_eq!(joined(own("t"), &[]), "t");
    }
}
