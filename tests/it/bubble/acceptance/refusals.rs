//! Each of these alone is an error that names it, and never a wrong number.

use std::time::Duration;

use super::super::fake::{Door, Fault, Moment, Rights};
use super::*;

/// A place with 250 orders a day, whose app then changes.
async fn place(change: impl FnOnce(&mut App)) -> Mirrored {
    let mirrored = Mirrored::new(2, PLENTY, |app| orders(app, 2, 250)).await;
    change(&mut mirrored.fake.app());
    mirrored
}

impl Mirrored {
    /// A tick says one of these words, and writes no thing. It may fail or leave its slices.
    async fn names(&self, words: &[&str]) {
        self.names_within("60s", words).await;
    }

    async fn names_within(&self, budget: &str, words: &[&str]) {
        let ended = self.run(&["run", "--budget", budget]);
        let said = ended.words();
        assert!(words.iter().any(|word| said.contains(word)), "none of {words:?} in {said}");
        assert_eq!(self.kept().await, [""; 0], "{said}");
        assert_eq!(self.rolled().await, [""; 0], "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_sees_less_than_a_stranger_is_named() {
    let mirrored = place(|app| {
        app.allow(TOKEN, Caller::User("u1".to_owned()));
        app.live().of("order").users.findable = Findable::Own;
        app.live().of("order").public.findable = Findable::All;
    })
    .await;
    mirrored.names(&["rights", "privacy", "administrator"]).await;
}

/// A stranger sees no order, and the token is a user's who has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_sees_nothing_is_named() {
    let mirrored = place(|app| {
        app.allow(TOKEN, Caller::User("u1".to_owned()));
        app.live().of("order").users.findable = Findable::Own;
    })
    .await;
    mirrored.names(&["rights", "privacy", "administrator"]).await;
}

/// The token sees all orders and their dates.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_see_a_field_is_named() {
    let mirrored = place(|app| {
        app.allow(TOKEN, Caller::User("u1".to_owned()));
        let hidden = vec!["Amount"];
        app.live().of("order").users = Rights { findable: Findable::All, hidden };
    })
    .await;
    mirrored.names(&["Amount"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_test_in_place_of_live_is_named() {
    let mirrored = place(|app| app.live().version = "test".to_owned()).await;
    mirrored.names(&["branch `test`"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_constraint_is_named() {
    let mirrored = place(|app| {
        app.allow(TOKEN, Caller::User("u1".to_owned()));
        let hidden = vec!["Created Date"];
        app.live().of("order").users = Rights { findable: Findable::All, hidden };
    })
    .await;
    mirrored.names(&["constraint", "Created Date"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_named() {
    let mirrored = place(|app| app.revoke(TOKEN)).await;
    mirrored.names(&["token"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wall_within_one_millisecond_is_named() {
    let mirrored = Mirrored::new(1, PLENTY, |app| {
        app.wall = 250;
        app.live().bulk_create("order", 400, &New::at(at(1, 77)));
    })
    .await;
    mirrored.names(&["50,000", "50000", "offset", "remain"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_field_is_named() {
    let mirrored = place(|app| app.live().of("order").rename_field("Amount", "Total")).await;
    mirrored.names(&["Amount"]).await;
}

/// The app tells nothing of its types.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_field_is_named_without_a_description() {
    let mirrored = place(|app| {
        app.live().meta = Door::Shut;
        app.live().swagger = Door::Shut;
        app.live().of("order").rename_field("Amount", "Total");
    })
    .await;
    mirrored.names(&["Amount"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn toggled_key_names_are_named() {
    let mirrored = place(|app| app.live().has_captions = false).await;
    mirrored.names(&["Status", "Amount"]).await;
}

/// A tick that reads nothing of a renamed field must not take it for empty later on either.
#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_renamed_between_two_ticks_is_named() {
    let mirrored = place(|_| {}).await;
    mirrored.settle();
    let before = mirrored.kept().await;
    mirrored.fake.app().live().of("order").rename_field("Amount", "Total");
    let from = day(2).to_string();
    let ended = mirrored.run(&["replay", "orders", "--slice", &from, "--yes"]);
    assert!(ended.words().contains("Amount"), "{ended:?}");
    assert_eq!(mirrored.kept().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn html_with_200_is_named() {
    let mirrored = place(|_| {}).await;
    mirrored.fake.script(|_, moment, _| (moment == Moment::Before).then_some(Fault::Html));
    mirrored.names(&["HTML", "html", "JSON"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_not_there_is_named() {
    let mirrored = place(|app| app.live().of("order").is_ticked = false).await;
    mirrored.names(&["order"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shorter_than_it_says_is_named() {
    for missing in [1, 100] {
        let mirrored = place(|_| {}).await;
        mirrored.fake.script(move |seen, moment, _| {
            let is_page = seen.query.iter().any(|(name, _)| name == "sort_field");
            (moment == Moment::After && is_page).then_some(Fault::Short(missing))
        });
        mirrored.names(&["short", "count", "says"]).await;
    }
}

/// Things become visible in a day that was over long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_rises_is_named() {
    let mirrored = place(|_| {}).await;
    let mut asked = 0;
    mirrored.fake.script(move |_, moment, app| {
        asked += usize::from(moment == Moment::After);
        // After the questions with which a process begins.
        if moment == Moment::After && asked > 6 {
            for days in [2, 1] {
                app.live().create("order", &New::at(at(days, 5)));
            }
        }
        None
    });
    mirrored.names(&["grace"]).await;
}

/// The first thing of each page is of another century.
#[tokio::test(flavor = "multi_thread")]
async fn a_thing_outside_of_the_range_is_named() {
    let mirrored = place(|_| {}).await;
    mirrored.fake.script(|seen, moment, _| {
        let is_page = seen.query.iter().any(|(name, _)| name == "sort_field");
        let other = |body: &str| body.replacen("\"Created Date\":\"20", "\"Created Date\":\"19", 1);
        (moment == Moment::After && is_page).then_some(Fault::Body(other))
    });
    mirrored.names(&["Created Date", "constraint", "range", "order"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_is_refused() {
    let (mirrored, other) = (place(|_| {}).await, place(|_| {}).await);
    let (to, asked) = (other.fake.url(), other.fake.log().len());
    mirrored.fake.script(move |_, moment, _| {
        (moment == Moment::Before).then(|| Fault::Redirect(to.clone()))
    });
    mirrored.names(&["redirect", "302"]).await;
    assert_eq!(other.fake.log().len(), asked, "no request leaves for another host");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_answers_ends_the_tick_in_time() {
    let mirrored = place(|_| {}).await;
    mirrored.fake.take(Duration::from_secs(300));
    mirrored.names_within("15s", &["time", "answer"]).await;
}
