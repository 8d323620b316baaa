//! Documents that commands print with `--json`, as docs/CLI.md shows them. Other tests compare the rest on
//! their way.

use crate::cli::is_documented;
use crate::support::cli::{Place, daily, day};

#[tokio::test]
async fn the_documents_of_capture_control_and_moved_are_as_documented() {
    let (place, _database) = Place::with_events(3).await;
    place.configure(&daily(3).replace("slice =", "late = \"capture\"\nslice ="));
    place.run(&["init"]).good();
    is_documented(&place.json(&["capture", "install"]), "capture", 0);
    place.run(&["run"]).good();
    place.sql(&format!("INSERT INTO events VALUES ('{}T05:00Z', 'late', 1)", day(2))).await;
    let status = place.json(&["capture", "status"]);
    is_documented(&status, "capture", 1);
    assert_eq!(status["tables"][0]["consumers"][0]["waiting"], 1, "{status}");
    is_documented(&place.json(&["capture", "forget", "daily"]), "capture", 2);
    for command in [
        &["pause", "--reason", "sale", "--for", "2h"][..],
        &["speed", "3", "daily"],
        &["resume"],
        &["cancel", "daily"],
    ] {
        let control = place.json(command);
        is_documented(&control, "pause", 0);
        assert!(!control["control"].as_array().unwrap().is_empty(), "{control}");
    }
    is_documented(&place.json(&["moved", "--yes"]), "moved", 0);
}
