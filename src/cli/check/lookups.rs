//! The indexes by which changed keys of lookups are found in a captured table.

use super::{Findings, Grade};
use crate::clients::db::Tx;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::source::changes::capture::Capture;
use crate::source::changes::lookup_marks;
use crate::source::reading::shape::Shape;
use crate::work::worker::WorkError;

/// Adds a finding for each lookup of a captured rollup whose keys need another index.
pub(super) async fn indexes(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let capture = Capture::new(&rollup.from, &[(rollup, shape)]);
    let marked = capture.standing(tx).await?.lookups;
    for (of, lookup) in lookup_marks::pairs(&capture.lookups, &marked) {
        if let Some(missing) = lookup_marks::unindexed(tx, of, lookup).await? {
            let facts = format!(
                "a changed key of the lookup `{}` is found in {} by reading all of it",
                of.lookup.name, rollup.from
            );
            let fault = Fault::new(facts).remedy(format!("as its owner: {}", missing.remedy()));
            let grade = if missing.is_large { Grade::Bad } else { Grade::Note };
            findings.add(grade, &rollup.name, fault);
        }
    }
    Ok(())
}
