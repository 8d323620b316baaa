//! Schedulers call as they do: twice, at once, without waiting, and never again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tallymark::model::clock::Stopwatch;

use super::{DAYS, ROLLUP, RUNNING, STORES, is_once, is_right, nap, place};
use crate::interrupt::wait_for;
use crate::support::cli::{Place, documented, lines};
use crate::support::serving::{LIMIT, Server, TOKEN, send, tick};

fn is_running(health: &Value) -> bool {
    !health["running"].is_null()
}

fn has_ended(health: &Value) -> bool {
    !is_running(health) && !health["last_tick"].is_null()
}

#[tokio::test]
async fn a_tick_over_http_is_reported_as_the_command_reports_it() {
    let (place, _database) = place(STORES[1]).await;
    let server = Server::with_token(&place, &[]);
    let report = server.tick("").is(200);
    assert_eq!(report.headers["content-type"], "application/json");
    assert_eq!(report.headers["cache-control"], "no-store");
    let report = report.json();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&report), names(&documented("run")[0]));
    let slices = report["slices"].as_array().unwrap();
    assert_eq!(slices.len(), DAYS as usize, "{report}");
    assert!(slices.iter().all(|slice| slice["outcome"] == "succeeded"), "{report}");
    is_right(&place).await;
    is_once(&place).await;
    let request = tick("").replace("GET ", "POST ");
    let request = request.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\n{}");
    let again = server.send(&request).unwrap().is(200).json();
    assert_eq!((&again["slices"], &again["left"]), (&Value::Array(vec![]), &0.into()));
    assert_eq!(server.metric("tallymark_ticks_total{outcome=\"good\"}"), 2.0);
    assert_eq!(server.metric("tallymark_slices_succeeded_total"), f64::from(DAYS));
    assert_eq!(server.metric("tallymark_rows_read_total"), f64::from(DAYS * 240));
}

/// The keys of a document and of the objects in it.
fn keys(value: &Value) -> Vec<String> {
    let own = value.as_object().into_iter().flatten();
    own.flat_map(|(key, value)| [vec![key.clone()], keys(value)].concat()).collect()
}

