//! The month's workload units: workers reserve them before they ask, and give back the rest.

use futures_util::future::join_all;

use super::super::Spending;
use super::{at, on_each_store};
use crate::clients::bubble::Units;

#[tokio::test]
async fn workers_that_reserve_at_once_share_one_budget() {
    const NONE: Units = Units::whole(0);
    on_each_store(async |fixture| {
        let (store, budget, now) = (&fixture.checkpoints, Units::whole(10), at(0));
        let one = || store.spend_workload(Units::whole(1), NONE, budget, now);
        let answers = join_all((0..20).map(|_| one())).await;
        let granted = answers.into_iter().filter(|it| matches!(it, Ok(Spending::Granted)));
        assert_eq!(granted.count(), 10);
        assert_eq!(store.workload(now).await.unwrap(), budget);
        assert_eq!(one().await.unwrap(), Spending::Over { spent: budget });
        store.spend_workload(NONE, Units::whole(3), budget, now).await.unwrap();
        assert_eq!(store.workload(now).await.unwrap(), Units::whole(7));
        assert_eq!(one().await.unwrap(), Spending::Granted);
    })
    .await;
}
