//! Trouble of servers, planted in one database: it is told in time, once, by whoever is left to tell.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tallymark::model::clock::Stopwatch;

use super::{HEAD, Manner, Receiver};
use crate::support::cli::{Ended, Place, daily, ended, signal};
use crate::support::serving::LIMIT;

/// A place whose clock can go forward.
struct Site {
    place: Place,
    receiver: Receiver,
    clock: PathBuf,
}

impl Site {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.receiver.command(&self.place, arguments);
        command.env("TALLYMARK_FAULTS_CLOCK", &self.clock);
        command
    }

    /// Ticks when it is so many seconds later.
    fn tick(&self, seconds: u32) -> Ended {
        fs::write(&self.clock, seconds.to_string()).unwrap();
        ended(&mut self.command(&["run"]))
    }
}

#[tokio::test]
async fn trouble_of_servers_is_told_in_time_and_a_killed_worker_leaves_it_to_the_next() {
    let (mut place, _database) = Place::with_events(2).await;
    place.stop_dynamo();
    let head = format!("{HEAD}ping = {{ env = \"PING\" }}\nconsole = \"http://localhost:8080\"\n");
    place.configure(&format!("{head}{}", daily(2)));
    let (receiver, clock) = (Receiver::start(), place.config().with_file_name("clock"));
    let site = Site { place, receiver, clock };
    let (place, receiver) = (&site.place, &site.receiver);
    receiver.run(place, &["init"]).good();
    a_trial_is_answered(receiver, place);

    place.sql("ALTER TABLE events RENAME amount TO cents").await;
    site.tick(0).refused(2, &[]);
    assert_eq!(receiver.heard(), (vec![], 0), "it may pass; and the tick was not good");
    site.tick(660).refused(2, &[]);
    let begin = receiver.told();
    assert_eq!((&begin["kind"], &begin["phase"]), (&"stopped".into(), &"begin".into()));
    assert_eq!(begin["link"], "http://localhost:8080/rollup/daily");
    site.tick(960).refused(2, &[]);
    assert_eq!(receiver.heard(), (vec![], 0));

    place.sql("ALTER TABLE events RENAME cents TO amount").await;
    *receiver.manner.lock().unwrap() = Manner::NeverAnswers;
    let mut command = site.command(&["run"]);
    let mut killed = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let watch = Stopwatch::start();
    while receiver.held.lock().unwrap().is_empty() {
        assert!(watch.elapsed() < LIMIT, "nothing is sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal(killed.id(), "KILL");
    killed.wait().unwrap();
    let held: Value = serde_json::from_str(&receiver.held.lock().unwrap()[0]).unwrap();
    *receiver.manner.lock().unwrap() = Manner::Takes;
    let check = receiver.run(place, &["check", "--notify"]);
    assert!(check.words().contains("1 notice not sent since"), "{check:?}");
    assert_eq!(receiver.told()["kind"], "trial");
    // By an earlier clock: a slow machine does not reach the end of the killed one's time.
    site.tick(900).good();
    assert_eq!(receiver.heard(), (vec![], 1), "the killed one may be sending");
    site.tick(1_200).good();
    let end = receiver.told();
    assert_eq!((&end["kind"], &end["phase"]), (&"stopped".into(), &"end".into()));
    assert_eq!(end["id"], held["notices"][0]["id"], "a receiver can tell it from another");

    let captured = daily(2).replace("slice = ", "late = \"capture\"\nslice = ");
    place.configure(&format!("{head}{captured}"));
    site.tick(1_300);
    let begin = receiver.told();
    assert_eq!((&begin["kind"], &begin["phase"]), (&"capture".into(), &"begin".into()));
    receiver.run(place, &["capture", "install"]).good();
    site.tick(1_600);
    let end = receiver.told();
    assert_eq!((&end["kind"], &end["phase"]), (&"capture".into(), &"end".into()));
}

/// `check --notify` says what the receiver answers, and asks no dead-man's service.
fn a_trial_is_answered(receiver: &Receiver, place: &Place) {
    let check = receiver.run(place, &["check", "--notify"]);
    assert!(check.words().contains("127.0.0.1 answers with status 200"), "{check:?}");
    let (notices, pings) = receiver.heard();
    assert_eq!((notices.len(), &notices[0]["kind"], pings), (1, &"trial".into(), 0));
    *receiver.manner.lock().unwrap() = Manner::Redirects;
    let check = receiver.run(place, &["check", "--notify"]);
    assert_eq!(check.code, Some(2), "{check:?}");
    assert!(check.words().contains("bad notify: a trial notice was not taken"), "{check:?}");
    *receiver.manner.lock().unwrap() = Manner::Takes;
    assert_eq!(receiver.heard(), (vec![], 0));
}
