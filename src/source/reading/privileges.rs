//! Questions beyond the catalogue, which PostgreSQL answers by planning a statement: whether this
//! role may read the columns, and whether they can be grouped.

use crate::clients::db::{DbError, DbErrorKind, Tx};
use crate::model::hint::Fault;
use crate::model::measure::Measure;
use crate::model::operand::Operand;
use crate::model::rollup::{Late, Rollup};
use crate::model::sql::{ident, literal, table};
use crate::source;
use crate::source::reading::axis::Axis;
use crate::source::reading::shape::ShapeError;
use crate::source::settle;

/// Checks row-level security and privileges before the first slice is claimed.
pub(super) async fn check_privilege(
    tx: &mut Tx,
    rollup: &Rollup,
    role: &str,
) -> Result<(), ShapeError> {
    let (name, relation) = (table(&rollup.from), source::of(rollup).relation(rollup));
    let reads = rollup.reads();
    let columns: Vec<String> = std::iter::once(rollup.time.column.as_str())
        .chain(reads.iter().map(|(_, operand)| operand.name()))
        .chain(rollup.late.column())
        .map(ident)
        .collect();
    // Planning alone skips these checks. Opening the plan checks privileges and row-level security,
    // and reads no row. The statement returns only a count, because the driver would look up the
    // types of returned columns. It cannot do that for all types, and it would lose the unnamed
    // statement.
    let select = format!(
        "SELECT count(*) FROM (SELECT {} FROM {relation} LIMIT 0) AS nothing",
        columns.join(", ")
    );
    let read = tx.execute(&format!("reading {name}"), select).await;
    read.map(drop).map_err(|error| refusal(error, rollup, role))
}

/// The error of a server that does not let `role` read the source.
pub(super) fn refusal(error: DbError, rollup: &Rollup, role: &str) -> ShapeError {
    refusal_of(error, rollup, &table(&rollup.from), role)
}

/// As [`refusal`], where the table `name` was read.
pub(super) fn refusal_of(error: DbError, rollup: &Rollup, name: &str, role: &str) -> ShapeError {
    let fault = match error.kind() {
        DbErrorKind::RowSecurity => Fault::new(format!(
            "row-level security on {name} hides rows from this role, so its counts would be wrong"
        ))
        .remedy("use a role with BYPASSRLS or the table's owner"),
        DbErrorKind::Denied => Fault::new(format!("the role {role} may not read {name}"))
            .remedy(format!("as its owner: GRANT SELECT ON {name} TO {role}")),
        _ => return error.into(),
    };
    ShapeError::Unfit { rollup: rollup.name.clone(), problem: fault }
}

/// Checks that the server knows the zone of a column's local times. Its rules for the zone are
/// compared for each slice.
pub(super) async fn check_zone(
    tx: &mut Tx,
    rollup: &Rollup,
    axis: &Axis,
) -> Result<(), ShapeError> {
    let Some(zone) = axis.local_zone() else { return Ok(()) };
    let sql = format!("SELECT now() AT TIME ZONE {}", literal(zone.name()));
    let Err(error) = tx.execute("looking up a time zone", sql).await else { return Ok(()) };
    match error.kind() {
        DbErrorKind::Missing | DbErrorKind::Refused => Err(ShapeError::Unfit {
            rollup: rollup.name.clone(),
            problem: Fault::new(format!(
                "column `{}` is read in the zone {}, which the server does not know",
                axis.column(),
                zone.name()
            ))
            .remedy("update its time zones, or name one of pg_timezone_names"),
        }),
        _ => Err(error.into()),
    }
}

/// Checks that PostgreSQL can group and order by all dimensions and all columns with staged values.
/// The catalogue gives no answer for an array of `json`, or a composite that contains one.
pub(super) async fn check_comparable(
    tx: &mut Tx,
    rollup: &Rollup,
    is_comparable: impl Fn(&str) -> bool,
) -> Result<(), ShapeError> {
    let values = rollup.measures.iter().filter_map(Measure::values_of);
    let keys = rollup.group_by.iter().map(|key| &key.operand).chain(values).map(Operand::name);
    let keys: Vec<String> = keys.filter(|name| is_comparable(name)).map(ident).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let keys = keys.join(", ");
    let (name, relation) = (table(&rollup.from), source::of(rollup).relation(rollup));
    // With a false condition PostgreSQL answers from the types alone.
    let sql = format!("SELECT FROM {relation} WHERE false GROUP BY {keys} ORDER BY {keys}");
    let Err(error) = tx.execute(&format!("grouping {name}"), sql).await else { return Ok(()) };
    match error.kind() {
        DbErrorKind::Missing | DbErrorKind::Refused => Err(ShapeError::Unfit {
            rollup: rollup.name.clone(),
            problem: Fault::new(format!("cannot group by all of {keys}: {error}"))
                .remedy("cast the column in a view"),
        }),
        _ => Err(error.into()),
    }
}

/// Checks that this server and role can notice late changes in the configured way.
pub(super) async fn check_late(tx: &mut Tx, rollup: &Rollup, role: &str) -> Result<(), ShapeError> {
    let unfit = |problem: Fault| ShapeError::Unfit { rollup: rollup.name.clone(), problem };
    if rollup.late == Late::Grace {
        return Ok(());
    }
    let (_, is_replica) = settle::now(tx).await?;
    if is_replica {
        let fault = Fault::new(format!(
            "late: the source is a replica, which does not know of open transactions, so that \
             \"{}\" cannot work",
            rollup.late.word()
        ));
        return Err(unfit(fault.remedy("use the primary's address, or late = \"grace\"")));
    }
    if rollup.late == Late::Clock && !settle::sees_all(tx).await? {
        let fault = Fault::new(format!(
            "late: \"clock\" needs to see when other roles' transactions began, and {role} may not"
        ));
        return Err(unfit(fault.remedy(format!(
            "as a superuser: GRANT pg_read_all_stats TO {role}; or use another way: \"capture\", \
             {{ column = … }}, \"grace\""
        ))));
    }
    Ok(())
}
