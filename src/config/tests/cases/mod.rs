//! Mistakes, and their complete error texts.

mod cut;
mod rollup;
mod settings;

pub(super) use cut::CUT;
pub(super) use rollup::{MEASURES, ROLLUP};
pub(super) use settings::{NOTIFY, SCRUB, SOURCE, SYNTAX, TARGET};

/// A piece of the good file, what it is replaced with, and the error.
pub(super) type Case = (&'static str, &'static str, &'static str);
