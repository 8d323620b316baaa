//! The workload units that a mirror reports, and their budget.

use std::process::Stdio;

use super::*;

/// The units that slices report.
fn reported(slices: &[Value]) -> f64 {
    slices.iter().filter_map(|slice| slice["workload_units"].as_f64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_reported_are_those_of_the_bill() {
    let mirrored = Mirrored::new(4, PLENTY, |app| orders(app, 4, 900)).await;
    let before = mirrored.fake.bill().units();
    let slices = mirrored.settle();
    let billed = mirrored.fake.bill().units() - before;
    let share = reported(&slices) / billed;
    assert!((0.9..1.1).contains(&share), "{} of {billed}", reported(&slices));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_passed_by_one_page_at_most_and_pages_are_paid_once() {
    let whole = Mirrored::new(2, PLENTY, |app| orders(app, 2, 1_000)).await;
    whole.settle();
    let price = whole.fake.bill().units();

    let mirrored = Mirrored::new(2, 20, |app| orders(app, 2, 1_000)).await;
    let said = mirrored.run(&["run"]).words();
    assert!(said.contains("workload_units_per_month"), "{said}");
    let billed = mirrored.fake.bill().units();
    assert!((17.0..20.0 + 2.5).contains(&billed), "{billed}");
    assert_eq!(mirrored.rolled().await, [""; 0]);
    mirrored.configure("live", PLENTY);
    // It waits for the slices that yielded.
    mirrored.run(&["backfill", "orders", "--yes"]).good();
    mirrored.settle();
    mirrored.is_right().await;
    let again = mirrored.fake.bill().units();
    // The second process asks its questions again.
    assert!(again < price + 1.6 + 2.5, "{again} instead of {price}");
}

/// Two workers share one budget, and each may pass it by a page.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_holds_over_two_workers() {
    let mirrored = Mirrored::new(6, 30, |app| orders(app, 6, 400)).await;
    let workers = [(); 2].map(|()| {
        let mut worker = mirrored.command(&["run"]);
        worker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for worker in workers {
        let said = format!("{:?}", worker.wait_with_output().unwrap());
        assert!(said.contains("workload_units_per_month"), "{said}");
    }
    let billed = mirrored.fake.bill().units();
    assert!((25.0..30.0 + 2.0 * 2.5).contains(&billed), "{billed}");
}
