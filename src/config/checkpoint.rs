//! `[checkpoint]`: where checkpoints are kept, and when a slice is exhausted.

use std::ops::RangeInclusive;

use super::raw::{Node, Section};
use super::{CheckpointConfig, Env, StoreKind, TableOrigin};
use crate::model::hint::Fault;
use crate::model::text::{nearest, shown};

pub(super) const DYNAMODB_TABLE_DEFAULT: &str = "tallymark";

/// The table in the schema `tallymark` of the target.
const POSTGRES_TABLE: &str = "checkpoint";

/// The environment variable that names the table in DynamoDB. It wins over the file, so that two
/// stacks with the same file have tables of their own.
const TABLE_VARIABLE: &str = "TALLYMARK_TABLE";

const FAILURES_MAX_DEFAULT: u32 = 5;

pub(super) const FAILURES_MAX: RangeInclusive<u32> = 1..=100;

/// The settings of a file without this section.
pub(super) fn default() -> CheckpointConfig {
    CheckpointConfig {
        store: StoreKind::DynamoDb,
        table: DYNAMODB_TABLE_DEFAULT.to_owned(),
        origin: TableOrigin::Default,
        environment: None,
        failures_max: FAILURES_MAX_DEFAULT,
    }
}

/// Lets the environment's name of the table win over the file's.
pub(super) fn renamed(
    config: CheckpointConfig,
    root: &Section<'_>,
    env: Env<'_>,
) -> Option<CheckpointConfig> {
    let Some(name) = env(TABLE_VARIABLE).filter(|name| !name.is_empty()) else {
        return Some(config);
    };
    if !is_dynamodb_table(&name) {
        return root.wrong(
            not_a_table(&name).within(format!("the environment variable {TABLE_VARIABLE}")),
        );
    }
    let environment = Some(name.clone());
    if config.store != StoreKind::DynamoDb {
        return Some(CheckpointConfig { environment, ..config });
    }
    let written = (config.origin == TableOrigin::File).then_some(config.table);
    let origin = TableOrigin::Environment { over: written.filter(|written| *written != name) };
    Some(CheckpointConfig { table: name, origin, environment, ..config })
}

impl CheckpointConfig {
    /// Where the name of the table in DynamoDB comes from. `None`: checkpoints are elsewhere.
    #[must_use]
    pub(crate) fn name_origin(&self) -> Option<String> {
        if self.store != StoreKind::DynamoDb {
            return None;
        }
        Some(match &self.origin {
            TableOrigin::Default => "the default name".to_owned(),
            TableOrigin::File => "named by [checkpoint] table".to_owned(),
            TableOrigin::Environment { over: None } => format!("named by {TABLE_VARIABLE}"),
            TableOrigin::Environment { over: Some(written) } => {
                format!(
                    "named by {TABLE_VARIABLE}, which wins over [checkpoint] table = \"{written}\""
                )
            }
        })
    }

    /// The settings of the same file in another store. `table` is the table's name in DynamoDB, by
    /// default the environment's.
    ///
    /// # Errors
    /// The name is not allowed there.
    pub(crate) fn moved_to(&self, store: StoreKind, table: Option<&str>) -> Result<Self, Fault> {
        let table = match (store, table) {
            (StoreKind::Postgres, Some(_)) => {
                return Err(Fault::new("--table names a table in DynamoDB").remedy(format!(
                    "leave it out, as store = \"{}\" keeps checkpoints in the table \
                     tallymark.{POSTGRES_TABLE} of the target",
                    store.word()
                )));
            }
            (StoreKind::Postgres, None) => POSTGRES_TABLE,
            (StoreKind::DynamoDb, table) => {
                table.or(self.environment.as_deref()).unwrap_or(DYNAMODB_TABLE_DEFAULT)
            }
        };
        if store == StoreKind::DynamoDb && !is_dynamodb_table(table) {
            return Err(not_a_table(table));
        }
        Ok(Self { store, table: table.to_owned(), ..self.clone() })
    }
}

pub(super) fn read(node: &Node<'_>) -> Option<CheckpointConfig> {
    let mut section = node.section("a table: [checkpoint]")?;
    section.only(&["store", "table", "failures_max"]);
    let store = match section.get("store") {
        Some(node) => store(&node),
        None => Some(StoreKind::DynamoDb),
    };
    let named = section.get("table");
    let origin = if named.is_some() { TableOrigin::File } else { TableOrigin::Default };
    let table = match (named, store) {
        (Some(node), Some(StoreKind::Postgres)) => {
            node.wrong(Fault::new("names a table in DynamoDB").remedy(format!(
                "remove it, as store = \"{}\" keeps checkpoints in the table \
                 tallymark.{POSTGRES_TABLE} of the target",
                StoreKind::Postgres.word()
            )))
        }
        (Some(node), _) => dynamodb_table(&node),
        (None, Some(StoreKind::Postgres)) => Some(POSTGRES_TABLE.to_owned()),
        (None, _) => Some(DYNAMODB_TABLE_DEFAULT.to_owned()),
    };
    let failures_max = match section.get("failures_max") {
        Some(node) => node.integer(FAILURES_MAX),
        None => Some(FAILURES_MAX_DEFAULT),
    };
    let (store, table, failures_max) = (store?, table?, failures_max?);
    Some(CheckpointConfig { store, table, origin, environment: None, failures_max })
}

fn store(node: &Node<'_>) -> Option<StoreKind> {
    let given = node.string(r#""dynamodb" or "postgres""#)?;
    if let Some(kind) = StoreKind::of(given) {
        return Some(kind);
    }
    let words = StoreKind::ALL.map(StoreKind::word);
    let remedy = match nearest(given, words.into_iter()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("use \"{}\" or \"{}\"", words[0], words[1]),
    };
    node.wrong(Fault::new(format!("{} is unknown", shown(given))).remedy(remedy))
}

impl StoreKind {
    pub(crate) const ALL: [Self; 2] = [Self::DynamoDb, Self::Postgres];

    /// Its name in the configuration.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::DynamoDb => "dynamodb",
            Self::Postgres => "postgres",
        }
    }

    /// The store of this name.
    #[must_use]
    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

fn dynamodb_table(node: &Node<'_>) -> Option<String> {
    let name = node.string(r#"the name of a DynamoDB table such as "tallymark""#)?;
    if !is_dynamodb_table(name) {
        return node.wrong(not_a_table(name));
    }
    Some(name.to_owned())
}

/// DynamoDB's own rule.
fn is_dynamodb_table(name: &str) -> bool {
    let allowed =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    (3..=255).contains(&name.len()) && name.chars().all(allowed)
}

fn not_a_table(name: &str) -> Fault {
    Fault::new(format!("{} is not a DynamoDB table name", shown(name)))
        .remedy("use 3 to 255 of a-z A-Z 0-9 _ - .")
}
