//! What an operator does in the console. Each action is a command of the command line, run in this
//! process with its output kept.

mod command;
mod forms;
mod log;

pub(super) use command::{Asked, asked};
pub(super) use forms::{of_all, of_rollup, of_slice, proposal};
pub(in crate::cli) use log::{Action, Actions};
