//! Checkpoints in the target that are lost, restored from an older dump, or copied with it.
//! `repair` makes the numbers exact, or names the rollups that only `verify --repair` can prove.

use std::ops::Deref;

use crate::dumps::{FourRollups, admin, keep, put_back, unproven};
use crate::support::Database;
use crate::support::cli::{Ended, Place, daily, day, execute};

const STORE: &str = "[checkpoint]\nstore = \"postgres\"\n";

/// Three days in a database beside the target, which holds the checkpoints too.
struct World(FourRollups);

impl Deref for World {
    type Target = FourRollups;

    fn deref(&self) -> &FourRollups {
        &self.0
    }
}

impl World {
    async fn new() -> Self {
        let four = FourRollups::new(STORE, Place::stop_dynamo).await;
        assert_eq!(four.wrong().await, [""; 0]);
        Self(four)
    }

    /// Work is refused with these words until `repair` has run. After that each rollup is exact, but
    /// for those in `wrong`, which are among the unproven ones, until `verify --repair`.
    async fn is_repaired(&self, words: &str, expected: &[&str], wrong: &[&str]) {
        for command in [["run"], ["verify"], ["status"]] {
            let told = told(&self.place.run(&command), 2);
            assert!(
                told.contains(words) && told.contains("tallymark repair"),
                "{command:?}: {told}"
            );
        }
        let repaired = self.place.run(&["repair", "--json"]);
        assert_eq!(repaired.code, Some(i32::from(!expected.is_empty())), "{repaired:?}");
        assert_eq!(unproven(&repaired.json()), expected);
        self.place.run(&["run"]);
        assert_eq!(self.wrong().await, wrong);
        self.place.run(&["verify", "--repair", "--yes"]).good();
        assert_eq!(self.wrong().await, [""; 0]);
        self.place.run(&["run"]).good();
    }
}

fn told(ended: &Ended, code: i32) -> String {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    ended.words()
}

#[tokio::test]
async fn a_table_of_checkpoints_that_was_dropped_is_made_from_the_markers() {
    let world = World::new().await;
    world.change().await;
    execute(&world.target.url(), "DROP TABLE tallymark.checkpoint").await;
    let refused = told(&world.place.run(&["run"]), 2);
    assert!(refused.contains("`tallymark.checkpoint` does not exist"), "{refused}");
    let init = told(&world.place.run(&["init"]), 0);
    assert!(init.contains("run `tallymark repair grace` next"), "{init}");
    world.is_repaired("checkpoint table is empty", &["changed", "captured"], &[]).await;
}

#[tokio::test]
async fn checkpoints_of_an_older_dump_follow_the_newer_markers() {
    let world = World::new().await;
    let kept = "CREATE TABLE public.kept AS SELECT rollup, sort, item FROM tallymark.checkpoint";
    execute(&world.target.url(), kept).await;
    world.change().await;
    let older = "BEGIN; DELETE FROM tallymark.checkpoint; INSERT INTO tallymark.checkpoint (rollup, \
                 sort, item) TABLE public.kept; COMMIT; DROP TABLE public.kept";
    execute(&world.target.url(), older).await;
    let words = "checkpoints are older than its rows";
    world.is_repaired(words, &["changed", "captured"], &[]).await;
}

/// Rows, markers and checkpoints agree with each other, so only the source shows what is missing.
#[tokio::test]
async fn a_target_of_an_older_dump_that_holds_the_checkpoints_is_made_right() {
    let world = World::new().await;
    let file = world.place.config().parent().unwrap().join("target.dump");
    let kept = keep(&world.target.url(), &file).await;
    world.change().await;
    put_back(&world.target.url(), &kept).await;
    let wrong = ["grace", "clock", "captured"];
    world.is_repaired("created again or restored", &wrong, &wrong).await;
}

/// The consumer's number comes along with the checkpoints. If the copy kept it, each of the two
/// would take marks from the other.
#[tokio::test]
async fn a_copied_target_becomes_an_installation_of_its_own_with_its_own_marks() {
    let (source, target) = (Database::create().await, Database::create().await);
    let captured = daily(3).replace("slice =", "late = \"capture\"\nslice =");
    let rollups = format!("{STORE}{captured}");
    let mut first = Place::new(&source.url(), &target.url(), &rollups).await;
    first.stop_dynamo();
    first.seed(3).await;
    first.run(&["init"]).good();
    first.run(&["capture", "install"]).good();
    first.run(&["run"]).good();
    let name = format!("copy_{:016x}", fastrand::u64(..));
    let of = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        of(&target.url())
    );
    admin(&end).await;
    admin(&format!("CREATE DATABASE {name} TEMPLATE {}", of(&target.url()))).await;
    let copy_url = target.url().replace(&of(&target.url()), &name);
    let mut copy = Place::new(&source.url(), &copy_url, &rollups).await;
    copy.stop_dynamo();
    let refused = told(&copy.run(&["run"]), 2);
    assert!(refused.contains("`--copy` if this target is a copy"), "{refused}");
    let paused = told(&copy.run(&["pause"]), 2);
    assert!(paused.contains("run `tallymark moved --copy`"), "{paused}");
    assert!(!paused.contains("[checkpoint] table"), "{paused}");
    copy.run(&["moved", "--copy", "--yes"]).good();
    copy.run(&["repair"]);
    first.sql(&format!("INSERT INTO events VALUES ('{}T05:00Z', 'late', 1)", day(2))).await;
    for place in [&copy, &first] {
        place.run(&["run"]).good();
        assert_eq!(place.json(&["verify"])["differences"], 0);
    }
    first.sql(&format!("INSERT INTO events VALUES ('{}T06:00Z', 'late', 1)", day(3))).await;
    for place in [&first, &copy] {
        place.run(&["run"]).good();
        assert_eq!(place.json(&["verify"])["differences"], 0);
    }
    let status = first.json(&["capture", "status"]);
    assert_eq!(status["tables"][0]["marks"], 0, "{status}");
    assert_eq!(status["tables"][0]["consumers"].as_array().unwrap().len(), 2, "{status}");
}

/// Another role ran `init`, and granted the rest.
#[tokio::test]
async fn check_names_the_grant_that_the_checkpoints_lack() {
    let (mut place, database) = Place::with_events(2).await;
    place.configure(&format!("{STORE}{}", daily(2)));
    place.run(&["init"]).good();
    let role = format!("worker_{:x}", fastrand::u64(..));
    place.sql(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON events TO {role}")).await;
    let admin = place.source_url.clone();
    place.source_url = database.url_of(&role);
    place.target_url.clone_from(&place.source_url);
    let granted = [
        format!("GRANT USAGE ON SCHEMA tallymark TO {role}"),
        format!("GRANT DELETE, INSERT, SELECT, UPDATE ON tallymark.checkpoint TO {role}"),
    ];
    for grant in &granted {
        let told = told(&place.run(&["check"]), 2);
        assert!(told.contains(grant), "{told}");
        execute(&admin, grant).await;
    }
    execute(&admin, &format!("REVOKE INSERT ON tallymark.checkpoint FROM {role}")).await;
    let said = told(&place.run(&["check"]), 2);
    assert!(said.contains(&format!("GRANT INSERT ON tallymark.checkpoint TO {role}")), "{said}");
    execute(&admin, &granted[1]).await;
    let said = place.run(&["check"]).out;
    assert!(said.contains("table tallymark.checkpoint is ACTIVE"), "{said}");
    execute(&admin, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
