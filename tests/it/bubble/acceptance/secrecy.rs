//! Only GET is sent, to one host, and the token is in no output.

use super::*;

impl Mirrored {
    /// Runs a command that logs all that it can, and searches its output for the token.
    fn run_aloud(&self, arguments: &[&str]) -> Ended {
        let ended = ended(self.command(arguments).env("TALLYMARK_LOG", "trace"));
        assert!(!ended.out.contains(TOKEN) && !ended.err.contains(TOKEN), "{ended:?}");
        ended
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_sends_only_get_to_one_host() {
    let mirrored = Mirrored::new(2, PLENTY, |app| orders(app, 2, 120)).await;
    let commands: [&[&str]; 9] = [
        &["init", "--dry-run"],
        &["check"],
        &["plan", "orders"],
        &["run"],
        &["verify", "orders"],
        &["status"],
        &["replay", "orders", "--failed", "--yes"],
        &["backfill", "orders", "--force", "--yes"],
        &["rollup", "list"],
    ];
    for command in commands {
        mirrored.run_aloud(command);
    }
    let log = mirrored.fake.log();
    let host = mirrored.fake.url().replace("http://", "");
    assert!(log.len() > 10, "{} requests", log.len());
    for seen in &log {
        assert_eq!((seen.method.as_str(), seen.body), ("GET", 0), "{seen:?}");
        assert_eq!(seen.headers["host"], host, "{seen:?}");
        let query = format!("{}{:?}", seen.path, seen.query);
        assert!(!query.contains(TOKEN), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_app_does_not_show_the_token() {
    let mirrored = Mirrored::new(1, PLENTY, |app| orders(app, 1, 10)).await;
    mirrored.fake.app().revoke(TOKEN);
    for command in [&["run"][..], &["check"], &["init"], &["plan", "orders"]] {
        mirrored.run_aloud(command);
    }
}
