//! Addresses and definitions stored in AWS, and a password that is rotated while everything runs.

use serde_json::{Value, json};
use tallymark::checkpoint::State;

use crate::support::Database;
use crate::support::cli::{Place, daily, today};
use crate::support::kept::Kept;
use crate::support::runtime_api::Function;

/// The secret that RDS would keep, of this role.
fn secret(url: &str, role: &str, password: &str) -> String {
    let (_, server) = url.split_once('@').unwrap();
    let (host, database) = server.split_once('/').unwrap();
    let (host, port) = host.split_once(':').unwrap();
    json!({
        "engine": "postgres", "host": host, "port": port.parse::<u16>().unwrap(),
        "username": role, "password": password, "dbname": database,
    })
    .to_string()
}

fn slice(days_ago: i64) -> Value {
    let start = today() - chrono::TimeDelta::days(days_ago);
    json!({ "trigger": "slice", "rollup": "daily", "start": start.to_string() })
}

/// Uses the rotation with two users: the secret names another role, and the old one can no longer
/// log in.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_rotated_while_slices_run_and_nothing_is_lost() {
    let database = Database::create().await;
    let mut place = Place::new(&database.url(), &database.url(), &daily(6)).await;
    place.seed(6).await;
    let [one, two] = ["one", "two"].map(|name| format!("{name}_{:x}", fastrand::u64(..)));
    place
        .sql(&format!(
            "CREATE ROLE \"{one}\" SUPERUSER LOGIN PASSWORD 'swordfish-1'; \
             CREATE ROLE \"{two}\" SUPERUSER LOGIN PASSWORD 'swordfish-2'"
        ))
        .await;
    let kept = Kept::start();
    kept.keep("app/db", &secret(&database.url(), &one, "swordfish-1"));
    let text = format!(
        "[source]\nurl = {{ secret = \"app/db\" }}\nnice_ratio = 0\n[target]\nurl = {{ secret = \"app/db\" }}\n{}",
        daily(6)
    );
    place.run(&["init"]).good();
    kept.keep("/app/tallymark.toml", &text);
    let environment = [
        ("TALLYMARK_CONFIG_PARAMETER", "/app/tallymark.toml"),
        ("AWS_ENDPOINT_URL_SSM", &kept.endpoint),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &kept.endpoint),
        ("AWS_ENDPOINT_URL_DYNAMODB", &place.endpoint().clone()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let mut function = Function::start(&environment);
    let outcome = |answer: crate::support::runtime_api::Answer| {
        answer.response()["slice"]["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(outcome(function.invoke(&slice(5))), "succeeded");
    assert_eq!(
        kept.asked(),
        [
            "AmazonSSM.GetParameter",
            "secretsmanager.GetSecretValue",
            "secretsmanager.GetSecretValue"
        ],
    );
    assert_eq!(outcome(function.invoke(&slice(4))), "succeeded");
    assert_eq!(kept.asked(), Vec::<String>::new(), "read once");
    // The old role is locked out before the secret names the new one.
    place
        .sql(&format!(
            "ALTER ROLE \"{one}\" NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE usename = '{one}'"
        ))
        .await;
    let answer = function.invoke(&slice(3));
    assert_eq!(answer.error().0, "Unreachable", "{answer:?}");
    kept.keep("app/db", &secret(&database.url(), &two, "swordfish-2"));
    for days_ago in [3, 2] {
        assert_eq!(outcome(function.invoke(&slice(days_ago))), "succeeded");
    }
    let start = (today() - chrono::TimeDelta::days(3)).and_time(chrono::NaiveTime::MIN).and_utc();
    let checkpoint = place.checkpoints().get("daily", start).await.unwrap().unwrap();
    assert_eq!((checkpoint.state, checkpoint.failures), (State::Succeeded, 0));
    let output = function.stop();
    let text = [&output.stdout[..], &output.stderr].concat().join("\n");
    assert!(!text.contains("swordfish"), "a password was written: {text}");
    let admin = place.source_url.clone();
    crate::support::cli::execute(&admin, &format!("DROP ROLE \"{one}\"; DROP ROLE \"{two}\""))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_is_told_by_its_name() {
    let database = Database::create().await;
    let mut place = Place::new(&database.url(), &database.url(), &daily(2)).await;
    place.checkpoints().create_table().await.unwrap();
    let text = format!("[source]\nurl = {{ secret = \"app/db\" }}\n{}", daily(2));
    std::fs::write(place.config(), text).unwrap();
    let kept = Kept::start();
    let config = place.config().display().to_string();
    let mut function = Function::start(&[
        ("TALLYMARK_CONFIG", &config),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &kept.endpoint),
        ("AWS_ENDPOINT_URL_DYNAMODB", &place.endpoint().clone()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]);
    let answer = function.invoke(&slice(1));
    let (kind, message) = answer.error();
    assert_eq!(kind, "Unreachable", "{message}");
    assert!(message.contains("secret app/db") && message.contains("no such secret"), "{message}");
    assert!(message.contains("; hint: check its name in the configuration"), "{message}");
    function.stop();
}
