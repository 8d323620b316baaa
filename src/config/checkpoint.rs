//! `[checkpoint]`: where checkpoints are kept, and when a slice is exhausted.

use super::raw::Node;
use super::{Checkpoint, StoreKind};
use crate::model::text::{nearest, shown};

const DYNAMODB: &str = "dynamodb";
const POSTGRES: &str = "postgres";

const DYNAMODB_TABLE_DEFAULT: &str = "tallymark";

/// The table in the schema `tallymark` of the target.
const POSTGRES_TABLE: &str = "checkpoint";

const FAILURES_MAX_DEFAULT: u32 = 5;

/// The settings of a file without this section.
pub(super) fn default() -> Checkpoint {
    Checkpoint {
        store: StoreKind::DynamoDb,
        table: DYNAMODB_TABLE_DEFAULT.to_owned(),
        failures_max: FAILURES_MAX_DEFAULT,
    }
}

pub(super) fn read(node: &Node<'_>) -> Option<Checkpoint> {
    let mut section = node.section("a table: [checkpoint]")?;
    section.only(&["store", "table", "failures_max"]);
    let store = match section.get("store") {
        Some(node) => store(&node),
        None => Some(StoreKind::DynamoDb),
    };
    let table = match (section.get("table"), store) {
        (Some(node), Some(StoreKind::Postgres)) => node.wrong(format!(
            "names a table in DynamoDB; remove it, as store = \"{POSTGRES}\" keeps checkpoints in \
             the table tallymark.{POSTGRES_TABLE} of the target"
        )),
        (Some(node), _) => dynamodb_table(&node),
        (None, Some(StoreKind::Postgres)) => Some(POSTGRES_TABLE.to_owned()),
        (None, _) => Some(DYNAMODB_TABLE_DEFAULT.to_owned()),
    };
    let failures_max = match section.get("failures_max") {
        Some(node) => node.integer(1..=100),
        None => Some(FAILURES_MAX_DEFAULT),
    };
    Some(Checkpoint { store: store?, table: table?, failures_max: failures_max? })
}

fn store(node: &Node<'_>) -> Option<StoreKind> {
    match node.string(r#""dynamodb" or "postgres""#)? {
        DYNAMODB => Some(StoreKind::DynamoDb),
        POSTGRES => Some(StoreKind::Postgres),
        other => {
            let remedy = match nearest(other, [DYNAMODB, POSTGRES].into_iter()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("use \"{DYNAMODB}\" or \"{POSTGRES}\""),
            };
            node.wrong(format!("{} is unknown; {remedy}", shown(other)))
        }
    }
}

fn dynamodb_table(node: &Node<'_>) -> Option<String> {
    let name = node.string(r#"the name of a DynamoDB table such as "tallymark""#)?;
    let allowed =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    // DynamoDB's own rule.
    if !(3..=255).contains(&name.len()) || !name.chars().all(allowed) {
        return node.wrong(format!(
            "{} is not a DynamoDB table name; use 3 to 255 of a-z A-Z 0-9 _ - .",
            shown(name)
        ));
    }
    Some(name.to_owned())
}
