//! The order in which slices are computed.

use serde::{Deserialize, Serialize};

/// The end of history to start with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The newest slice first.
    #[default]
    NewestFirst,
    /// The oldest slice first.
    OldestFirst,
}
