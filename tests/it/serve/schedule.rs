//! The schedule of `--every`.

use std::fs;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{DAYS, RUNNING, STORES, is_once, is_right, nap, place};
use crate::interrupt::wait_for;
use crate::support::cli::lines;
use crate::support::serving::Server;

fn instant(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}

/// All work is done, and the schedule sleeps beyond its interval of a second.
pub(super) fn sleeps(health: &Value) -> bool {
    let [began, next] = [&health["last_tick"]["began_at"], &health["next_tick"]].map(instant);
    began.zip(next).is_some_and(|(began, next)| next - began > TimeDelta::seconds(5))
}

const COUNTED: &str = "SELECT DISTINCT bucket FROM stats.daily";

#[tokio::test]
async fn the_schedule_sleeps_while_nothing_is_due_and_catches_up_by_one_tick() {
    for store in STORES {
        let (place, _database) = place(store).await;
        // The process believes that it is yesterday, and wakes up today.
        let clock = place.config().with_file_name("clock");
        fs::write(&clock, "-86400").unwrap();
        let mut command =
            place.command(&["serve", "--listen", "127.0.0.1:0", "--every", "1s", "-v"]);
        command.env("TALLYMARK_FAULTS_CLOCK", &clock);
        let server = Server::of(command);
        let health = server.wait_for("all is done", sleeps).await;
        assert_eq!(health["status"], "ok", "{health}");
        assert_eq!(lines(&place.target_url, COUNTED).await.len(), DAYS as usize - 1);
        let ticks = "tallymark_ticks_total{outcome=\"good\"}";
        let before = server.metric(ticks);
        assert_eq!(server.metric("tallymark_watermark_lag_seconds"), 0.0);
        fs::write(&clock, "0").unwrap();
        let is_awake = |health: &Value| {
            let began = instant(&health["last_tick"]["began_at"]);
            began > instant(&health["next_tick"]).map(|next| next - TimeDelta::days(1))
                && server.metric(ticks) > before
                && sleeps(health)
        };
        let health = server.wait_for("the new slice", is_awake).await;
        assert_eq!(health["last_tick"]["asked_by"], "schedule");
        is_right(&place).await;
        is_once(&place).await;
        // Far fewer than one for each second of the day that was missed.
        let more = server.metric(ticks) - before;
        assert!(more < 864.0, "{more} ticks");
        server.signal("TERM");
        let ended = server.end().await;
        assert_eq!(ended.code, Some(143), "{ended:?}");
        assert!(ended.err.contains("the same command goes on"), "{ended:?}");
        assert!(ended.err.contains("tick ended"), "{ended:?}");
    }
}

#[tokio::test]
async fn work_that_is_left_or_held_is_looked_for_each_interval() {
    let (place, _database) = place(STORES[0]).await;
    place.run(&["pause", "--reason", "sale"]).good();
    let server = Server::start(&place, &["--every", "1s"]);
    let ticks = "tallymark_ticks_total{outcome=\"good\"}";
    server.wait_for("ticks", |_| server.metric(ticks) >= 3.0).await;
    assert_eq!(server.metric("tallymark_rollups_held"), 1.0);
    assert_eq!(server.health()["status"], "ok");
    place.run(&["resume"]).good();
    server.wait_for("all is done", sleeps).await;
    is_right(&place).await;
    is_once(&place).await;
}

#[tokio::test]
async fn a_server_whose_database_is_not_ready_goes_on_and_recovers() {
    let (place, _database) = place(STORES[1]).await;
    place.sql("ALTER TABLE tallymark.checkpoint RENAME TO elsewhere").await;
    let server = Server::start(&place, &["--every", "1s"]);
    let is_failing = |health: &Value| health["status"] == "failing";
    let health = server.wait_for("it fails", is_failing).await;
    assert_eq!(health["last_tick"]["good"], false, "{health}");
    assert!(server.metric("tallymark_failing") > 0.0);
    place.sql("ALTER TABLE tallymark.elsewhere RENAME TO checkpoint").await;
    server.wait_for("all is done", sleeps).await;
    assert_eq!(server.metric("tallymark_failing"), 0.0);
    is_right(&place).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_server_at_once() {
    let (mut place, _database) = place(STORES[0]).await;
    nap(&place, 2.0).await;
    let server = Server::start(&place, &["--every", "1s"]);
    wait_for(&place, RUNNING, true).await;
    place.stop_dynamo();
    server.signal("TERM");
    server.signal("TERM");
    let ended = server.end().await;
    assert_eq!(ended.code, Some(143), "{ended:?}");
    wait_for(&place, RUNNING, false).await;
}
