//! What readers have beside a rollup's table: its live view and its series.

use sha2::{Digest as _, Sha256};

use super::ddl::DdlError;
use super::{Target, live, series};
use crate::clients::db::{DbError, Tx};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::source::reading::shape::Shape;

/// The statements that `init` must still run for what readers have beside the table of `rollup`, in
/// order.
///
/// # Errors
/// Something else has one of the names, or the server refuses or cannot be reached.
pub async fn plan(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<Vec<String>, DdlError> {
    let mut statements = live::plan(tx, target, rollup, shape).await?;
    statements.extend(series::plan(tx, target, rollup, shape).await?);
    Ok(statements)
}

/// The statements that drop what readers have beside the table of the rollup `name`, which may be
/// absent from the configuration.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn dropping(
    tx: &mut Tx,
    target: &Target,
    name: &str,
) -> Result<Vec<String>, DbError> {
    let mut statements = live::dropping(tx, target, name).await?;
    statements.extend(series::dropping(tx, name).await?);
    Ok(statements)
}

/// An object's comment with a mark of the statement that makes it, so that another statement is
/// noticed.
pub(super) fn marked(comment: &str, statement: &str) -> String {
    let hash = Sha256::digest(statement.as_bytes());
    let mark: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{comment} [{mark}]")
}

/// The error where somebody else's object has the `name` of one of the rollup's.
pub(super) fn taken(rollup: &Rollup, name: &str) -> DdlError {
    let problem = Fault::new("exists but was not made by Tallymark")
        .remedy(format!("rename it, or choose another name than `{}`", rollup.name));
    DdlError::Incompatible { rollup: rollup.name.clone(), table: name.to_owned(), problem }
}
