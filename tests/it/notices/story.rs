//! From "a slice is exhausted" to "it is right again", by notices and the console alone.

use serde_json::Value;

use super::Receiver;
use crate::support::cli::{Place, daily};
use crate::support::serving::{Reply, Server, TOKEN};
use crate::support::until;

/// The variable and the token of operators.
const OPERATOR: (&str, &str) = ("CONSOLE_OPERATOR", "t0ken-0f-the-operator");

/// Where people reach the server.
const CONSOLE: &str = "https://tally.example.com";

fn server(receiver: &Receiver, place: &Place) -> Server {
    let listening = ["serve", "--listen", "127.0.0.1:0", "--tick-token-env", TOKEN.0];
    let arguments = [&listening[..], &["--operator-token-env", OPERATOR.0]].concat();
    let mut command = receiver.command(place, &arguments);
    command.env(TOKEN.0, TOKEN.1).env(OPERATOR.0, OPERATOR.1);
    Server::of(command)
}

/// Sends a request as a browser does in which an operator logged in.
fn ask(server: &Server, request: &str, headers: &str, body: &str) -> Reply {
    let token = OPERATOR.1;
    let head = format!("{request} HTTP/1.1\r\nHost: console\r\nAuthorization: Bearer {token}\r\n");
    server.send(&format!("{head}{headers}\r\n{body}")).unwrap()
}

fn page(server: &Server, path: &str) -> String {
    ask(server, &format!("GET {path}"), "", "").is(200).body
}

/// The page that a notice leads to.
fn linked(notice: &Value) -> &str {
    notice["link"].as_str().unwrap().strip_prefix(CONSOLE).unwrap()
}

/// Fills in a form of `page`, and returns the page of the action once it has ended.
async fn act(server: &Server, page_with_form: &str, fields: &[(&str, &str)]) -> String {
    let token = page_with_form.split("name=\"token\" value=\"").nth(1).unwrap();
    let token = token.split('"').next().unwrap();
    let mut body = form_urlencoded::Serializer::new(String::new());
    let body = body.append_pair("token", token).extend_pairs(fields).finish();
    let headers = format!(
        "Origin: http://console\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n",
        body.len()
    );
    let at = ask(server, "POST /act", &headers, &body).is(303).headers["location"].clone();
    let ended = async || Some(page(server, &at)).filter(|page| !page.contains(">running<"));
    until("the action has ended", ended).await
}

#[tokio::test]
async fn from_the_notice_to_its_end_without_a_shell() {
    let (mut place, _database) = Place::with_events(2).await;
    place.stop_dynamo();
    let rollups = daily(2).replace("{ sum = \"amount\" }", "{ sum = { sql = \"1 / amount\" } }");
    place.configure(&format!(
        "[checkpoint]\nstore = \"postgres\"\nfailures_max = 1\n\
         [notify]\nurl = {{ env = \"HOOK\" }}\nformat = \"json\"\nconsole = \"{CONSOLE}/\"\n{rollups}"
    ));
    let receiver = Receiver::start();
    receiver.run(&place, &["init"]).good();
    let server = server(&receiver, &place);
    server.tick("").is(200);
    let begin = receiver.told();
    assert_eq!((&begin["kind"], &begin["phase"]), (&"exhausted".into(), &"begin".into()));
    let first = begin["slices"][0].as_str().unwrap();
    assert_eq!(linked(&begin), format!("/rollup/daily?slice={first}"));

    server.get(linked(&begin)).is(401);
    let story = page(&server, linked(&begin));
    assert!(story.contains("failed too often"), "{story}");
    assert!(story.contains("division by zero"), "the cause: {story}");

    place.sql("UPDATE events SET amount = 1 WHERE amount = 0").await;
    let replay = [("action", "replay"), ("rollup", "daily"), ("failed", "1"), ("reason", "mended")];
    let done = act(&server, &story, &replay).await;
    assert!(done.contains(">done<"), "{done}");
    server.tick("").is(200);
    let end = receiver.told();
    assert_eq!((&end["kind"], &end["phase"]), (&"exhausted".into(), &"end".into()));
    assert_eq!((&end["since"], linked(&end)), (&begin["since"], linked(&begin)));
    let story = page(&server, linked(&end));
    assert!(story.contains("It is done."), "{story}");
    server.signal("TERM");
    assert_eq!(server.end().await.code, Some(143));
}
