//! A mirror: a table of the target that keeps fields of the things of one type in a Bubble app.
//!
//! Where an app offers no database, its rows are brought here once, and rollups are computed from
//! them. A mirror has slices, checkpoints and a fence like every rollup. Its table has a row for
//! each thing instead of one for each group.

use serde_json::{Value, json};

/// What a mirror keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The app's address.
    pub(crate) app: String,
    /// The branch of the app: each has a database of its own.
    pub(crate) branch: String,
    /// The type of the things, as in the address of the Data API.
    pub(crate) thing: String,
    /// The keys of the fields, which are also the names of the columns.
    pub(crate) fields: Vec<String>,
    /// Whether changes of things that were read already are looked for.
    pub(crate) follows_changes: bool,
}

/// The column of a thing's unique ID.
pub(crate) const ID: &str = "_id";
/// The column of the time at which a thing was created. It places the thing in a slice.
pub(crate) const CREATED_AT: &str = "created_at";
/// The column of the time of a thing's last change.
pub(crate) const MODIFIED_AT: &str = "modified_at";

impl Mirror {
    /// What decides which things are kept: numbers of two apps must never mix.
    pub(super) fn things(&self) -> Value {
        json!([self.app, self.branch, self.thing])
    }

    /// The columns of its table besides the fields.
    pub(crate) const OWN: [&str; 3] = [ID, CREATED_AT, MODIFIED_AT];

    /// Whether its table has this column.
    #[must_use]
    pub(crate) fn has_column(&self, name: &str) -> bool {
        Self::OWN.contains(&name) || self.fields.iter().any(|field| field == name)
    }
}
