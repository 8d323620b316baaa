//! `psql` runs the output of a dry run. It has the same effect as the command with any names, or
//! none at all.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cli::{Place, daily};

/// An installed `psql`.
pub(crate) fn psql() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|place| place.join("psql")).collect::<Vec<_>>();
    let installed = (13..=18).map(|n| format!("/usr/lib/postgresql/{n}/bin/psql").into());
    found.into_iter().chain(installed).find(|place| place.exists())
}

/// Runs the output in the place's database, with a `psql` variable that no foreign text may expand.
pub(crate) fn piped(psql: &Path, place: &Place, printed: &str) {
    let script = place.config().with_file_name("printed.sql");
    std::fs::write(&script, printed).unwrap();
    let ended = Command::new(psql)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "victim=x", &place.source_url])
        .stdin(std::fs::File::open(&script).unwrap())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{printed}: {ended:?}");
}

fn toml(text: &str) -> String {
    // JSON keeps DEL, and TOML refuses it.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The statements, without comments and the bounds of the transaction.
fn statements(printed: &str) -> Vec<&str> {
    let is_statement =
        |line: &&str| !line.starts_with("--") && !matches!(*line, "BEGIN;" | "COMMIT;");
    printed.lines().filter(is_statement).collect()
}

#[tokio::test]
async fn what_init_prints_makes_what_init_makes_with_any_names() {
    let Some(psql) = psql() else { return };
    for name in [
        "$tallymark$; DROP TABLE victim; --",
        "a\"'; DROP TABLE victim; \\! false",
        "{schema} {role} {tables} :victim :'victim'",
        "b\\'; DROP TABLE victim; /* $$",
        "two\n-- lines; DROP TABLE victim;\n\\q",
    ] {
        let (place, _database) = Place::with_events(1).await;
        // A role belongs to the whole server.
        let role = format!("{name} {:08x}", fastrand::u32(..));
        place
            .sql(&format!(
                "CREATE TABLE victim (); CREATE ROLE {}; ALTER TABLE events RENAME kind TO {}",
                quoted(&role),
                quoted(name)
            ))
            .await;
        let rollups = daily(1)
            .replace("[\"kind\"]", &format!("[{}]", toml(name)))
            .replace("events = \"count\"", &format!("{} = \"count\"", toml(&format!("{name}."))));
        let (schema, readers) = (toml(&format!("s {name}")), toml(&role));
        place.configure_plain(&format!("schema = {schema}\nreaders = [{readers}]\n{rollups}"));
        let printed = place.run(&["init", "--dry-run"]).good().out;
        assert!(!statements(&printed).is_empty(), "{printed}");
        piped(&psql, &place, &printed);
        let printed = place.run(&["init", "--dry-run"]).good().out;
        assert_eq!(statements(&printed), Vec::<&str>::new());
        place.run(&["init"]).good();
        place.run(&["run"]).good();
        place.run(&["verify"]).good();
        place.sql(&format!("TABLE victim; DROP OWNED BY {0}; DROP ROLE {0}", quoted(&role))).await;
    }
}

/// A terminal gets escapes for hidden characters, so the shown names would differ.
#[tokio::test]
async fn statements_with_names_that_cannot_be_shown_are_printed_as_comments() {
    for name in ["a\u{7f}b", "\u{202e}b", "c\r; DROP TABLE victim; --", "x\u{200b}\ny"] {
        let (place, _database) = Place::with_events(1).await;
        place.sql(&format!("ALTER TABLE events RENAME kind TO {}", quoted(name))).await;
        place
            .sql(&format!("ALTER TABLE events RENAME at TO {}", quoted(&format!("{name} t"))))
            .await;
        let rollups = daily(1)
            .replace("[\"kind\"]", &format!("[{}]", toml(name)))
            .replace("\"at\"", &toml(&format!("{name} t")))
            .replace("slice =", "late = \"capture\"\nslice =");
        place.configure_plain(&rollups);
        for command in [&["init", "--dry-run"][..], &["capture", "install", "--dry-run"]] {
            let printed = place.run(command).good().out;
            assert_eq!(statements(&printed), Vec::<&str>::new(), "{name:?}");
            assert!(printed.contains("run this command without --dry-run"), "{printed}");
            let exact = place.json(command);
            let mut exact = exact["statements"].as_array().unwrap().iter().map(|it| it.as_str());
            assert!(exact.any(|sql| sql.unwrap().contains(name)), "{name:?}");
        }
    }
}
