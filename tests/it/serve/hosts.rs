//! The set-ups of docs/WITHOUT_AWS.md, as far as they can be run here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tallymark::config::Config;

use super::{STORES, is_right, place};
use crate::support::cli::{Place, ended, execute, lines};
use crate::support::serving::{Server, TOKEN};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The names that Supabase's extensions give the parts that `supabase.sql` uses. These stand-ins
/// remember what they are asked.
const STAND_INS: &str = "
    CREATE SCHEMA vault; CREATE SCHEMA cron; CREATE SCHEMA net;
    CREATE TABLE vault.decrypted_secrets (name text, decrypted_secret text);
    CREATE FUNCTION vault.create_secret(new_secret text, new_name text) RETURNS void
        LANGUAGE sql AS 'INSERT INTO vault.decrypted_secrets VALUES (new_name, new_secret)';
    CREATE TABLE cron.job (jobname text, schedule text, command text);
    CREATE FUNCTION cron.schedule(job_name text, schedule text, command text) RETURNS bigint
        LANGUAGE sql AS 'INSERT INTO cron.job VALUES (job_name, schedule, command) RETURNING 1::bigint';
    CREATE TABLE net.asked (url text, body jsonb, headers jsonb, timeout_milliseconds int);
    CREATE FUNCTION net.http_post(url text, body jsonb DEFAULT '{}', params jsonb DEFAULT '{}',
        headers jsonb DEFAULT '{\"Content-Type\": \"application/json\"}',
        timeout_milliseconds int DEFAULT 2000) RETURNS bigint
        LANGUAGE sql AS 'INSERT INTO net.asked VALUES (url, body, headers, timeout_milliseconds)
            RETURNING 1::bigint'";

#[tokio::test]
async fn the_schedule_of_supabase_makes_a_real_server_tick() {
    let (place, _database) = place(STORES[1]).await;
    let server = Server::with_token(&place, &[]);
    execute(&place.source_url, STAND_INS).await;
    let sql = read("examples/hosts/supabase.sql");
    let url = format!("http://{}", server.address);
    let sql = sql
        .replace("https://tallymark.example.com", &url)
        .replace("'TOKEN'", "'t0ken-0f-the-scheduler'");
    execute(&place.source_url, &sql).await;
    let jobs = "SELECT jobname, schedule FROM cron.job";
    assert_eq!(lines(&place.source_url, jobs).await, ["(tallymark,\"*/5 * * * *\")"]);
    let run = "DO $run$ DECLARE job text; BEGIN FOR job IN SELECT command FROM cron.job LOOP \
               EXECUTE job; END LOOP; END $run$";
    execute(&place.source_url, run).await;
    let mut connection = PgConnection::connect(&place.source_url).await.unwrap();
    let asked = sqlx::query_scalar("SELECT to_jsonb(a)::text FROM net.asked AS a");
    let asked: Vec<String> = asked.fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let [asked] = &asked[..] else { panic!("{asked:?}") };
    let asked: Value = serde_json::from_str(asked).unwrap();
    let path = asked["url"].as_str().unwrap().strip_prefix(&url).unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: tallymark\r\n");
    for (name, value) in asked["headers"].as_object().unwrap() {
        head += &format!("{name}: {}\r\n", value.as_str().unwrap());
    }
    let body = asked["body"].to_string();
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let told = server.send(&request).unwrap().is(202).json();
    assert_eq!(told["state"], "started");
    server.wait_for("the tick ends", |health| health["last_tick"]["good"] == true).await;
    is_right(&place).await;
}

/// Node.js, if it is installed in a version that knows `fetch`.
fn node() -> Option<PathBuf> {
    let has_fetch = "process.exit(typeof fetch === 'function' ? 0 : 1)";
    let status = Command::new("node").args(["-e", has_fetch]).status();
    status.is_ok_and(|status| status.success()).then(|| PathBuf::from("node"))
}

