//! What commands say of an app that is not as it was, besides ticks.

use super::super::fake::{Door, Fault, Moment};
use super::follows::SCRUBBED_TODAY;
use super::*;

/// A change of the app, what undoes it, and what is said.
type Change = (fn(&mut App), fn(&mut App), &'static str);

const CHANGES: [Change; 5] = [
    (|app| app.revoke(TOKEN), |app| app.allow(TOKEN, Caller::Administrator), "Invalid API token"),
    (
        |app| app.live().version = "test".into(),
        |app| app.live().version = "live".into(),
        "its branch `test`",
    ),
    (
        |app| app.live().of("order").rename_field("Amount", "Total"),
        |app| app.live().of("order").rename_field("Total", "Amount"),
        "no field `Amount`",
    ),
    (
        |app| app.live().has_captions = false,
        |app| app.live().has_captions = true,
        "`Status` is a name by display",
    ),
    (
        |app| app.live().of("order").is_ticked = false,
        |app| app.live().of("order").is_ticked = true,
        "Missing object of type order",
    ),
];

/// The counts of a stranger or of another branch would be taken for deletes, or for a proof.
#[tokio::test(flavor = "multi_thread")]
async fn no_estimate_and_no_comparison_rests_on_counts_of_too_few_rights() {
    let mirrored = Mirrored::new(2, PLENTY, |app| orders(app, 2, 10)).await;
    mirrored.settle();
    mirrored.rewrite(|text| format!("{text}[scrub]\nslices_per_day = 1000\nrepair = true\n"));
    mirrored.fake.app().allow(TOKEN, Caller::User("u1".to_owned()));
    mirrored.fake.app().live().of("order").users.findable = Findable::Own;
    let from = day(2).to_string();
    for command in [
        &["verify", "orders"][..],
        &["verify", "orders", "--slice", &from],
        &["plan", "orders", "--from", &from, "--force"],
        &["backfill", "orders", "--from", &from, "--force", "--yes"],
    ] {
        mirrored.run(command).refused(2, &["it may lack the rights"]);
    }
    // A round of the mirror and the rollup takes a tick for each slice.
    let mut told = 0;
    for _ in 0..2 * mirrored.days {
        mirrored.execute(SCRUBBED_TODAY).await;
        let ended = mirrored.run(&["run", "--json"]);
        let report = ended.json();
        assert_eq!(report["scrub"]["differing"], 0, "{report}");
        told += usize::from(ended.words().contains("it may lack the rights"));
    }
    assert!(told > 0, "no tick scrubbed the mirror");
    mirrored.is_right().await;
    mirrored.fake.app().allow(TOKEN, Caller::Administrator);
    mirrored.fake.app().live().version = "test".into();
    mirrored.run(&["verify", "orders"]).refused(2, &["its branch `test`"]);
}

/// Its tables are there, so that `init` needs nothing of the app.
#[tokio::test(flavor = "multi_thread")]
async fn init_names_what_has_changed_in_the_app_since_its_tables_were_made() {
    let mirrored = Mirrored::new(1, PLENTY, |app| orders(app, 1, 10)).await;
    for (change, undo, said) in CHANGES {
        change(&mut mirrored.fake.app());
        mirrored.run(&["init"]).refused(2, &[said]);
        undo(&mut mirrored.fake.app());
    }
    mirrored.run(&["init"]).good();
    // An app that hides its description is asked for each field.
    mirrored.fake.app().live().meta = Door::Shut;
    mirrored.fake.app().live().swagger = Door::Shut;
    mirrored.run(&["init"]).good();
    mirrored.run(&["check"]).good();
    mirrored.fake.app().live().of("order").rename_field("Amount", "Total");
    mirrored.run(&["init"]).refused(2, &["field `Amount`", "Field not found"]);
    let checked = mirrored.run(&["check"]);
    assert!(checked.code == Some(2) && checked.words().contains("field `Amount`"), "{checked:?}");
    // No rights are asked of a type that is still empty, and maintenance passes.
    mirrored
        .fake
        .script(|_, moment, _| (moment == Moment::Before).then_some(Fault::TooMany(Some(3_600))));
    let told = mirrored.run(&["init"]).good().words();
    assert!(told.contains("the app was not asked") && told.contains("429"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_month_is_shown_with_its_budget_and_what_is_left() {
    let mirrored = Mirrored::new(2, 60, |app| orders(app, 2, 120)).await;
    let before = mirrored.fake.bill().units();
    let ended = mirrored.run(&["backfill", "orders", "--yes", "--json"]).good();
    let batch = ended.json();
    let run = batch["workload_units"].as_f64().unwrap();
    // The estimate before it counts once.
    let billed = mirrored.fake.bill().units() - before;
    assert!(run <= billed * 1.1 && run > billed * 0.7, "{batch} of {billed}");
    let status = mirrored.run(&["status", "--json"]).json();
    let month = &status["workload_units"];
    let number = |key: &str| month[key].as_f64().unwrap();
    let spent = mirrored.fake.bill().units();
    assert!((0.9..1.1).contains(&(number("spent") / spent)), "{month} of {spent}");
    assert_eq!(number("budget"), 60.0);
    assert!((number("spent") + number("left") - 60.0).abs() < 0.02, "{month}");
    let shown = mirrored.run(&["status"]).good().out;
    let line = format!(
        "WU of workload_units_per_month = 60 spent in {}",
        month["month"].as_str().unwrap()
    );
    assert!(shown.contains(&line) && shown.contains(" WU left"), "{shown}");
    // The next tick computes the rollup alone, which costs nothing.
    let tick = mirrored.run(&["run"]).good().out;
    assert!(!tick.contains("billed"), "{tick}");
    let text =
        mirrored.run(&["replay", "orders", "--slice", &day(1).to_string(), "--yes"]).good().out;
    assert!(text.contains("WU billed by the app"), "{text}");
}
