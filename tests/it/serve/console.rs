//! The console over HTTP: what it shows, who may act, and what an action does.

use std::time::Duration;

use tallymark::model::clock::Stopwatch;

use super::{STORES, is_right, place};
use crate::support::cli::{Place, day, lines};
use crate::support::serving::{Reply, Server, TOKEN};
use crate::support::until;

/// The variables and tokens of readers and operators.
pub(super) const READER: (&str, &str) = ("CONSOLE_READER", "t0ken-0f-the-readers");
pub(super) const OPERATOR: (&str, &str) = ("CONSOLE_OPERATOR", "t0ken-0f-the-operator");

/// A reason that is a page of its own.
const HOSTILE: &str = "</p><script>alert(1)</script>\u{202e}";

pub(super) fn server(place: &Place) -> Server {
    let mut command = place.command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--tick-token-env",
        TOKEN.0,
        "--read-token-env",
        READER.0,
        "--operator-token-env",
        OPERATOR.0,
    ]);
    for (name, token) in [TOKEN, READER, OPERATOR] {
        command.env(name, token);
    }
    Server::of(command)
}

pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

pub(super) fn get(server: &Server, path: &str, headers: &str) -> Reply {
    let reply =
        server.send(&format!("GET {path} HTTP/1.1\r\nHost: console\r\n{headers}\r\n")).unwrap();
    assert!(!reply.body.contains("<script") && !reply.body.contains('\u{202e}'), "{reply:?}");
    reply
}

/// Sends a form as a browser does, from a page of `origin`.
fn post(server: &Server, fields: &[(&str, &str)], headers: &str, origin: &str) -> Reply {
    let pairs = fields.iter().map(|(name, text)| {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        format!("{name}={}", text.bytes().map(byte).collect::<String>())
    });
    let body = pairs.collect::<Vec<_>>().join("&");
    let request = format!(
        "POST /act HTTP/1.1\r\nHost: console\r\nOrigin: {origin}\r\n{headers}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    server.send(&request).unwrap()
}

/// The value that forms of the page hold.
pub(super) fn form_token(page: &str) -> Option<String> {
    let token = page.split("name=\"token\" value=\"").nth(1)?;
    Some(token.split('"').next()?.to_owned())
}

/// An operator at the pages of a server.
struct Operator<'s> {
    server: &'s Server,
    token: String,
}

impl<'s> Operator<'s> {
    fn at(server: &'s Server) -> Self {
        let page = get(server, "/", &bearer(OPERATOR.1)).is(200).body;
        Self { server, token: form_token(&page).unwrap() }
    }

    fn see(&self, path: &str) -> String {
        get(self.server, path, &bearer(OPERATOR.1)).is(200).body
    }

    fn send(&self, fields: &[(&str, &str)]) -> Reply {
        let fields = [&[("token", &*self.token)], fields].concat();
        post(self.server, &fields, &bearer(OPERATOR.1), "http://console")
    }

    /// Acts, and returns the page of the action once it has ended.
    async fn act(&self, fields: &[(&str, &str)]) -> String {
        let at = self.send(fields).is(303).headers["location"].clone();
        let ended = async || Some(self.see(&at)).filter(|page| !page.contains(">running<"));
        until("the action has ended", ended).await
    }
}

/// What nobody may do without the operator's token, or from another site's page.
async fn refusals(place: &Place, server: &Server, slice: &str) {
    let (reader, operator) = (bearer(READER.1), bearer(OPERATOR.1));
    for path in ["/", "/rollup/daily", "/action/1"] {
        let refused = get(server, path, "").is(401);
        assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"tallymark\"");
        get(server, path, &bearer(TOKEN.1)).is(401);
    }
    let page = get(server, "/", &reader).is(200);
    assert_eq!(form_token(&page.body), None);
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'; "));
    let token = Operator::at(server).token;
    for (headers, token, origin, status) in [
        ("", &*token, "http://console", 401),
        (&*reader, &*token, "http://console", 403),
        (&*operator, "", "http://console", 403),
        (&*operator, "AAAA", "http://console", 403),
        (&*operator, &*token, "https://other.example", 403),
        (&*operator, &*token, "null", 403),
        (&format!("{operator}Sec-Fetch-Site: cross-site\r\n"), &*token, "http://console", 403),
    ] {
        let pause = [("action", "pause"), ("reason", "x"), ("token", token)];
        post(server, &pause, headers, origin).is(status);
    }
    server.send(&format!("GET /act HTTP/1.1\r\nHost: console\r\n{operator}\r\n")).unwrap().is(405);
    let operator = Operator::at(server);
    for wrong in [
        &[("action", "init")][..],
        &[("action", "replay"), ("rollup", "daily"), ("slice", slice), ("reason", "")],
    ] {
        operator.send(wrong).is(422);
    }
    for missing in
        ["/rollup/none", "/rollup/daily?slice=never", "/rollup/daily?line=0", "/action/9"]
    {
        get(server, missing, &bearer(OPERATOR.1)).is(404);
    }
    assert_eq!(place.json(&["status"])["control"], serde_json::json!([]), "nothing was done");
}