#[tokio::test]
async fn the_route_of_vercel_passes_its_cron_on() {
    let crons: Value = serde_json::from_str(&read("examples/hosts/vercel/vercel.json")).unwrap();
    assert_eq!(crons["crons"][0]["path"], "/api/tick");
    let Some(node) = node() else { return };
    let (place, _database) = place(STORES[1]).await;
    let server = Server::with_token(&place, &[]);
    let route = Path::new(ROOT).join("examples/hosts/vercel/api/tick.mjs");
    let call = |secret: &str, token: &str| {
        let script = format!(
            "import({:?}).then(async ({{ GET }}) => {{ \
             const headers = {{ authorization: 'Bearer {secret}' }}; \
             const answer = await GET(new Request('https://app.example.com/api/tick', {{ headers }})); \
             console.log(answer.status, await answer.text()); }})",
            route.display().to_string()
        );
        let mut command = Command::new(&node);
        command.args(["-e", &script]).env("CRON_SECRET", "s3cret-0f-vercel");
        command.env("TALLYMARK_URL", format!("http://{}", server.address));
        ended(command.env("TICK_TOKEN", token)).good().out
    };
    assert!(call("wrong", TOKEN.1).starts_with("401 "));
    assert!(call("s3cret-0f-vercel", "wrong").starts_with("401 "));
    assert_eq!(server.health()["last_tick"], Value::Null);
    let told = call("s3cret-0f-vercel", TOKEN.1);
    assert!(told.starts_with("202 ") && told.contains("started"), "{told}");
    server.wait_for("the tick ends", |health| health["last_tick"]["good"] == true).await;
    is_right(&place).await;
}

#[tokio::test]
async fn the_web_process_of_the_procfile_listens() {
    let (place, _database) = place(STORES[1]).await;
    let procfile = read("examples/hosts/Procfile");
    let web = procfile.trim().strip_prefix("web: ").unwrap();
    let tallymark = Path::new(env!("CARGO_BIN_EXE_tallymark"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", tallymark.parent().unwrap().display());
    let mut command = in_place(&place, "sh");
    command.args(["-c", &format!("exec {}", web.replace("DATABASE_URL=", "env DATABASE_URL="))]);
    command.envs([("PATH", path.as_str()), ("PORT", "0"), ("TICK_TOKEN", TOKEN.1)]);
    let server = Server::of(command);
    assert!(server.address.starts_with("0.0.0.0:"), "{}", server.address);
    server.send("GET /tick HTTP/1.1\r\nHost: tallymark\r\n\r\n").unwrap().is(401);
    server.get("/livez").is(200);
}

/// Another program with the directory and the environment of the place's commands.
fn in_place(place: &Place, program: &str) -> Command {
    let known = place.command(&[]);
    let mut command = Command::new(program);
    command.current_dir(known.get_current_dir().unwrap());
    let set = known.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.envs(set);
    command
}

/// The arguments of every call of `tallymark` in a text, and of an image whose entry point it is.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '-', '/'])) {
        let line = line.replace(['"', '[', ']', ','], " ");
        let calls = ["tallymark ", "`serve ", "`run "].map(|word| line.match_indices(word));
        let calls = calls.into_iter().flatten().map(|(at, word)| match word {
            "tallymark " => at + word.len(),
            _ => at + 1,
        });
        let image = line.find("command: ").map(|at| at + "command: ".len());
        for begin in calls.chain(image) {
            let end = line[begin..].find(['`', '>']).map_or(line.len(), |end| begin + end);
            let words = line[begin..end].split_whitespace().map(|word| word.trim_matches('\''));
            let words: Vec<_> = words.map(str::to_owned).collect();
            let known = ["serve", "run", "init", "backfill", "--config"];
            if words.first().is_some_and(|first| known.contains(&&**first)) {
                found.push(words);
            }
        }
    }
    found
}

#[test]
fn every_command_of_the_hosts_is_understood() {
    let mut all = commands(&read("docs/WITHOUT_AWS.md"));
    for file in ["github-actions.yml", "compose.yaml", "Procfile", "tallymark.service"] {
        let own = commands(&read(&format!("examples/hosts/{file}")));
        assert!(!own.is_empty(), "{file}");
        all.extend(own);
    }
    assert!(all.len() >= 10, "{all:?}");
    for words in all {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
        command.args(&words).env("TALLYMARK_CONFIG", "missing/tallymark.toml");
        let ended = ended(command.env("TICK_TOKEN", TOKEN.1));
        assert!(ended.err.contains("there is no such file"), "{words:?}: {ended:?}");
    }
}

#[test]
fn the_configuration_of_the_page_is_a_good_one() {
    let page = read("docs/WITHOUT_AWS.md");
    let text = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let address = || "postgres://app:secret@db.example.com/shop".to_owned();
    let env = |name: &str| (name != "TALLYMARK_TABLE").then(address);
    let config = Config::parse(Path::new("docs/WITHOUT_AWS.md"), text, &env);
    assert_eq!(config.unwrap().rollups.len(), 1);
}

#[test]
fn the_alarms_of_the_page_name_metrics_that_exist() {
    let (page, metrics) = (read("docs/WITHOUT_AWS.md"), read("docs/METRICS.md"));
    let words = page.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let named: Vec<_> = words.filter(|word| word.starts_with("tallymark_")).collect();
    assert!(named.len() >= 4, "{named:?}");
    for name in named {
        assert!(metrics.contains(&format!("`{name}`")), "{name}");
    }
}
