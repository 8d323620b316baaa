//! The HTTP server refuses what it should, and no client holds it up.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tallymark::model::clock::Stopwatch;

use super::{STORES, is_right, nap, place};
use crate::support::cli::ended;
use crate::support::serving::{LIMIT, Reply, Server, TOKEN, tick};

/// A request with these headers.
fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: tallymark\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_call_without_the_token_or_of_another_form_starts_nothing() {
    let (place, _database) = place(STORES[1]).await;
    let server = Server::with_token(&place, &["--read-token-env", TOKEN.0]);
    let send = |method: &str, path: &str, headers: &str| {
        server.send(&request(method, path, headers)).unwrap()
    };
    let right = format!("Authorization: Bearer {}\r\n", TOKEN.1);
    for wrong in [
        "",
        "Authorization: Bearer t0ken-0f-the-schedule\r\n",
        "Authorization: Bearer t0ken-0f-the-scheduler0\r\n",
        "Authorization: Basic t0ken-0f-the-scheduler\r\n",
        "X-Token: t0ken-0f-the-scheduler\r\n",
        &format!("{right}{right}"),
    ] {
        for path in ["/tick", "/tick?wait=false", "/metrics"] {
            let refused = send("GET", path, wrong).is(401);
            assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"tallymark\"");
        }
    }
    let in_query = format!("/tick?token={}", TOKEN.1);
    send("GET", &in_query, "").is(401);
    for method in ["HEAD", "PUT", "DELETE", "OPTIONS", "BREW"] {
        assert_eq!(send(method, "/tick", &right).is(405).headers["allow"], "GET, POST");
    }
    for page in ["/", "/livez", "/healthz", "/metrics"] {
        assert_eq!(send("POST", page, &right).is(405).headers["allow"], "GET, HEAD");
        assert_eq!(send("HEAD", page, &right).is(200).body, "");
        send("GET", page, &right).is(200);
    }
    for path in ["/ticks", "/tick/", "/%74ick", "//tick", "/healthz/.."] {
        send("GET", path, &right).is(404);
    }
    for query in ["?wait", "?wait=no", "?budget=soon", "?budget=-1s", "?slice=now", &in_query[5..]]
    {
        send("GET", &format!("/tick{query}"), &right).is(400);
    }
    for garbage in
        ["\r\n\r\n", "GET /tick\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n"]
    {
        let reply = server.send(garbage);
        assert!(reply.as_ref().is_none_or(|it| it.status >= 400), "{garbage:?}: {reply:?}");
    }
    let health = server.health();
    assert_eq!((&health["last_tick"], &health["running"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let (place, _database) = place(STORES[1]).await;
    let server = Server::with_token(&place, &[]);
    let right = format!("Authorization: Bearer {}\r\n", TOKEN.1);
    let long = format!("X-Long: {}\r\n", "x".repeat(100_000));
    let many: String = (0..100).map(|n| format!("X-{n}: x\r\n")).collect();
    for headers in [long, many] {
        server.send(&request("GET", "/tick", &format!("{right}{headers}"))).unwrap().is(431);
    }
    let path = format!("/tick?budget={}", "1".repeat(100_000));
    let reply = server.send(&request("GET", &path, &right)).unwrap();
    assert!((400..500).contains(&reply.status), "{reply:?}");
    // Refused by its length alone, and while it is sent.
    let announced = format!("{right}Content-Length: 1000000000\r\n");
    server.send(&request("POST", "/tick", &announced)).unwrap().is(413);
    let chunked = request("POST", "/tick", &format!("{right}Transfer-Encoding: chunked\r\n"));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000));
    server.send(&format!("{chunked}{}0\r\n\r\n", chunk.repeat(3))).unwrap().is(413);
    assert_eq!(server.health()["last_tick"], Value::Null);
    let body = request("POST", "/tick", &format!("{right}Content-Length: 30000\r\n"));
    server.send(&format!("{body}{}", "x".repeat(30_000))).unwrap().is(200);
    is_right(&place).await;
}

/// The files that a process has open, where that can be seen.
fn open_files(server: &Server) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{}/fd", server.pid())).ok()?.count())
}

