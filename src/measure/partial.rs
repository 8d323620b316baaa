//! The rows of a stage. A slice that takes several statements is staged in partials: one row for
//! every group, and for every column whose distinct values are needed one row for each group and
//! value, all from one scan by `GROUPING SETS`.

/// Column of the number of source rows behind a group.
pub const ROWS: &str = "__rows";

/// Column that identifies the rows of a partial. It is -1 in a slice that was read whole. Otherwise
/// it has a bit for each value column, which is 0 only in the rows of that column's values.
pub const TAG: &str = "__tag";

/// PostgreSQL's `GROUPING`, which makes the tags, takes no more columns.
pub const VALUES_MAX: usize = 31;

/// The value column at `place`.
#[must_use]
pub fn value_column(place: usize) -> String {
    format!("__value_{place}")
}

/// The tags of partials with this number of value columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    pub values: usize,
}

impl Tags {
    /// The tag of a group's own row, of which every bit is set.
    #[must_use]
    pub const fn of_group(self) -> i64 {
        (1 << self.values) - 1
    }

    /// The condition that selects the rows of single values of the column at `place`.
    #[must_use]
    pub fn are_of_value(self, place: usize) -> String {
        // GROUPING's first argument is its highest bit.
        format!("{TAG} = {}", self.of_group() & !(1 << (self.values - 1 - place)))
    }

    /// The filter of an aggregate that takes the rows of groups, and leaves out those of single
    /// values; without value columns there are none.
    #[must_use]
    pub fn filter_of_group(self) -> String {
        match self.values {
            0 => String::new(),
            _ => format!(" FILTER (WHERE {TAG} = {})", self.of_group()),
        }
    }
}
