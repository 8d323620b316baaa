//! The nouns that all other folders use: rollups, slices, instants, texts. Pure.

pub mod clock;
pub mod hint;
pub mod lookup;
pub mod measure;
pub mod not_now;
pub mod operand;
pub mod rollup;
pub mod slice;
pub mod sql;
pub mod text;
pub mod visible;
