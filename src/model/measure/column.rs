//! A column that is grouped by or measured, from the catalogue.

/// A column of the source, or of a finer rollup's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `format_type` without modifiers, except where the bare name means a narrower type.
    pub sql_type: String,
    /// The type below all domains.
    pub base_type: String,
    /// Whether every database knows its base type.
    pub portable: bool,
    /// Whether its base type is an enum.
    pub is_enum: bool,
    pub is_array: bool,
    /// Whether PostgreSQL can group by it, as far as the catalogue says.
    pub comparable: bool,
    /// Its collation, quoted, where it differs from the type's own.
    pub collation: Option<String>,
    /// Whether the collation treats only identical texts as equal.
    pub deterministic: bool,
    /// Its collation by a name that every database knows, quoted.
    pub order_abroad: Option<String>,
    /// Whether its collation was created in this database.
    pub own_order: bool,
}

impl Column {
    /// A column of a rollup's table, which is read only in its own database.
    #[must_use]
    pub fn of_rollup(
        name: &str,
        sql_type: &str,
        collation: Option<String>,
        is_array: bool,
    ) -> Self {
        Self {
            name: name.to_owned(),
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
        }
    }

    /// Its type in another database, if that groups the values alike: its own type, a domain's
    /// base, or text for an enum.
    #[must_use]
    pub fn type_abroad(&self) -> Option<String> {
        if self.is_enum {
            Some("text".into())
        } else {
            self.portable.then(|| self.base_type.clone())
        }
    }
}