#[tokio::test]
async fn a_thousand_silent_connections_hold_up_neither_calls_nor_ticks() {
    let (place, _database) = place(STORES[1]).await;
    place.run(&["pause", "--reason", "so that every tick leaves work"]).good();
    let server = Server::with_token(&place, &["--every", "1s"]);
    server.wait_for("the first tick", |health| !health["last_tick"].is_null()).await;
    let before = open_files(&server);
    let (host, port) = server.address.rsplit_once(':').unwrap();
    // A shell holds them, as this process may not open as many files.
    let silent = format!(
        "ulimit -n 2048; for n in $(seq 1000); do exec {{it}}<>/dev/tcp/{host}/{port} || exit 1; \
         done; echo connected; cat"
    );
    let mut clients = Command::new("bash")
        .args(["-c", &silent])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(clients.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "connected\n");
    let most = before.map(|before| before + 200);
    assert!(open_files(&server) <= most, "{:?}", open_files(&server));
    let ticks = "tallymark_ticks_total{outcome=\"good\"}";
    let began = server.metric(ticks);
    place.run(&["resume"]).good();
    server.tick("").is(200);
    let watch = Stopwatch::start();
    while server.metric(ticks) <= began || server.metric("tallymark_slices_due") > 0.0 {
        assert!(watch.elapsed() < LIMIT, "{}", server.health());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    is_right(&place).await;
    drop(clients.stdin.take());
    clients.wait().unwrap();
    // The connections of databases may come and go.
    let few = before.map(|before| before + 5);
    while open_files(&server) > few {
        assert!(watch.elapsed() < LIMIT, "{before:?} files, now {:?}", open_files(&server));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_client_that_sends_slowly_is_cut_off_and_others_are_served() {
    let (place, _database) = place(STORES[1]).await;
    nap(&place, 0.0).await;
    let server = Server::with_token(&place, &[]);
    let mut slow = server.connect();
    slow.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let watch = Stopwatch::start();
    let mut bytes = "GET /tick HTTP/1.1\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x'));
    loop {
        assert!(watch.elapsed() < LIMIT, "it is still connected");
        let sent = slow.write_all(&[bytes.next().unwrap()]);
        let mut answer = [0; 512];
        // A time-out means that it is still connected.
        let read = slow.read(&mut answer);
        let is_open = read.as_ref().is_err_and(|it| it.kind() == std::io::ErrorKind::WouldBlock);
        if sent.is_err() || !is_open {
            break;
        }
    }
    // A body that never comes.
    let mut slow = server.connect();
    let head = tick("").replace("\r\n\r\n", "\r\nContent-Length: 10\r\n\r\n");
    slow.write_all(head.as_bytes()).unwrap();
    server.tick("").is(200);
    Reply::read(&slow).unwrap().is(408);
    is_right(&place).await;
}

#[tokio::test]
async fn no_server_starts_that_every_machine_could_make_tick() {
    let (place, _database) = place(STORES[1]).await;
    let serve = |arguments: &[&str], token: Option<&str>| {
        let mut command = place.command(&[&["serve"], arguments].concat());
        token.map(|token| command.env(TOKEN.0, token));
        let ended = ended(&mut command);
        assert!(
            token.is_none_or(|token| token.is_empty() || !ended.err.contains(token)),
            "{ended:?}"
        );
        ended
    };
    for outside in ["0.0.0.0:0", "[::]:0"] {
        serve(&["--listen", outside, "--every", "5m"], None)
            .refused(2, &["hint: --tick-token-env"]);
    }
    let asked = ["--listen", "0.0.0.0:0", "--tick-token-env", TOKEN.0];
    serve(&asked, None).refused(2, &[TOKEN.0, "not set", "hint: openssl rand"]);
    serve(&asked, Some("")).refused(2, &["is empty"]);
    serve(&asked, Some("5h0rt-t0ken")).refused(2, &["only 11 characters"]);
    serve(&asked, Some("t0ken of the scheduler")).refused(2, &["white space"]);
    serve(&["--listen", "127.0.0.1:$PORT"], None).refused(2, &["PORT is not set"]);
    serve(&["--listen", "8080"], None).refused(2, &["hint: 0.0.0.0:8080"]);
    let server = Server::with_token(&place, &[]);
    serve(&["--listen", &server.address], None).refused(1, &["cannot listen", &server.address]);
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:$PORT"]);
    command.env("PORT", "0");
    let server = Server::of(command);
    // Open to this machine, as no token is set.
    server.send("POST /tick HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap().is(200);
    is_right(&place).await;
}

#[tokio::test]
async fn prometheus_can_read_the_metrics() {
    let (place, _database) = place(STORES[1]).await;
    let server = Server::with_token(&place, &[]);
    for _ in 0..2 {
        let reply = server.get("/metrics").is(200);
        assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let mut described = Vec::new();
        for line in reply.body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let words: Vec<_> = comment.splitn(3, ' ').collect();
                match words[0] {
                    "HELP" => assert!(!described.contains(&words[1].to_owned()), "{line}"),
                    "TYPE" => {
                        assert!(["counter", "gauge"].contains(&words[2]), "{line}");
                        assert_eq!(words[2] == "counter", words[1].ends_with("_total"), "{line}");
                        described.push(words[1].to_owned());
                    }
                    other => panic!("{other}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert_eq!(described.last().map(String::as_str), Some(name), "{line}");
            assert!(name.starts_with("tallymark_"), "{line}");
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{line}");
        }
        server.tick("").is(200);
    }
    let documented = include_str!("../../../docs/METRICS.md");
    for line in server.get("/metrics").body.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(documented.contains(&format!("`{name}")), "{name}");
    }
}
