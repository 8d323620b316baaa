//! A column that is grouped by or measured, from the catalogue.

/// The types of [`Column::is_small`], as the catalogue names them.
const SMALL_TYPES: [&str; 11] = [
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "boolean",
    "date",
    "timestamp without time zone",
    "timestamp with time zone",
    "oid",
    "uuid",
];

/// A column of the source, or of a finer rollup's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// The name by which statements read it.
    pub(crate) name: String,
    /// The expression that it stands for. `None`: it is a column of the table.
    pub(crate) sql: Option<String>,
    /// `format_type` without modifiers, except where the bare name means a narrower type.
    pub(crate) sql_type: String,
    /// The type below all domains.
    pub(crate) base_type: String,
    /// Whether every database knows its base type.
    pub(crate) portable: bool,
    /// Whether its base type is an enum.
    pub(crate) is_enum: bool,
    pub(crate) is_array: bool,
    /// Whether PostgreSQL can group by it, as far as the catalogue says.
    pub(crate) comparable: bool,
    /// Its collation, quoted, where it differs from the type's own.
    pub(crate) collation: Option<String>,
    /// Whether the collation treats only identical texts as equal.
    pub(crate) deterministic: bool,
    /// Its collation by a name that every database knows, quoted.
    pub(crate) order_abroad: Option<String>,
    /// Whether its collation was created in this database.
    pub(crate) own_order: bool,
    /// The role that read this, as statements write it.
    pub(crate) reader: String,
}

impl Column {
    /// A column of a rollup's table, which is read only in its own database.
    #[must_use]
    pub(crate) fn of_rollup(
        name: &str,
        sql_type: &str,
        collation: Option<String>,
        is_array: bool,
    ) -> Self {
        Self {
            name: name.to_owned(),
            sql: None,
            sql_type: sql_type.to_owned(),
            base_type: sql_type.to_owned(),
            portable: true,
            is_enum: false,
            is_array,
            comparable: true,
            collation,
            deterministic: true,
            order_abroad: None,
            own_order: false,
            reader: String::new(),
        }
    }

    /// Whether an array of its values takes little more memory than the values. PostgreSQL sorts all rows for an
    /// aggregate over DISTINCT, which takes the processor for long without a nap. It gathers arrays by hashing, row by
    /// row, and then a subquery sorts the few values of each group. A sort spills to disk, and an array cannot.
    #[must_use]
    pub(super) fn is_small(&self) -> bool {
        self.is_enum || self.portable && SMALL_TYPES.contains(&self.base_type.as_str())
    }

    /// It, in messages.
    #[must_use]
    pub(crate) fn in_words(&self) -> String {
        match &self.sql {
            None => format!("column `{}`", self.name),
            Some(sql) => format!("expression `{sql}`"),
        }
    }

    /// How it gets another type or collation.
    #[must_use]
    pub(crate) const fn recast(&self) -> &'static str {
        match self.sql {
            None => "cast it in a view",
            Some(_) => "cast it in the expression",
        }
    }

    /// Its type in another database, if that groups the values alike: its own type, a domain's
    /// base, or text for an enum.
    #[must_use]
    pub(crate) fn type_abroad(&self) -> Option<String> {
        if self.is_enum {
            Some("text".into())
        } else {
            self.portable.then(|| self.base_type.clone())
        }
    }
}
