//! Tests of the checkpoints with real stores: a DynamoDB API over HTTP, and PostgreSQL. Each rule
//! for a store is tested on both ([`on_each_store`]).

mod conformance;
mod copy;
mod dynamodb;
mod faults;
mod leases;
mod model;
mod notices;
mod postgres;
mod repair;
mod windows;
mod workload;

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use chrono::{DateTime, TimeDelta, Utc};

use super::store::dynamodb::DynamoDb;
use super::{Checkpoints, Claim, ClaimError, ClaimRefused, Completion, Lease, Yield};
use crate::embedded::dynamodb::EmbeddedDynamo;

const ROLLUP: &str = "entity_daily";
const FAILURES_MAX: u32 = 3;

/// A separate table for each test, in one of the stores.
struct Fixture {
    checkpoints: Checkpoints,
    /// The server of a table in DynamoDB.
    dynamo: Option<EmbeddedDynamo>,
}

/// Runs a test on each store, and prints the name of its table first.
async fn on_each_store(test: impl AsyncFn(Fixture)) {
    for fixture in [Fixture::in_dynamodb().await, Fixture::in_postgres().await] {
        eprintln!("in table {}", fixture.checkpoints.table());
        test(fixture).await;
    }
}

impl Fixture {
    async fn in_dynamodb() -> Self {
        let server = EmbeddedDynamo::start(None).await.unwrap();
        let checkpoints = checkpoints_in(server.client(), "tallymark");
        checkpoints.create_table().await.unwrap();
        Self { checkpoints, dynamo: Some(server) }
    }

    async fn in_postgres() -> Self {
        // The tests set the time themselves.
        let store = postgres::store().await.believing_workers();
        let checkpoints = Checkpoints::new(Arc::new(store), FAILURES_MAX);
        checkpoints.create_table().await.unwrap();
        Self { checkpoints, dynamo: None }
    }

    fn dynamo(&self) -> &EmbeddedDynamo {
        self.dynamo.as_ref().unwrap()
    }

    /// Claims the slice `start()` at second `now` for a minute.
    async fn claim(&self, now: i64) -> Result<Lease, ClaimRefused> {
        claim(&self.checkpoints, now).await
    }

    /// Runs the slice `start()` until it succeeds.
    async fn succeed(&self, now: i64) -> Lease {
        let lease = self.claim(now).await.unwrap();
        self.checkpoints.complete(&lease, &outcome(), at(now)).await.unwrap();
        lease
    }
}

fn checkpoints_in(client: Client, table: &str) -> Checkpoints {
    Checkpoints::new(Arc::new(DynamoDb::new(client, table)), FAILURES_MAX)
}

async fn claim(checkpoints: &Checkpoints, now: i64) -> Result<Lease, ClaimRefused> {
    match checkpoints.claim(&wish(now)).await {
        Ok(lease) => Ok(lease),
        Err(ClaimError::Refused(refused)) => Err(refused),
        Err(ClaimError::Checkpoint(error)) => panic!("{error}"),
    }
}

fn wish(now: i64) -> Claim<'static> {
    Claim {
        rollup: ROLLUP,
        slice_start: start(),
        definition: "0123456789abcdef",
        now: at(now),
        deadline: at(now + 60),
    }
}

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_681_600, 0).unwrap()
}

/// A second of the day on which the slice is processed.
fn at(seconds: i64) -> DateTime<Utc> {
    start() + TimeDelta::days(1) + TimeDelta::seconds(seconds)
}

fn turn(reason: &str, retry_at: Option<DateTime<Utc>>) -> Yield {
    Yield { reason: reason.into(), retry_at, horizon: None }
}

fn outcome() -> Completion {
    Completion { rows_read: 1_000, groups: 24, settled_by: "capture".into(), ..Default::default() }
}
