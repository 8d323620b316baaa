//! Who may do what: each address of the server, for each kind of caller.

use super::console::{OPERATOR, READER, bearer, form_token, get, server};
use super::{STORES, place};
use crate::support::cli::lines;
use crate::support::serving::{Reply, Server, TOKEN, send};

/// What a browser sends with a request of another site's page.
const ELSEWHERE: &str = "Origin: https://other.example\r\nSec-Fetch-Site: cross-site\r\n";

/// Addresses with the status that each caller is answered with. A tick is asked for in words that
/// it refuses with 400, so that nothing runs; whoever has no right to it gets another answer.
type Table<const CALLERS: usize> = [(&'static str, &'static str, [u16; CALLERS])];

/// A server with three tokens. The callers: without a token, with a wrong one, the reader, the
/// operator, the scheduler, and the operator's browser for a page of another site.
const WITH_TOKENS: &Table<6> = &[
    ("GET", "/", [401, 401, 200, 200, 401, 200]),
    ("GET", "/rollup/daily", [401, 401, 200, 200, 401, 200]),
    ("GET", "/rollup/daily?slice=SLICE", [401, 401, 200, 200, 401, 200]),
    ("GET", "/rollup/daily?chart=events", [401, 401, 200, 200, 401, 200]),
    ("GET", "/rollup/none", [401, 401, 404, 404, 401, 404]),
    ("GET", "/action/1", [401, 401, 404, 404, 401, 404]),
    ("GET", "/metrics", [401, 401, 200, 200, 401, 200]),
    ("GET", "/healthz", [200, 200, 200, 200, 200, 200]),
    ("GET", "/livez", [200, 200, 200, 200, 200, 200]),
    ("GET", "/tick?wait=no", [401, 401, 401, 401, 400, 401]),
    ("POST", "/tick?wait=no", [401, 401, 401, 401, 400, 401]),
    ("POST", "/act", [401, 401, 403, 303, 401, 403]),
    ("GET", "/act", [405, 405, 405, 405, 405, 405]),
    ("DELETE", "/rollup/daily", [405, 405, 405, 405, 405, 405]),
    ("GET", "/elsewhere", [404, 404, 404, 404, 404, 404]),
];

/// A server of this machine without any token. The callers: by the name of this machine, by
/// another name, and by this machine's name from a page of another site.
const WITHOUT_TOKENS: &Table<3> = &[
    ("GET", "/", [200, 403, 200]),
    ("GET", "/rollup/daily", [200, 403, 200]),
    ("GET", "/metrics", [200, 403, 200]),
    ("GET", "/healthz", [200, 200, 200]),
    ("GET", "/tick?wait=no", [400, 403, 403]),
    ("POST", "/tick?wait=no", [400, 403, 403]),
    ("POST", "/act", [403, 403, 403]),
];

/// A server that other machines reach, whose only token is that of ticks. The callers: without a
/// token, and the scheduler.
const OUTSIDE: &Table<2> = &[
    ("GET", "/", [403, 403]),
    ("GET", "/rollup/daily", [403, 403]),
    ("GET", "/metrics", [403, 403]),
    ("GET", "/healthz", [200, 200]),
    ("GET", "/tick?wait=no", [401, 400]),
    ("POST", "/act", [403, 403]),
];

/// Asks for each address as each of `callers`, whose headers they are. `form` is what a form holds.
fn ask<const CALLERS: usize>(
    address: &str,
    table: &Table<CALLERS>,
    callers: [&str; CALLERS],
    form: &str,
) {
    let mut wrong = Vec::new();
    for (method, path, statuses) in table {
        for (caller, status) in callers.iter().zip(statuses) {
            let body = if *method == "POST" { form } else { "" };
            let request = format!(
                "{method} {path} HTTP/1.1\r\n{caller}Content-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let reply = send(address, &request).unwrap();
            if reply.status != *status {
                wrong.push(format!("{method} {path} by {caller:?}: {}", reply.status));
            }
            is_kept_apart(&reply);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// No page of another site may read an answer, or show it in a frame.
fn is_kept_apart(reply: &Reply) {
    assert!(!reply.headers.contains_key("access-control-allow-origin"), "{reply:?}");
    let policy = &reply.headers["content-security-policy"];
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(reply.headers["x-frame-options"], "DENY");
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn each_address_answers_each_caller_as_the_table_says() {
    let (place, _database) = place(STORES[1]).await;
    let with_tokens = server(&place);
    let page = get(&with_tokens, "/", &bearer(OPERATOR.1)).is(200).body;
    // The best form that a caller could send.
    let token = form_token(&page).unwrap().replace('+', "%2B").replace('=', "%3D");
    let form = format!("action=pause&reason=table&token={token}");
    let slice = format!("{}T00:00:00Z", crate::support::cli::day(1));
    let table = WITH_TOKENS.iter().map(|(method, path, statuses)| {
        let path: &'static str = path.replace("SLICE", &slice).leak();
        (*method, path, *statuses)
    });
    let host = |more: &str| format!("Host: console\r\n{more}");
    let operator = bearer(OPERATOR.1);
    let callers = [
        host(""),
        host(&bearer("t0ken-0f-nobody-at-all")),
        host(&bearer(READER.1)),
        host(&operator),
        host(&bearer(TOKEN.1)),
        host(&format!("{operator}{ELSEWHERE}")),
    ];
    ask(
        &with_tokens.address,
        &table.collect::<Vec<_>>(),
        callers.each_ref().map(|it| &**it),
        &form,
    );
    let control = place.json(&["status"])["control"].clone();
    assert_eq!(control.as_array().map(Vec::len), Some(1), "one caller acted, once: {control}");
    place.run(&["resume"]).good();

    let open = Server::start(&place, &[]);
    let callers = [
        "Host: localhost\r\n",
        "Host: other.example\r\n",
        &format!("Host: localhost\r\n{ELSEWHERE}"),
    ];
    ask(&open.address, WITHOUT_TOKENS, callers, &form);

    let mut command =
        place.command(&["serve", "--listen", "0.0.0.0:0", "--tick-token-env", TOKEN.0]);
    command.env(TOKEN.0, TOKEN.1);
    let outside = Server::of(command);
    let address = outside.address.replace("0.0.0.0", "127.0.0.1");
    let scheduler = format!("Host: localhost\r\n{}", bearer(TOKEN.1));
    ask(&address, OUTSIDE, ["Host: localhost\r\n", &scheduler], &form);

    assert_eq!(place.json(&["status"])["control"], serde_json::json!([]));
    let attempts = lines(&place.target_url, super::ATTEMPTS).await;
    assert!(attempts.is_empty(), "nothing was computed: {attempts:?}");
}
