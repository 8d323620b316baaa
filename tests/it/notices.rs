//! `[notify]`: a real receiver hears of trouble, by the real program.

mod planted;
mod story;

use std::io::BufReader;
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, Utc};
use serde_json::Value;
use tallymark::model::clock::{Clock as _, SystemClock};

use crate::support::cli::{Ended, PASSWORD, Place, daily, day, ended};
use crate::support::http::{Request, respond};
use crate::support::listening::Listening;

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Takes,
    IsDown,
    NeverAnswers,
    Redirects,
}

/// A receiver of notices and of signs of life.
struct Receiver {
    server: Listening,
    manner: Arc<Mutex<Manner>>,
    /// The requests that it took: path and body.
    taken: Arc<Mutex<Vec<(String, String)>>>,
    /// The bodies of notices that it never answers.
    held: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn start() -> Self {
        let manner = Arc::new(Mutex::new(Manner::Takes));
        let taken = Arc::<Mutex<Vec<_>>>::default();
        let held = Arc::<Mutex<Vec<_>>>::default();
        let (now, list, kept) = (Arc::clone(&manner), Arc::clone(&taken), Arc::clone(&held));
        let server = Listening::start(move |client: TcpStream| {
            let mut reader = BufReader::new(&client);
            while let Some(request) = Request::read(&mut reader) {
                let manner = *now.lock().unwrap();
                let (status, headers) = match manner {
                    Manner::Takes => ("200 OK", ""),
                    Manner::IsDown => ("503 Service Unavailable", ""),
                    Manner::Redirects => ("302 Found", "Location: /elsewhere\r\n"),
                    Manner::NeverAnswers => {
                        if request.path.ends_with("/hook") {
                            kept.lock().unwrap().push(String::from_utf8(request.body).unwrap());
                        }
                        // The client gives up first.
                        while Request::read(&mut reader).is_some() {}
                        return;
                    }
                };
                if manner == Manner::Takes || request.path.contains("elsewhere") {
                    let body = String::from_utf8(request.body).unwrap();
                    list.lock().unwrap().push((request.path, body));
                }
                if respond(&client, status, headers, b"").is_none() {
                    return;
                }
            }
        });
        Self { server, manner, taken, held }
    }

    /// A command that knows both addresses, whose secret parts no output may show.
    fn command(&self, place: &Place, arguments: &[&str]) -> Command {
        let address = |path: &str| format!("{}/{PASSWORD}/{path}", self.server.endpoint());
        let mut command = place.command(arguments);
        command.env("HOOK", address("hook")).env("PING", address("ping"));
        command
    }

    fn run(&self, place: &Place, arguments: &[&str]) -> Ended {
        ended(&mut self.command(place, arguments))
    }

    /// The only notice since the last call.
    fn told(&self) -> Value {
        let (notices, _) = self.heard();
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        notice.clone()
    }

    /// The notices and the number of signs of life since the last call.
    fn heard(&self) -> (Vec<Value>, usize) {
        let taken = std::mem::take(&mut *self.taken.lock().unwrap());
        let (pings, posts): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|(path, _)| path.ends_with("/ping"));
        let mut notices = Vec::new();
        for (path, body) in posts {
            assert!(path.ends_with("/hook"), "{path}");
            assert!(!body.contains(PASSWORD), "{body}");
            let document: Value = serde_json::from_str(&body).unwrap();
            notices.extend(document["notices"].as_array().unwrap().iter().cloned());
        }
        (notices, pings.len())
    }
}

/// From "slices are exhausted" to "they are right again", with a receiver that is up, down, silent,
/// or elsewhere. Work goes on as if nobody heard.
#[tokio::test]
async fn trouble_is_told_once_and_its_end_too_whatever_the_receiver_does() {
    for store in ["", "store = \"postgres\"\n"] {
        let (place, _database) = Place::with_events(2).await;
        let rollups =
            daily(2).replace("{ sum = \"amount\" }", "{ sum = { sql = \"1 / amount\" } }");
        place.configure(&format!(
            "[checkpoint]\nfailures_max = 1\n{store}\n\
             [notify]\nurl = {{ env = \"HOOK\" }}\nformat = \"json\"\nping = {{ env = \"PING\" }}\n\
             {rollups}"
        ));
        let receiver = Receiver::start();
        receiver.run(&place, &["init"]).good();
        assert_eq!(receiver.heard(), (vec![], 0));

        let failed = receiver.run(&place, &["run"]);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        let (notices, pings) = receiver.heard();
        let [begin] = &notices[..] else { panic!("{notices:?} after {failed:?}") };
        assert_eq!((&begin["kind"], &begin["phase"]), (&"exhausted".into(), &"begin".into()));
        let text = begin["text"].as_str().unwrap();
        assert!(text.starts_with("2 slices of daily failed too often"), "{text}");
        // A server's own words may hold a row.
        assert!(!text.contains("division"), "{text}");
        assert_eq!(pings, 1, "the tick itself is alive");

        receiver.run(&place, &["run"]).good();
        assert_eq!(receiver.heard(), (vec![], 1));

        place.sql("UPDATE events SET amount = 1 WHERE amount = 0").await;
        receiver.run(&place, &["replay", "daily", "--failed", "--yes"]).good();
        for manner in [Manner::IsDown, Manner::NeverAnswers, Manner::Redirects] {
            *receiver.manner.lock().unwrap() = manner;
            receiver.run(&place, &["run"]).good();
            assert_eq!(receiver.heard(), (vec![], 0), "{manner:?}");
        }
        *receiver.manner.lock().unwrap() = Manner::Takes;
        receiver.run(&place, &["run"]).good();
        let (notices, _) = receiver.heard();
        let [end] = &notices[..] else { panic!("{notices:?}") };
        assert_eq!((&end["kind"], &end["phase"]), (&"exhausted".into(), &"end".into()));
        assert_eq!(end["since"], begin["since"]);
        receiver.run(&place, &["run"]).good();
        assert_eq!(receiver.heard(), (vec![], 1));
    }
}

