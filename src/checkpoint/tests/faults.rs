//! A faulty network and a faulty DynamoDB: a proxy that answers with errors or loses replies.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;

use super::{Fixture, ROLLUP, at, checkpoints_in, claim, outcome, start, turn};
use crate::checkpoint::store::StoreError;
use crate::checkpoint::{Backfill, CheckpointError, Checkpoints, State};
use crate::config::Config;
use crate::embedded::dynamodb::client_of;
use crate::model::slice::Order;

/// The fault of the next request. After the end of the script there are none.
#[derive(Clone, Copy, Debug)]
enum ProxyFault {
    /// It is answered with this status and error type, and never forwarded.
    Answer(u16, &'static str),
    /// It is forwarded, and the connection is closed instead of the reply.
    LoseReply,
    /// It is forwarded normally.
    Forward,
}

const THROTTLED: ProxyFault = ProxyFault::Answer(400, "ProvisionedThroughputExceededException");
const BROKEN: ProxyFault = ProxyFault::Answer(500, "InternalServerError");
const DENIED: ProxyFault = ProxyFault::Answer(400, "AccessDeniedException");

/// A proxy in front of the fixture's server.
struct Proxy {
    checkpoints: Checkpoints,
    script: Arc<Mutex<VecDeque<ProxyFault>>>,
}

impl Proxy {
    fn new(fixture: &Fixture) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let upstream = fixture.dynamo().endpoint().replace("http://", "");
        let script = Arc::new(Mutex::new(VecDeque::new()));
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (script, upstream) = (Arc::clone(&shared), upstream.clone());
                // An error means that one side closed its connection.
                std::thread::spawn(move || relay(client, &upstream, &script).unwrap_or(()));
            }
        });
        let checkpoints = checkpoints_in(client_of(&endpoint), "tallymark");
        Self { checkpoints, script }
    }

    fn plan<const N: usize>(&self, faults: [ProxyFault; N]) {
        self.script.lock().unwrap().extend(faults);
    }

    fn is_over(&self) -> bool {
        self.script.lock().unwrap().is_empty()
    }
}

fn relay(
    client: TcpStream,
    upstream: &str,
    script: &Mutex<VecDeque<ProxyFault>>,
) -> std::io::Result<()> {
    let mut requests = BufReader::new(client.try_clone()?);
    let mut client = client;
    let mut server = TcpStream::connect(upstream)?;
    let mut replies = BufReader::new(server.try_clone()?);
    loop {
        let request = message(&mut requests)?;
        let fault = script.lock().unwrap().pop_front();
        if let Some(ProxyFault::Answer(status, code)) = fault {
            let body = format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"so planned"}}"#
            );
            write!(
                client,
                "HTTP/1.1 {status} Fault\r\ncontent-type: application/x-amz-json-1.0\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )?;
            continue;
        }
        server.write_all(&request)?;
        let reply = message(&mut replies)?;
        if matches!(fault, Some(ProxyFault::LoseReply)) {
            return Ok(());
        }
        client.write_all(&reply)?;
    }
}

/// One HTTP message: its head, and a body of the length that the head states.
fn message(from: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(line.as_bytes());
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    from.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[tokio::test]
async fn throttling_and_internal_errors_are_retried() {
    let fixture = Fixture::in_dynamodb().await;
    let proxy = Proxy::new(&fixture);
    for fault in [THROTTLED, BROKEN] {
        proxy.plan([fault, fault]);
        assert_eq!(proxy.checkpoints.get(ROLLUP, start()).await.unwrap(), None);
        assert!(proxy.is_over());
    }
}

#[tokio::test]
async fn throttling_that_does_not_end_is_reported_as_retryable() {
    let fixture = Fixture::in_dynamodb().await;
    let proxy = Proxy::new(&fixture);
    proxy.plan([THROTTLED; 3]);
    let error = proxy.checkpoints.get(ROLLUP, start()).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Store(StoreError::Throttled { .. })), "{error}");
    assert!(error.is_retryable() && !error.is_unreachable());
    assert!(error.to_string().contains("so planned"), "{error}");
    assert!(std::error::Error::source(&error).is_some());

    proxy.plan([BROKEN; 3]);
    let error = proxy.checkpoints.get(ROLLUP, start()).await.unwrap_err();
    assert!(
        matches!(error, CheckpointError::Store(StoreError::Other { .. })) && error.is_retryable(),
        "{error}"
    );
}

