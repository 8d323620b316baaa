//! The seal of a rollup in the registry, where the fence of every replacement asks for it.

use chrono::{DateTime, Utc};

use super::Target;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError};
use crate::model::rollup::Rollup;
use crate::model::sql::{literal, timestamptz};

impl Target {
    /// Seals the slices of `rollup` that start before this instant, or none with `None`. Every
    /// replacement locks the registry's row at its fence. So this waits for those under way, and
    /// later ones of sealed slices are refused.
    ///
    /// # Errors
    /// The server refuses or cannot be reached, or a replacement takes too long.
    pub(crate) async fn seal(
        &self,
        rollup: &Rollup,
        seal: Option<DateTime<Utc>>,
    ) -> Result<(), DbError> {
        let mut tx = self.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let sql = format!(
            "UPDATE tallymark.rollup SET sealed_before = {seal} \
             WHERE rollup = {} AND sealed_before IS DISTINCT FROM {seal}",
            literal(&rollup.name),
            seal = seal.map_or_else(|| "NULL::timestamptz".to_owned(), timestamptz),
        );
        tx.execute("sealing", sql).await?;
        tx.commit().await
    }
}