#[tokio::test]
async fn from_exhausted_to_right_without_a_shell() {
    let (place, _database) = place(&format!("{}failures_max = 1\n", STORES[1])).await;
    let broken = "CREATE OR REPLACE FUNCTION public.slow(timestamptz) RETURNS SETOF boolean LANGUAGE plpgsql \
                  VOLATILE ROWS 5000 AS 'BEGIN RAISE division_by_zero; END'";
    place.sql(broken).await;
    let slice = format!("{}T00:00:00Z", day(1));
    let server = server(&place);
    refusals(&place, &server, &slice).await;
    server.tick("").is(200);
    let operator = Operator::at(&server);
    let home = operator.see("/");
    let address = format!("/rollup/daily?slice={slice}");
    assert!(
        home.contains("needs attention") && home.contains(&format!("href=\"{address}\"")),
        "{home}"
    );
    let story = operator.see(&address);
    assert!(story.contains("failed too often") && story.contains("division_by_zero"), "{story}");
    // The cause is put right.
    place.sql(&broken.replace("RAISE division_by_zero", "RETURN NEXT true")).await;
    let slices = [("action", "replay"), ("rollup", "daily"), ("slice", &*slice)];
    let done = operator.act(&[&slices[..], &[("reason", HOSTILE)]].concat()).await;
    assert!(done.contains("1 slice succeeded"), "{done}");
    let all = [("action", "replay"), ("rollup", "daily"), ("failed", "1"), ("reason", "mended")];
    let done = operator.act(&all).await;
    assert!(done.contains(">done<"), "{done}");
    // Slices that the tick did not reach.
    server.tick("").is(200);
    is_right(&place).await;
    let home = operator.see("/");
    assert!(home.contains("All is well") && home.contains("tallymark replay"), "{home}");
    every_page(&operator, &slice);
    every_action(&place, &operator, &slice).await;
    server.signal("TERM");
    let ended = server.end().await;
    assert_eq!(ended.code, Some(143));
    let audit = ended.err.lines().filter(|line| line.contains("an operator acts")).count();
    assert_eq!(audit, 8, "{}", ended.err);
    assert!(!ended.err.contains('\u{202e}'), "{}", ended.err);
}

/// Each page shows what it is for.
fn every_page(operator: &Operator<'_>, slice: &str) {
    let month = &slice[..7];
    for (path, words) in [
        (
            "/rollup/daily".to_owned(),
            &["complete through", " succeeded", "checked at", "grace"][..],
        ),
        (format!("/rollup/daily?slice={slice}"), &["It is done.", "groups after", "settled by"]),
        (format!("/rollup/daily?line={month}"), &["succeeded", "rows read"]),
        (
            "/rollup/daily?chart=events&by=kind".to_owned(),
            &["<svg", "<circle", "The numbers", "final"],
        ),
        ("/rollup/daily?chart=revenue".to_owned(), &["<svg", "<circle"]),
    ] {
        let page = operator.see(&path);
        for word in words {
            assert!(page.contains(word), "{path}: {word}: {page}");
        }
    }
    let wrong = get(operator.server, "/rollup/daily?chart=events&by=amount", &bearer(OPERATOR.1));
    assert!(wrong.is(200).body.contains("is no dimension"));
}

/// Each action does what its command does.
async fn every_action(place: &Place, operator: &Operator<'_>, slice: &str) {
    let compared =
        operator.act(&[("action", "verify"), ("rollup", "daily"), ("slice", slice)]).await;
    assert!(compared.contains("0 differences"), "{compared}");
    let range = [("rollup", "daily"), ("from", &slice[..10]), ("force", "1")];
    let plan = operator.send(&[&[("action", "plan")], &range[..]].concat()).is(200).body;
    assert!(plan.contains("1 to compute") && plan.contains("source rows"), "{plan}");
    let done = operator.act(&[&[("action", "backfill")], &range[..]].concat()).await;
    assert!(done.contains("1 slice succeeded"), "{done}");
    operator.act(&[("action", "pause"), ("rollup", "daily"), ("reason", HOSTILE)]).await;
    operator.act(&[("action", "speed"), ("ratio", "7")]).await;
    let page = operator.see("/rollup/daily");
    assert!(page.contains("paused since") && page.contains("nice_ratio 7"), "{page}");
    operator.act(&[("action", "resume"), ("rollup", "daily")]).await;
    let words = place.json(&["status"])["control"].clone();
    assert_eq!(words.as_array().map(Vec::len), Some(1), "{words}");
    let failed = operator.act(&[("action", "cancel"), ("rollup", "none")]).await;
    assert!(failed.contains(">failed<") && failed.contains("none"), "{failed}");
    let attempts = lines(&place.target_url, super::ATTEMPTS).await;
    assert!(attempts.iter().any(|row| row.ends_with(",3)")), "{attempts:?}");
    no_connection_is_left(place).await;
}

/// After its end an action has no connection any more. The server itself has a few.
async fn no_connection_is_left(place: &Place) {
    /// Idle connections are closed after a minute in any case.
    const SOON: Duration = Duration::from_secs(40);
    let others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                  AND pid <> pg_backend_pid()";
    let watch = Stopwatch::start();
    loop {
        let open = lines(&place.target_url, others).await.len();
        if open <= 8 {
            break;
        }
        assert!(watch.elapsed() < SOON, "{open} connections are open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
