//! Checks whose checkpoints these are, for commands that change only checkpoints, and for targets
//! without tables.

use crate::checkpoint::Bond;
use crate::clients::db::DbErrorKind;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::sql::literal;
use crate::target::ddl::DdlError;
use crate::work::worker::{WorkError, Worker};

/// Refuses to change the checkpoints of `rollup` if another installation keeps them. The
/// configuration need not have the rollup. A database is queried only if the checkpoints do not
/// know its address.
///
/// # Errors
/// Another installation keeps them, or a server cannot be queried.
pub(crate) async fn refuse_anothers(worker: &Worker, rollup: &str) -> Result<(), WorkError> {
    let seen = worker.checkpoints.watermark(rollup).await?;
    let Some(bond) = seen.bond() else { return Ok(()) };
    if bond.places.contains(&super::place(worker).await?)
        || bond.servers == super::found::servers(worker).await?
    {
        return Ok(());
    }
    Err(anothers(worker, rollup, bond))
}

/// [`refuse_anothers`] for one rollup or for all in the configuration.
///
/// # Errors
/// As [`refuse_anothers`].
pub(crate) async fn refuse_anothers_of(
    worker: &Worker,
    rollup: Option<&str>,
) -> Result<(), WorkError> {
    let names = worker.config.rollups.iter().map(|rollup| rollup.name.as_str());
    for name in names.filter(|name| rollup.is_none_or(|only| only == *name)) {
        refuse_anothers(worker, name).await?;
    }
    Ok(())
}

/// Refuses if checkpoints exist but the table of `rollup` is gone.
///
/// # Errors
/// The table is gone, or a server cannot be queried.
pub(crate) async fn refuse_gone(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let table = worker.target.table(rollup);
    let sql = format!("SELECT to_regclass({}) IS NULL", literal(&table));
    if seen.bond().is_none() || !super::found::holds_in_target(worker, sql).await? {
        return Ok(());
    }
    let fault = Fault::new(format!(
        "rollup `{}`: its table {table} is gone, while its checkpoints speak of it",
        rollup.name
    ));
    Err(WorkError::Stranger(
        fault.remedy("restore it, or run `tallymark init` and then `tallymark repair`"),
    ))
}

pub(super) fn anothers(worker: &Worker, rollup: &str, bond: &Bond) -> WorkError {
    let fault = Fault::new(format!(
        "rollup `{rollup}`: its checkpoints in {} belong to another installation ({}), with another \
         source or target",
        worker.checkpoints.place(),
        super::short(&bond.installation),
    ));
    WorkError::Stranger(fault.remedy(format!(
        "{}; if it is the same one at a new address, run `tallymark moved`",
        way_of_its_own(worker)
    )))
}

/// What gives a second installation checkpoints of its own.
pub(super) fn way_of_its_own(worker: &Worker) -> String {
    match worker.checkpoints.is_in_target() {
        true => {
            "if this target is a copy of that installation's, run `tallymark moved --copy`; if \
                 this is a second installation, give it a [target] of its own, as the target holds \
                 the checkpoints"
                .to_owned()
        }
        false => format!(
            "if this is a second installation, give it a [checkpoint] table of its own, instead of {}",
            worker.checkpoints.table()
        ),
    }
}

/// Explains `error`, from a target that may have no tables yet.
pub(super) fn without_tables(rollup: &Rollup, error: WorkError) -> WorkError {
    if is_missing(&error) {
        return DdlError::NotReady { rollup: rollup.name.clone() }.into();
    }
    error
}

/// Explains `error`, from a target at another address, where `init` refuses to create tables.
pub(super) fn nothing_moved(worker: &Worker, rollup: &Rollup, error: WorkError) -> WorkError {
    if is_missing(&error) {
        let fault = Fault::new(format!(
            "rollup `{}`: the target has no tables of Tallymark, so nothing has moved there",
            rollup.name
        ));
        let other = match worker.checkpoints.is_in_target() {
            true => format!("drop {}", worker.checkpoints.table()),
            false => "choose another [checkpoint] table".to_owned(),
        };
        return WorkError::Usage(fault.remedy(format!(
            "restore its schemas `tallymark` and `{}` from a dump first; or, to count everything \
             again, {other} and run `tallymark init`",
            worker.target.schema
        )));
    }
    error
}

fn is_missing(error: &WorkError) -> bool {
    matches!(error, WorkError::Db(error) if error.kind() == DbErrorKind::Missing)
}
