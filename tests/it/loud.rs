//! With all log lines enabled, including those of the libraries, no secret is written.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};
use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres};

use crate::support::cli::{PASSWORD, Place, daily, day, today};
use crate::support::kept::Kept;
use crate::support::runtime_api::Function;
use crate::support::{cache, options, server_directory};

const AWS_KEY: &str = "pl4nted-4ws-k3y";
const AWS_TOKEN: &str = "pl4nted-s3ssion-t0ken";

/// The most verbose settings.
const LOUD: [(&str, &str); 4] = [
    ("TALLYMARK_LOG", "trace"),
    ("RUST_LOG", "trace"),
    ("AWS_LAMBDA_LOG_LEVEL", "TRACE"),
    ("RUST_BACKTRACE", "full"),
];

/// Each library is named, as a named filter overrides the general one.
const BY_NAME: &str = "trace,aws_sigv4=trace,aws_sigv4::http_request::sign=trace,\
    aws_smithy_runtime=trace,aws_smithy_runtime::client::orchestrator=trace,aws_runtime=trace,\
    aws_config=trace,aws_sdk_ssm=trace,aws_sdk_secretsmanager=trace,hyper=trace,hyper_util=trace,\
    rustls=trace,sqlx=trace,sqlx::query=trace,lambda_runtime=trace,\
    lambda_runtime::layers::api_response=trace,tallymark=trace";

const ROTATE: &str = "ALTER ROLE tallymark PASSWORD 'another'; SELECT pg_terminate_backend(pid) \
    FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";

/// Searches for each secret, written as text or as a list of bytes.
fn assert_silent(what: &str, text: &str) {
    for secret in [PASSWORD, AWS_KEY, AWS_TOKEN] {
        let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
        let hex = secret.bytes().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        for form in [secret.to_owned(), numbers.join(", "), numbers.join(","), hex] {
            let line = text.lines().find(|line| line.contains(&form));
            assert_eq!(line, None, "{what} writes {secret}");
        }
    }
    assert!(!text.contains("panicked"), "{what}");
}

/// A server that requires the planted password.
fn guarded(server: &EmbeddedPostgres) {
    let data = server.log().parent().unwrap().join("data/pg_hba.conf");
    std::fs::write(data, "host all all 127.0.0.1/32 scram-sha-256\n").unwrap();
}

async fn place(name: &str) -> (EmbeddedPostgres, Place) {
    let directory = server_directory(name);
    let start =
        || EmbeddedPostgres::start(Binaries::find(&cache()).unwrap(), options(directory)).unwrap();
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let url = server.url("postgres");
    let place = Place::new(&url, &url, &daily(4)).await;
    place.seed(4).await;
    guarded(&server);
    let set = format!(
        "SET password_encryption = 'scram-sha-256'; ALTER ROLE tallymark PASSWORD '{PASSWORD}'; \
         SELECT pg_reload_conf()"
    );
    place.sql(&set).await;
    (server, place)
}

/// Both addresses are stored: the source's as the JSON of RDS, the target's as plain text.
fn keep(kept: &Kept, server: &EmbeddedPostgres, place: &Place) {
    let source = json!({
        "engine": "postgres", "host": "127.0.0.1", "port": server.port(), "username": "tallymark",
        "password": PASSWORD, "dbname": "postgres",
    });
    kept.keep("app/db", &source.to_string());
    kept.keep("/app/target", &place.target_url);
    let text = format!(
        "[source]\nurl = {{ secret = \"app/db\" }}\nnice_ratio = 0\n\
         [target]\nurl = {{ parameter = \"/app/target\" }}\n{}",
        daily(4)
    );
    std::fs::write(place.config(), &text).unwrap();
    // A configuration in a parameter may contain the address itself.
    let literal =
        text.replace("{ parameter = \"/app/target\" }", &format!("\"{}\"", place.target_url));
    kept.keep("/app/tallymark.toml", &literal);
}