/// Most rows of a day never arrived. It is told beside the weekdays before it, and so is its end.
#[tokio::test]
async fn a_day_with_a_part_of_its_rows_is_told() {
    let (place, _database) = Place::with_events(36).await;
    place.configure(&format!("{HEAD}{}", daily(36)));
    let receiver = Receiver::start();
    let newest = format!("at >= '{}'", yesterday().to_rfc3339());
    place.sql(&format!("CREATE TABLE gone AS SELECT * FROM events WHERE {newest}")).await;
    place.sql(&format!("DELETE FROM events WHERE {newest} AND random() < 0.9")).await;
    receiver.run(&place, &["init"]).good();
    receiver.run(&place, &["backfill", "daily", "--yes"]).good();
    receiver.run(&place, &["run"]).good();
    let (notices, _) = receiver.heard();
    let [begin] = &notices[..] else { panic!("{notices:?}") };
    assert_eq!((&begin["kind"], &begin["phase"]), (&"numbers".into(), &"begin".into()));
    let text = begin["text"].as_str().unwrap();
    assert!(text.contains(" and about 240 are usual"), "{text}");
    receiver.run(&place, &["run"]).good();
    assert_eq!(receiver.heard(), (vec![], 0));

    // A replay by hand, and a tick that only sees it, wait for the next day. A tick that does the
    // work itself sees that it is right.
    let arrived =
        format!("DELETE FROM events WHERE {newest}; INSERT INTO events SELECT * FROM gone");
    place.sql(&arrived).await;
    let (store, now) = (place.checkpoints(), SystemClock.now());
    store.reopen("daily", yesterday(), "the rows arrived", now).await.unwrap();
    receiver.run(&place, &["run"]).good();
    let (notices, _) = receiver.heard();
    let [end] = &notices[..] else { panic!("{notices:?}") };
    assert_eq!((&end["kind"], &end["phase"]), (&"numbers".into(), &"end".into()));

    // Limits of the user's own, of measures.
    let limits = "expect = { events = { min = 1000 }, revenue = { drop = \"99%\" } }";
    let limited = daily(36).replace("[rollup.measures]", &format!("{limits}\n[rollup.measures]"));
    place.configure(&format!("{HEAD}{limited}"));
    store.reopen("daily", yesterday(), "a limit", SystemClock.now()).await.unwrap();
    receiver.run(&place, &["run"]).good();
    let begin = receiver.told();
    assert_eq!((&begin["kind"], &begin["phase"]), (&"numbers".into(), &"begin".into()));
    let text = begin["text"].as_str().unwrap();
    assert!(text.ends_with("look wrong: events is 240, and at least 1000 is expected"), "{text}");
    receiver.run(&place, &["run"]).good();
    assert_eq!(receiver.heard(), (vec![], 0));
}

const HEAD: &str = "[checkpoint]\nstore = \"postgres\"\n[notify]\nurl = { env = \"HOOK\" }\n\
                    format = \"json\"\n";

/// The start of the newest slice of `daily`.
fn yesterday() -> DateTime<Utc> {
    day(1).and_time(NaiveTime::MIN).and_utc()
}

/// `serve` tells too, and a receiver that never answers keeps it from nothing.
#[tokio::test]
async fn a_server_tells_of_its_ticks() {
    let (place, _database) = Place::with_events(1).await;
    place.configure(&format!(
        "[notify]\nping = {{ env = \"PING\" }}\n[checkpoint]\nstore = \"postgres\"\n{}",
        daily(1)
    ));
    let receiver = Receiver::start();
    receiver.run(&place, &["init"]).good();
    let address = format!("{}/ping", receiver.server.endpoint());
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--every", "1s"];
    let mut command = place.command(&arguments);
    let mut server = command.env("PING", address).spawn().unwrap();
    let mut pings = 0;
    for _ in 0..6_000 {
        pings += receiver.heard().1;
        if pings > 0 {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(pings > 0);
}
