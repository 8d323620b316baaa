//! The environment's part in the configuration.

use std::path::Path;

use super::{Config, GOOD, StoreKind, env};

/// Two stacks with the same file have tables of their own, by their environments.
#[test]
fn the_environment_names_the_table_in_dynamodb_and_wins_over_the_file() {
    let with = |text: &str, table: &'static str| {
        let env = |name: &str| match name {
            "TALLYMARK_TABLE" => Some(table.to_owned()),
            other => env(other),
        };
        Config::parse(Path::new("tallymark.toml"), text, &env)
    };
    let default = GOOD.replace("table = \"tallymark-test\"\n", "");
    let postgres = GOOD.replace("table = \"tallymark-test\"", "store = \"postgres\"");
    for (text, variable, table, origin) in [
        (GOOD, "", "tallymark-test", Some("named by [checkpoint] table")),
        (&default, "", "tallymark", Some("the default name")),
        (&default, "tallymark-staging", "tallymark-staging", Some("named by TALLYMARK_TABLE")),
        (GOOD, "tallymark-test", "tallymark-test", Some("named by TALLYMARK_TABLE")),
        (
            GOOD,
            "tallymark-staging",
            "tallymark-staging",
            Some(
                "named by TALLYMARK_TABLE, which wins over [checkpoint] table = \"tallymark-test\"",
            ),
        ),
        (&postgres, "tallymark-staging", "checkpoint", None),
    ] {
        let config = with(text, variable).unwrap().checkpoint;
        assert_eq!((&*config.table, config.name_origin().as_deref()), (table, origin));
    }
    let moved = with(&postgres, "tallymark-staging").unwrap().checkpoint;
    let moved = moved.moved_to(StoreKind::DynamoDb, None).unwrap();
    assert_eq!(moved.table, "tallymark-staging");
    let error = with(GOOD, "t!").unwrap_err().to_string();
    let facts = "in the environment variable TALLYMARK_TABLE, \"t!\" is not a DynamoDB table name";
    assert!(error.contains(facts), "{error}");
}
