//! Mistakes in how a rollup cuts its table.

use super::Case;

/// `partition_by`.
pub(in crate::config::tests) const CUT: &[Case] = &[
    (
        "bucket = \"1 hour\"",
        "partition_by = \"week\"",
        r#"tallymark.toml:19: rollup.entity_daily.partition_by: "week" is not a partition of a table; use "month" or "year""#,
    ),
    (
        "bucket = \"1 hour\"",
        "partition_by = true",
        r#"tallymark.toml:19: rollup.entity_daily.partition_by: expected "month" or "year", found a boolean"#,
    ),
];
