//! The rows of a stage. A slice that several statements read is staged in partials. One scan by
//! `GROUPING SETS` yields one row for every group, and for every column with staged values one row
//! for each group and value.

/// Column of the number of source rows behind a group.
pub(crate) const ROWS: &str = "__rows";

/// Column that identifies the rows of a partial. It is -1 if one statement read the slice.
/// Otherwise it has a bit for each value column, and only the rows of that column's values have 0
/// there.
pub(crate) const TAG: &str = "__tag";

/// The limit of PostgreSQL's `GROUPING`, which computes the tags.
pub(crate) const VALUES_MAX: usize = 31;

/// The value column at `place`.
#[must_use]
pub(crate) fn value_column(place: usize) -> String {
    format!("__value_{place}")
}

/// The tags of partials with this number of value columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) values: usize,
}

impl Tags {
    /// The tag of a group's own row, with every bit set.
    #[must_use]
    pub(crate) const fn of_group(self) -> i64 {
        (1 << self.values) - 1
    }

    /// The condition that selects the rows of single values of the column at `place`.
    #[must_use]
    pub(crate) fn are_of_value(self, place: usize) -> String {
        // GROUPING's first argument is its highest bit.
        format!("{TAG} = {}", self.of_group() & !(1 << (self.values - 1 - place)))
    }

    /// The filter of an aggregate over the rows of groups, without those of single values. Without
    /// value columns it is empty.
    #[must_use]
    pub(crate) fn filter_of_group(self) -> String {
        match self.values {
            0 => String::new(),
            _ => format!(" FILTER (WHERE {TAG} = {})", self.of_group()),
        }
    }
}