#[tokio::test]
async fn the_documents_of_the_server_are_as_documented() {
    let (place, _database) = place(STORES[1]).await;
    let [started, running, health] = &documented("serve")[..] else { panic!("three documents") };
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut text = String::new();
    for line in lines {
        text += &line;
        if line == "}" {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(keys(&serde_json::from_str(&text).unwrap()), keys(started));
    let server = Server::with_token(&place, &[]);
    nap(&place, 0.05).await;
    assert_eq!(keys(&server.tick("?wait=false").json()), keys(running));
    nap(&place, 0.0).await;
    let mut found = server.wait_for("the tick ends", has_ended).await;
    // Absent without a trouble and a schedule.
    for key in ["since", "next_tick"] {
        assert_eq!(found[key], Value::Null);
        found[key] = health[key].clone();
    }
    assert_eq!(keys(&found), keys(health));
}

#[tokio::test]
async fn doubled_and_overlapping_calls_compute_every_slice_once() {
    for store in STORES {
        let (place, _database) = place(store).await;
        nap(&place, 0.005).await;
        let servers = [(); 2].map(|()| Server::with_token(&place, &[]));
        let mut calls = Vec::new();
        for server in &servers {
            for _ in 0..4 {
                let address = server.address.clone();
                calls.push(thread::spawn(move || send(&address, &tick("")).unwrap()));
            }
        }
        let replies: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        let reports = replies.iter().filter(|reply| reply.status == 200).count();
        assert!((2..=8).contains(&reports), "{replies:?}");
        for reply in replies.iter().filter(|reply| reply.status != 200) {
            assert_eq!(reply.status, 202, "{reply:?}");
            let told = reply.json();
            assert_eq!(told["state"], "already running");
            assert_eq!(told["running"]["asked_by"], "request");
        }
        // A slice that the other process had is done now, or by this call.
        for server in &servers {
            server.tick("").is(200);
        }
        is_right(&place).await;
        is_once(&place).await;
    }
}

#[tokio::test]
async fn a_call_that_does_not_wait_is_answered_while_its_tick_runs() {
    let (place, _database) = place(STORES[1]).await;
    nap(&place, 0.05).await;
    let server = Server::with_token(&place, &[]);
    let told = server.tick("?wait=false").is(202).json();
    assert_eq!(told["state"], "started");
    wait_for(&place, RUNNING, true).await;
    assert!(is_running(&server.health()));
    assert_eq!(server.tick("").is(202).json()["state"], "already running");
    nap(&place, 0.0).await;
    let health = server.wait_for("the tick ends", has_ended).await;
    assert_eq!(health["status"], "ok", "{health}");
    server.tick("").is(200);
    is_right(&place).await;
}

#[tokio::test]
async fn a_tick_goes_on_when_its_caller_goes_away() {
    for store in STORES {
        let (place, _database) = place(store).await;
        nap(&place, 0.005).await;
        let server = Server::with_token(&place, &[]);
        let mut stream = server.connect();
        stream.write_all(tick("").as_bytes()).unwrap();
        wait_for(&place, RUNNING, true).await;
        drop(stream);
        let health = server.wait_for("the tick ends", has_ended).await;
        assert_eq!(health["last_tick"]["good"], true, "{health}");
        is_right(&place).await;
        is_once(&place).await;
    }
}

#[tokio::test]
async fn a_request_bounds_its_tick_and_the_next_one_finishes() {
    let (place, _database) = place(STORES[1]).await;
    nap(&place, 0.02).await;
    let server = Server::with_token(&place, &[]);
    let report = server.tick("?budget=2s").is(200).json();
    let left = report["left"].as_u64().unwrap();
    assert!(left > 0, "{report}");
    assert!(lines(&place.target_url, ROLLUP).await.len() < DAYS as usize * 3);
    nap(&place, 0.0).await;
    assert_eq!(server.tick("?budget=10h").is(200).json()["left"], 0);
    // The slice may have failed for want of time, and waits for its retry.
    let watch = Stopwatch::start();
    while lines(&place.target_url, ROLLUP).await.len() < DAYS as usize * 3 {
        assert!(watch.elapsed() < 3 * LIMIT, "{}", server.health());
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.tick("").is(200);
    }
    is_right(&place).await;
}

/// A signal in the middle of a tick whose caller waits.
async fn signalled(place: &Place, name: &str, code: i32) {
    nap(place, 0.05).await;
    let server = Server::with_token(place, &[]);
    let address = server.address.clone();
    let call = thread::spawn(move || send(&address, &tick("")));
    wait_for(place, RUNNING, true).await;
    server.signal(name);
    let ended = server.end().await;
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let told = ended.err.lines().filter(|line| line.contains("the same command goes on")).count();
    assert_eq!(told, 1, "{ended:?}");
    assert!(!ended.err.contains("once its lease is over"), "{ended:?}");
    let report = call.join().unwrap().unwrap().is(200).json();
    assert_eq!(report["slices"][0]["reason"], "interrupted", "{report}");
    wait_for(place, RUNNING, false).await;
    for slice in place.json(&["status"])["rollups"][0]["unfinished"].as_array().unwrap() {
        assert_eq!(slice["state"], "yielded", "{slice}");
        assert_eq!((&slice["lease_until"], &slice["failures"]), (&Value::Null, &0.into()));
    }
}

#[tokio::test]
async fn a_signal_in_the_middle_of_a_tick_gives_its_slice_back() {
    for store in STORES {
        let (place, _database) = place(store).await;
        signalled(&place, "TERM", 143).await;
        signalled(&place, "INT", 130).await;
        nap(&place, 0.0).await;
        let server = Server::with_token(&place, &[]);
        assert_eq!(server.tick("").is(200).json()["left"], 0);
        is_right(&place).await;
    }
}

#[tokio::test]
async fn a_tick_that_fails_is_answered_and_told_by_the_health_and_the_log() {
    let (place, database) = place(STORES[1]).await;
    let server = Server::with_token(&place, &["--read-token-env", TOKEN.0]);
    place.sql("ALTER TABLE stats.daily RENAME TO elsewhere").await;
    let report = server.tick("").is(503).json();
    assert_eq!(report["problems"][0]["rollup"], "daily", "{report}");
    let health = server.get("/healthz").is(503).json();
    assert_eq!(health["reasons"][0], "1 rollup could not be worked on", "{health}");
    server.get("/livez").is(200);
    place.sql("ALTER TABLE stats.elsewhere RENAME TO daily").await;
    server.tick("").is(200);
    let health = server.get("/healthz").is(200).json();
    assert_eq!((&health["status"], &health["since"]), (&"ok".into(), &Value::Null));
    is_right(&place).await;
    // Nothing of the server's words is in the open answer.
    place.sql("DROP TABLE tallymark.checkpoint").await;
    let error = server.tick("").is(503).json();
    assert_eq!(error["exit"], 2, "{error}");
    let health = server.get("/healthz").is(503).body;
    assert!(!health.contains("checkpoint"), "{health}");
    server.signal("TERM");
    let ended = server.end().await;
    let problem = ended.err.lines().find(|line| line.contains("rollup has a problem"));
    assert!(problem.is_some_and(|line| line.contains("hint=\"")), "{ended:?}");
    assert!(ended.err.contains("tick failed"), "{ended:?}");
    drop(database);
}