#[tokio::test]
async fn a_denial_is_reported_at_once_and_not_retryable() {
    let fixture = Fixture::in_dynamodb().await;
    let proxy = Proxy::new(&fixture);
    proxy.plan([DENIED]);
    let error = proxy.checkpoints.get(ROLLUP, start()).await.unwrap_err();
    assert!(
        matches!(error, CheckpointError::Store(StoreError::Denied { .. })) && !error.is_retryable(),
        "{error}"
    );
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_still_gives_the_lease() {
    let fixture = Fixture::in_dynamodb().await;
    let proxy = Proxy::new(&fixture);
    proxy.plan([ProxyFault::LoseReply]);
    let lease = claim(&proxy.checkpoints, 0).await.unwrap();
    assert!(proxy.is_over());
    assert_eq!((lease.attempt(), lease.claimed_from()), (1, None));
}

/// The takeover must not look like a takeover of itself.
#[tokio::test]
async fn a_takeover_whose_reply_was_lost_still_tells_what_it_took_over() {
    let fixture = Fixture::in_dynamodb().await;
    let proxy = Proxy::new(&fixture);
    fixture.claim(0).await.unwrap();
    proxy.plan([ProxyFault::LoseReply, ProxyFault::LoseReply]);
    let lease = claim(&proxy.checkpoints, 100).await.unwrap();
    assert_eq!((lease.attempt(), lease.is_takeover()), (2, true));
}

#[tokio::test]
async fn an_ending_whose_reply_was_lost_is_a_success() {
    let fixture = Fixture::in_dynamodb().await;
    let proxy = Proxy::new(&fixture);
    let checkpoints = &proxy.checkpoints;

    let lease = fixture.claim(0).await.unwrap();
    proxy.plan([ProxyFault::LoseReply]);
    let state = checkpoints.yield_(&lease, &turn("not settled", None), at(1)).await.unwrap();
    assert_eq!(state, State::Yielded);

    let lease = fixture.claim(2).await.unwrap();
    proxy.plan([ProxyFault::LoseReply]);
    let failure = checkpoints.fail(&lease, "refused", true, at(3)).await.unwrap();
    assert_eq!((failure.state, failure.failures), (State::Failed, 1));

    let lease = fixture.claim(1_000).await.unwrap();
    proxy.plan([ProxyFault::LoseReply]);
    let state = checkpoints.complete(&lease, &outcome(), at(1_001)).await.unwrap();
    assert_eq!(state, State::Succeeded);
    assert!(proxy.is_over());
}

/// Otherwise its planner would believe that another planner wrote it, and stop.
#[tokio::test]
async fn a_backfill_whose_reply_was_lost_is_written() {
    let fixture = Fixture::in_dynamodb().await;
    let proxy = Proxy::new(&fixture);
    let checkpoints = &proxy.checkpoints;
    let text = "[source]\nurl = \"postgres://app@db/x\"\n[[rollup]]\nname = \"hourly\"\nfrom = \"events\"\n\
        time = \"at\"\nstart = \"2025-01-01\"\nslice = \"1 hour\"\nmeasures = { events = \"count\" }\n";
    let config = Config::parse("tallymark.toml".as_ref(), text, &|_| None).unwrap();
    let (range, nanosecond) = ((at(0), at(7_200)), TimeDelta::nanoseconds(1));
    let order = Order::OldestFirst;
    let mut backfill = Backfill::new(&config.rollups[0], range, order, false, "", at(0));
    let mut other = backfill.clone();
    for number in 1..=3 {
        (backfill.sent, backfill.sent_at) = (number, Some(at(1) + nanosecond));
        proxy.plan([ProxyFault::LoseReply]);
        assert!(checkpoints.write_backfill(&mut backfill).await.unwrap());
    }
    assert!(proxy.is_over());
    // A write of another planner stays.
    other.sent = 4;
    assert!(!checkpoints.write_backfill(&mut other).await.unwrap());
    let stored = checkpoints.backfill("hourly", &backfill.id).await.unwrap().unwrap();
    assert_eq!(stored.sent, 3);
}

/// No tick would find such a slice behind the watermark. A reopening that is interrupted at any of
/// its requests happens completely or not at all, and when replies are lost it happens once.
#[tokio::test]
async fn a_reopening_that_breaks_off_leaves_no_slice_behind_the_watermark() {
    for lost in 0..4 {
        for fault in [DENIED, ProxyFault::LoseReply] {
            let fixture = Fixture::in_dynamodb().await;
            let proxy = Proxy::new(&fixture);
            fixture.succeed(0).await;
            let checkpoints = &fixture.checkpoints;
            let unknown = checkpoints.watermark(ROLLUP).await.unwrap();
            let behind = start() + chrono::TimeDelta::days(1);
            assert!(checkpoints.advance_watermark(ROLLUP, &unknown, behind, None).await.unwrap());
            for _ in 0..lost {
                proxy.plan([ProxyFault::Forward]);
            }
            proxy.plan([fault]);
            let reopened = proxy.checkpoints.reopen(ROLLUP, start(), "replay", at(9)).await;
            assert_eq!(reopened.is_ok(), matches!(fault, ProxyFault::LoseReply), "{reopened:?}");
            assert!(proxy.is_over());
            let found = checkpoints.get(ROLLUP, start()).await.unwrap().unwrap();
            let until = checkpoints.watermark(ROLLUP).await.unwrap().until();
            let is_made = found.state == State::Stale;
            assert!(is_made || reopened.is_err(), "{lost} {fault:?}");
            let expected = if is_made { (1, Some(start())) } else { (0, Some(behind)) };
            assert_eq!((found.dirty, until), expected, "request {lost}, {fault:?}");
        }
    }
}

/// If the watermark fell first, it could be advanced again over slices that are not marked yet, and
/// a crash in between would leave marks that no tick sees.
#[tokio::test]
async fn many_reopenings_that_break_off_have_not_lowered_the_watermark_before_all_are_marked() {
    let starts = [0, 1].map(|days| start() + chrono::TimeDelta::days(days));
    let behind = start() + chrono::TimeDelta::days(3);
    for forwarded in 0..4 {
        let fixture = Fixture::in_dynamodb().await;
        let proxy = Proxy::new(&fixture);
        let checkpoints = &fixture.checkpoints;
        let unknown = checkpoints.watermark(ROLLUP).await.unwrap();
        assert!(checkpoints.advance_watermark(ROLLUP, &unknown, behind, None).await.unwrap());
        (0..forwarded).for_each(|_| proxy.plan([ProxyFault::Forward]));
        proxy.plan([DENIED]);
        let reopened = proxy.checkpoints.reopen_all(ROLLUP, &starts, "late data", at(9)).await;
        // Two requests to mark, one to lower.
        assert_eq!(reopened.is_ok(), forwarded == 3, "{reopened:?}");
        let marked = checkpoints.unfinished(ROLLUP).await.unwrap().len();
        let until = checkpoints.watermark(ROLLUP).await.unwrap().until();
        assert!(until == Some(behind) || marked == 2, "lowered after {forwarded} requests");
        assert_eq!(reopened.is_ok(), until == Some(start()));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let nowhere = checkpoints_in(client_of(&endpoint), "tallymark");
    let error = nowhere.get(ROLLUP, start()).await.unwrap_err();
    assert!(error.is_unreachable() && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}
