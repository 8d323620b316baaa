//! Edits and deletes of things that were read already, followed by the real binary.

use tallymark::model::clock::Clock as _;

use super::*;
use crate::support::cli::execute;

/// The time of the look before, as if it had been two hours earlier.
const LOOKED_EARLIER: &str = "UPDATE tallymark.checkpoint SET item = jsonb_set(item - 'changes_found', \
    '{changes_until}', to_jsonb(to_char( \
        (item->>'changes_until')::timestamptz AT TIME ZONE 'UTC' - interval '2 hours', \
        'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'))) \
    WHERE rollup = 'orders' AND sort = 'changes'";

/// What the scrubs of the day have used up.
pub(super) const SCRUBBED_TODAY: &str =
    "DELETE FROM tallymark.checkpoint WHERE rollup = '*' AND sort = 'scrub'";

/// The page that shows how an app records its deletes.
const PAGE: &str = include_str!("../../../../docs/BUBBLE.md");

impl Mirrored {
    /// Changes the configuration.
    pub(super) fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(self.place.config()).unwrap();
        std::fs::write(self.place.config(), change(text)).unwrap();
    }

    /// The ids of the orders that were created on the day `days` before today.
    fn ids_of(&self, days: u32) -> Vec<String> {
        let date = day(days.into()).to_string();
        let present = self.present();
        let of_day =
            present.iter().filter(|line| line.split('|').nth(1).unwrap().starts_with(&date));
        of_day.map(|line| line.split('|').next().unwrap().to_owned()).collect()
    }

    pub(super) async fn execute(&self, sql: &str) {
        execute(&self.database.url(), sql).await;
    }
}

/// The days of the slices of `rollup` that were computed.
fn computed(slices: &[Value], rollup: &str) -> Vec<String> {
    let of = slices.iter().filter(|it| it["rollup"] == rollup && it["outcome"] == "succeeded");
    let mut days: Vec<_> = of.map(|it| it["start"].as_str().unwrap()[..10].to_owned()).collect();
    days.sort();
    days
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_any_age_are_followed_and_only_their_slices_are_paid_again() {
    let mirrored = Mirrored::new(4, PLENTY, |app| {
        orders(app, 4, 150);
        // In the first hours of a day, yesterday's evening is what changed since the earlier look.
        let evening = at(1, 20 * 3_600_000).timestamp_millis()..at(0, 0).timestamp_millis();
        let late = app.live().things("order").filter(|thing| evening.contains(&thing.created));
        for id in late.map(|thing| thing.id.to_string()).collect::<Vec<_>>() {
            app.live().delete("order", &id);
        }
    })
    .await;
    mirrored.rewrite(|text| text.replacen("slice =", "modified = true\nslice =", 1));
    mirrored.settle();
    mirrored.is_right().await;
    // The whole of one day at one instant, and a single order of another.
    let (many, one) = (mirrored.ids_of(4), mirrored.ids_of(2).remove(7));
    let edited = SystemClock.now() - TimeDelta::minutes(30);
    for id in many.iter().chain([&one]) {
        let amount = Some(Datum::Number(77.0));
        mirrored.fake.app().live().edit("order", id, edited, &[("Amount", amount)]);
    }
    mirrored.execute(LOOKED_EARLIER).await;
    let before = mirrored.fake.bill().units();
    let (report, code) = mirrored.tick();
    assert_eq!(code, Some(0), "{report}");
    let days = [day(4).to_string(), day(2).to_string()];
    let mut slices = report["slices"].as_array().unwrap().clone();
    // The tick's total has the look, too.
    let billed = mirrored.fake.bill().units() - before;
    let share = report["workload_units"].as_f64().unwrap() / billed;
    assert!((0.9..1.1).contains(&share), "{report} of {billed}");
    slices.extend(mirrored.settle());
    assert_eq!(computed(&slices, "orders"), days, "{slices:#?}");
    assert_eq!(computed(&slices, "orders_daily"), days, "{slices:#?}");
    mirrored.is_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_are_found_by_the_scrubs_counts_and_followed() {
    let mirrored = Mirrored::new(3, PLENTY, |app| orders(app, 3, 30)).await;
    mirrored.settle();
    for id in &mirrored.ids_of(2)[3..6] {
        mirrored.fake.app().live().delete("order", id);
    }
    mirrored.rewrite(|text| format!("{text}[scrub]\nslices_per_day = 1000\nrepair = true\n"));
    let (mut found, before) = (Vec::new(), mirrored.fake.bill().units());
    let mut reported = 0.0;
    // A round of the mirror and the rollup takes a tick for each slice.
    for _ in 0..2 * mirrored.days {
        mirrored.execute(SCRUBBED_TODAY).await;
        let report = mirrored.run(&["run", "--json"]).json();
        reported += report["workload_units"].as_f64().unwrap();
        found.extend(report["scrub"]["drifted"].as_array().unwrap().clone());
    }
    let [drift] = &found[..] else { panic!("{found:#?}") };
    assert!(drift["start"].as_str().unwrap().starts_with(&day(2).to_string()), "{drift}");
    assert_eq!((&drift["rollup"], &drift["differences"]), (&"orders".into(), &3.into()));
    assert_eq!(drift["reopened"], true, "{drift}");
    let share = reported / (mirrored.fake.bill().units() - before);
    assert!((0.9..1.1).contains(&share), "{reported} units are {share} of the bill");
    mirrored.settle();
    mirrored.is_right().await;
}

/// The blocks of this language on the page, after the heading about recorded deletes.
fn shown(language: &str) -> String {
    let recipe = PAGE.split("### Deletes at once").nth(1).unwrap();
    let block = recipe.split(&format!("```{language}\n")).nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_that_the_app_records_are_followed_as_the_page_shows() {
    let mirrored = Mirrored::unset(3, |app| {
        orders(app, 3, 40);
        let recorded = app.live().define("Order Deletion", &[("Order", Kind::Text)]);
        recorded.public.findable = Findable::Nothing;
    })
    .await;
    mirrored.configure("live", PLENTY);
    let start = format!("start = \"{}\"\ngrace = \"2 minutes\"", day(3));
    let block = shown("toml").replace("start = \"2025-01-01\"", &start);
    assert!(block.contains(&start), "{block}");
    mirrored.rewrite(|text| format!("{text}{block}"));
    // What the event of the app does: an order goes, and a thing with its id comes.
    let delete = |id: &str, at| {
        let recorded = New::at(at).with("Order", text(id));
        mirrored.fake.app().live().delete("order", id);
        mirrored.fake.app().live().create("orderdeletion", &recorded);
    };
    mirrored.run(&["init"]).good();
    mirrored.run(&["backfill", "orders", "--yes"]).good();
    let (old, young) = (mirrored.ids_of(3).remove(5), mirrored.ids_of(1).remove(0));
    delete(&old, at(2, 60_000));
    delete(&young, at(1, 90_000));
    mirrored.settle();
    let query = shown("sql").replace("Europe/Berlin", "UTC").replace(';', "");
    let days = mirrored.lines(&query).await;
    assert_eq!(days, [day(3).to_string(), day(1).to_string()]);
    for day in &days {
        mirrored.run(&["replay", "orders", "--slice", day, "--yes"]).good();
    }
    mirrored.settle();
    mirrored.is_right().await;
    assert_eq!(mirrored.lines(&query).await, [""; 0], "nothing is left to follow");
}
