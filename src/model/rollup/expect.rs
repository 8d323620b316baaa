//! What users expect of the numbers of a rollup's newest slice.

/// `expect` of `[[rollup]]`. It decides what is told, and no numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// Whether the number of source rows is compared with those of the same weekday.
    pub(crate) weekdays: bool,
    /// At most one for each measure, in the order of the file.
    pub(crate) limits: Vec<Limits>,
}

impl Default for Expect {
    fn default() -> Self {
        Self { weekdays: true, limits: Vec::new() }
    }
}

/// The limits of a measure's sum over all groups of a slice. At least one is set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) measure: String,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// The percentage by which it may be below the median of earlier slices.
    pub(crate) drop: Option<u32>,
}
