//! Writes into the target that an installation keeps a rollup.

use super::found::servers;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::rollup::Rollup;
use crate::model::sql::literal;
use crate::work::worker::{WorkError, Worker};

/// Makes this installation the owner of a rollup, reached by `places`.
pub(super) async fn keep_at(
    worker: &Worker,
    rollup: &Rollup,
    id: &str,
    places: &[String],
) -> Result<(), WorkError> {
    let servers = servers(worker).await?;
    let places: Vec<_> = places.iter().map(|place| literal(place)).collect();
    write_identity(
        worker,
        vec![
            format!(
                "INSERT INTO tallymark.installation AS known \
             (id, places, servers) VALUES ({}, ARRAY[{}], {}) ON CONFLICT (id) DO UPDATE SET \
             places = excluded.places, servers = excluded.servers",
                literal(id),
                places.join(", "),
                literal(&servers),
            ),
            format!(
                "UPDATE tallymark.rollup SET installation = {} WHERE rollup = {}",
                literal(id),
                literal(&rollup.name)
            ),
        ],
    )
    .await
}

async fn write_identity(worker: &Worker, statements: Vec<String>) -> Result<(), WorkError> {
    let db = &worker.target.db;
    let mut tx = db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "identity").await?;
    for statement in statements {
        tx.execute("writing the installation", statement).await?;
    }
    Ok(tx.commit().await?)
}