fn loud<'c>(command: &'c mut Command, kept: &Kept, filter: &str) -> &'c mut Command {
    command
        .envs(LOUD)
        .env("TALLYMARK_LOG", filter)
        .env("AWS_SECRET_ACCESS_KEY", AWS_KEY)
        .env("AWS_SESSION_TOKEN", AWS_TOKEN)
        .env("AWS_ENDPOINT_URL_SSM", &kept.endpoint)
        .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &kept.endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_writes_a_secret_however_much_it_logs() {
    let (server, mut place) = place("loud").await;
    let kept = Kept::start();
    let slice = day(2).to_string();
    let run = |place: &Place, arguments: &[&str], filter: &str| {
        let mut command = place.command(&[&["-vvv"], arguments].concat());
        let output = loud(&mut command, &kept, filter).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_silent(&format!("{arguments:?}"), &text);
        (output.status.code(), text)
    };
    // From the environment first, then from AWS.
    for filter in ["trace", BY_NAME] {
        for arguments in [
            &["init"][..],
            &["check"],
            &["plan"],
            &["run"],
            &["backfill", "daily", "--yes"],
            &["replay", "daily", "--slice", &slice, "--yes"],
            &["status"],
            &["verify"],
            &["repair"],
            &["pause", "--reason", "a test"],
            &["resume"],
        ] {
            let (code, text) = run(&place, arguments, filter);
            assert_eq!(code, Some(0), "{arguments:?}: {text}");
            assert!(text.contains("TRACE"), "{arguments:?} is not loud: {text}");
        }
        keep(&kept, &server, &place);
    }
    assert!(kept.asked().len() > 10, "the addresses were read where they are kept");
    place.source_url = place.source_url.replace(PASSWORD, "another");
    place.configure(&daily(4));
    let (code, text) = run(&place, &["verify"], "trace");
    assert!(code == Some(3) && text.contains("password authentication failed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_writes_no_secret_however_much_it_logs() {
    let (server, mut place) = place("loud-function").await;
    let kept = Kept::start();
    place.run(&["init"]).good();
    keep(&kept, &server, &place);
    for filter in ["trace", BY_NAME] {
        let endpoint = place.endpoint().clone();
        let mut environment = vec![
            ("TALLYMARK_CONFIG_PARAMETER", "/app/tallymark.toml"),
            ("AWS_ENDPOINT_URL_SSM", &kept.endpoint),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &kept.endpoint),
            ("AWS_ENDPOINT_URL_DYNAMODB", &endpoint),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", AWS_KEY),
            ("AWS_SESSION_TOKEN", AWS_TOKEN),
        ];
        environment.extend(LOUD);
        environment.push(("TALLYMARK_LOG", filter));
        let mut function = Function::start(&environment);
        let start = today() - chrono::TimeDelta::days(1);
        let slice = json!({ "trigger": "slice", "rollup": "daily", "start": start.to_string() });
        function.invoke(&slice).response();
        function
            .invoke(&json!({ "trigger": "schedule", "time": format!("{}T00:05:00Z", today()) }))
            .response();
        let mut replay = slice.clone();
        (replay["trigger"], replay["reason"]) = (json!("replay"), json!("a test"));
        function.invoke(&replay).response();
        function.invoke(&Value::from("no event")).error();
        // The password is rotated, and the new one is not stored yet.
        place.sql(ROTATE).await;
        assert_eq!(function.invoke(&replay).error().0, "Unreachable");
        let output = function.stop();
        let text = [&output.stdout[..], &output.stderr].concat().join("\n");
        assert_silent("the function", &text);
        assert!(text.contains("\"TRACE\""), "{text}");
        let again = place.source_url.replace(PASSWORD, "another");
        crate::support::cli::execute(
            &again,
            &format!("ALTER ROLE tallymark PASSWORD '{PASSWORD}'"),
        )
        .await;
    }
}
