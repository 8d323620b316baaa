//! Any catalogue becomes a file that the parser takes and that says what was chosen.

use std::path::Path;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::catalogue::{
    CatalogueColumn, CatalogueServer, CatalogueTable, Content, Index, Seen, TimeExtent,
};
use super::choose::{CountableTable, Proposed, candidates, draft, is_plausible};
use super::write;
use crate::config::{Config, StoreKind};
use crate::model::measure::Measure;
use crate::model::slice::Width;
use crate::model::sql::TableName;

const CONTENTS: [Content; 11] = [
    Content::Instant,
    Content::LocalTime,
    Content::Date,
    Content::Integer,
    Content::Bigint,
    Content::Decimal,
    Content::Boolean,
    Content::Enum,
    Content::Text,
    Content::Uuid,
    Content::Other,
];

/// 2026-03-04T05:06:07Z.
const NOW: i64 = 1_772_600_767;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).unwrap()
}

fn server() -> CatalogueServer {
    CatalogueServer { now: now(), is_read_only: false, may_create: true, taken: Vec::new() }
}

fn column(name: &str, content: Content) -> CatalogueColumn {
    CatalogueColumn {
        name: name.to_owned(),
        content,
        is_readable: true,
        is_unique: false,
        is_reference: false,
        index: None,
        distinct: None,
    }
}

fn indexed(name: &str, content: Content) -> CatalogueColumn {
    CatalogueColumn { index: Some(Index::BTree), ..column(name, content) }
}

fn of_values(name: &str, content: Content, distinct: f64) -> CatalogueColumn {
    CatalogueColumn { distinct: Some(distinct), ..column(name, content) }
}

fn table(name: &str, bytes: i64, columns: Vec<CatalogueColumn>) -> CatalogueTable {
    CatalogueTable {
        name: TableName { schema: Some("public".to_owned()), name: name.to_owned() },
        bytes,
        rows: None,
        is_readable: true,
        is_filtered: false,
        is_rollup: false,
        is_view: false,
        columns,
    }
}

/// The definition of the best table, whose rows are of the last `days` days.
fn best(tables: &[CatalogueTable], days: f64) -> Proposed {
    #[expect(clippy::cast_precision_loss, reason = "an instant of our time")]
    let now = NOW as f64;
    let range =
        TimeExtent { first: Some(now - days * 86_400.0), last: Some(now - 60.0), seen: Seen::Rows };
    let candidate = candidates(tables)[0];
    draft(&candidate, range, &server(), (candidate.width(range, server().now), StoreKind::Postgres))
}

#[test]
fn the_largest_table_with_an_indexed_time_of_creation_is_the_best() {
    let created = || indexed("created_at", Content::Instant);
    let tables = [
        table("logs", 1 << 33, vec![column("message", Content::Text)]),
        table("audits", 1 << 32, vec![column("created_at", Content::Instant)]),
        table("orders", 1 << 30, vec![created()]),
        table("sessions", 1 << 31, vec![indexed("expires_at", Content::Instant)]),
        table("users", 1 << 20, vec![created()]),
    ];
    let order: Vec<&str> = candidates(&tables).iter().map(|it| &*it.table.name.name).collect();
    assert_eq!(order, ["orders", "sessions", "users", "audits"]);
}

#[test]
fn the_indexed_time_of_creation_wins_over_other_times() {
    let columns = vec![
        indexed("updated_at", Content::Instant),
        column("occurred_at", Content::Instant),
        indexed("createdAt", Content::LocalTime),
        indexed("due_date", Content::Date),
    ];
    let orders = table("orders", 1 << 20, columns);
    assert_eq!(CountableTable::of(&orders).unwrap().time.name, "createdAt");
}

#[test]
fn dimensions_have_few_values_and_an_entity_key_many_rows() {
    let mut orders = table(
        "orders",
        1 << 30,
        vec![
            indexed("created_at", Content::Instant),
            of_values("customer_id", Content::Bigint, 2e6),
            of_values("shop_id", Content::Uuid, 500.0),
            of_values("email", Content::Text, 20.0),
            of_values("status", Content::Enum, 5.0),
            of_values("is_test", Content::Boolean, 2.0),
            of_values("payment_method", Content::Text, 4.0),
            of_values("note", Content::Text, 30_000.0),
            of_values("meta", Content::Other, 3.0),
            of_values("shop_version", Content::Integer, 3.0),
        ],
    );
    orders.rows = Some(1e6);
    assert_eq!(best(&[orders.clone()], 100.0).group_by, ["shop_id", "status", "payment_method"]);
    // A thousandth of the rows.
    orders.rows = Some(1e3);
    assert_eq!(best(&[orders], 100.0).group_by, ["status", "payment_method"]);
}

#[test]
fn a_name_groups_events_and_not_people() {
    let of = |name: &str, values: f64| {
        let columns = vec![indexed("at", Content::Instant), of_values(name, Content::Text, values)];
        let mut found = table("events", 1 << 20, columns);
        found.rows = Some(400.0);
        best(&[found], 9.0).group_by
    };
    assert_eq!(of("name", 12.0), ["name"]);
    // A table of 400 rows has too many of them for its size.
    assert_eq!(of("country", 100.0), ["country"]);
    assert_eq!(of("country", 100.4), [""; 0]);
    assert_eq!(of("full_name", 12.0), [""; 0]);
}

#[test]
fn without_statistics_names_decide() {
    let orders = table(
        "Orders",
        8192,
        vec![
            indexed("created_at", Content::Instant),
            column("customer_id", Content::Bigint),
            column("note", Content::Text),
            column("amount_cents", Content::Integer),
            column("latency_ms", Content::Integer),
            column("latitude", Content::Decimal),
            column("weight", Content::Decimal),
            column("floor", Content::Integer),
        ],
    );
    let draft = best(&[orders], 3.0);
    assert_eq!(draft.group_by, ["customer_id"]);
    let measures: Vec<String> =
        draft.measures.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    assert_eq!(measures, ["orders count", "amount_cents sum", "latency_ms avg", "weight sum"]);
    assert_eq!((draft.name.as_str(), draft.start.as_str()), ("orders_daily", "2026-03-01"));
}

#[test]
fn a_busy_table_is_cut_into_hours() {
    let mut clicks = table("clicks", 1 << 40, vec![indexed("at", Content::Instant)]);
    clicks.rows = Some(1e9);
    let draft = best(&[clicks], 30.0);
    assert_eq!((draft.slice, draft.lookback), (Width::HOUR, vec![1, 24]));
    assert_eq!(draft.start, "2026-02-02T05:00:00Z");
}

#[test]
fn an_integer_is_a_time_only_by_its_name_and_values() {
    let is_time = |name: &str, content, last| {
        let events = table("events", 8192, vec![column(name, content)]);
        let range = TimeExtent { first: Some(last - 1.0), last: Some(last), seen: Seen::Rows };
        let candidate = CountableTable::of(&events)?;
        is_plausible(candidate.time, range).then(|| {
            let answers = (Width::DAY, StoreKind::Postgres);
            draft(&candidate, range, &server(), answers).unit.map(|unit| unit.word())
        })
    };
    assert_eq!(is_time("created_ms", Content::Bigint, 1.77e12), Some(Some("milliseconds")));
    assert_eq!(is_time("created_at", Content::Integer, 1.77e9), Some(Some("seconds")));
    assert_eq!(is_time("created_at", Content::Bigint, 1.77e15), None);
    assert_eq!(is_time("response_time", Content::Integer, 250.0), None);
    assert_eq!(is_time("event_id", Content::Bigint, 1.77e9), None);
}

#[test]
fn a_name_that_is_taken_is_not_used() {
    let orders = table("orders", 8192, vec![indexed("at", Content::Instant)]);
    let mut server = server();
    server.taken = vec!["orders_daily".to_owned(), "orders_daily_2".to_owned()];
    let candidate = CountableTable::of(&orders).unwrap();
    let answers = (Width::DAY, StoreKind::Postgres);
    assert_eq!(draft(&candidate, TimeExtent::default(), &server, answers).name, "orders_daily_3");
}

/// The definition as the parser reads it from the written file.
fn is_read_as_meant(draft: &Proposed) -> Result<(), TestCaseError> {
    let text = write::file(draft, "DATABASE_URL", "stats");
    let address = || "postgres://app@db.example.com/shop".to_owned();
    let env = |name: &str| (name != "TALLYMARK_TABLE").then(address);
    let config = Config::parse(Path::new("tallymark.toml"), &text, &env);
    let config = config.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
    prop_assert_eq!(config.checkpoint.store, draft.store);
    let rollup = &config.rollups[0];
    prop_assert_eq!(&rollup.name, &draft.name);
    prop_assert_eq!(&rollup.from, &draft.from);
    prop_assert_eq!(&rollup.time.column, &draft.time);
    prop_assert_eq!(rollup.time.unit, draft.unit);
    prop_assert_eq!(rollup.calendar.width(), draft.slice);
    let names: Vec<_> = rollup.group_by.iter().map(|key| key.name.clone()).collect();
    prop_assert_eq!(&names, &draft.group_by);
    prop_assert_eq!(&rollup.lookback, &draft.lookback);
    let name_of = |it: &Measure| it.column.as_ref().map(|column| column.name().to_owned());
    let measures = rollup.measures.iter().map(|it| (it.name.clone(), it.kind.word(), name_of(it)));
    prop_assert_eq!(measures.collect::<Vec<_>>(), draft.measures.clone());
    Ok(())
}

/// A name as people give them, or any that PostgreSQL can store.
fn any_name() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "created_at",
        "createdAt",
        "at_ms",
        "date",
        "customer_id",
        "status",
        "kind",
        "amount",
        "price",
        "price_sum",
        "bucket",
        "slice_start",
        "__rows",
        "ctid",
        "order",
        "select",
        "Größe in cm",
        "a.b",
        "say \"x\"",
        "it's",
        " x ",
        "orders",
        "count",
        "id",
    ]);
    let any = any::<String>().prop_map(|text| {
        let text: String = text.chars().filter(|letter| *letter != '\0').collect();
        let end = text.floor_char_boundary(63);
        if end == 0 { "x".to_owned() } else { text[..end].to_owned() }
    });
    prop_oneof![3 => known.prop_map(str::to_owned), 1 => any]
}

prop_compose! {
    fn any_column()(
        name in any_name(),
        content in prop::sample::select(CONTENTS.to_vec()),
        (is_readable, is_unique, is_reference) in (prop::bool::weighted(0.9), any::<bool>(), any::<bool>()),
        index in prop::option::of(prop::sample::select(vec![Index::BTree, Index::Brin])),
        distinct in prop::option::of(0.0..1e7),
    ) -> CatalogueColumn {
        CatalogueColumn { name, content, is_readable, is_unique, is_reference, index, distinct }
    }
}

prop_compose! {
    fn any_table()(
        (schema, name) in (any_name(), any_name()),
        bytes in 0..i64::MAX,
        rows in prop::option::of(0.0..1e12),
        (is_readable, is_filtered, is_rollup) in
            (prop::bool::weighted(0.9), prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        columns in prop::collection::vec(any_column(), 0..12),
    ) -> CatalogueTable {
        // PostgreSQL has each name once.
        let mut seen = std::collections::HashSet::new();
        let columns = columns.into_iter().filter(|it| seen.insert(it.name.clone())).collect();
        let name = TableName { schema: Some(schema), name };
        CatalogueTable { name, bytes, rows, is_readable, is_filtered, is_rollup, is_view: false, columns }
    }
}

proptest! {
    #[test]
    fn whatever_the_catalogue_says_the_file_is_read_as_it_was_meant(
        tables in prop::collection::vec(any_table(), 0..4),
        (first, last) in (prop::option::of(-1e15..1e15), prop::option::of(-1e15..1e15)),
        width in prop::sample::select(vec!["1 minute", "15 minutes", "1 hour", "1 day", "1 week", "1 month"]),
        seen in prop::sample::select(vec![Seen::Rows, Seen::Sample, Seen::Nowhere]),
        store in prop::sample::select(StoreKind::ALL.to_vec()),
        taken in prop::collection::vec(any_name(), 0..3),
    ) {
        let server = CatalogueServer { taken, ..server() };
        let range = TimeExtent { first, last, seen };
        for candidate in candidates(&tables) {
            let CountableTable { table, time, .. } = candidate;
            prop_assert!(table.is_readable && !table.is_filtered && !table.is_rollup);
            let slice = width.parse().unwrap();
            let draft = draft(&candidate, range, &server, (slice, store));
            is_read_as_meant(&draft)?;
            prop_assert!(!server.taken.contains(&draft.name));
            let used = draft.group_by.iter().chain(draft.measures.iter().filter_map(|(.., it)| it.as_ref()));
            for name in used.chain([&time.name]) {
                let column = table.columns.iter().find(|column| column.name == *name).unwrap();
                prop_assert!(column.is_readable);
            }
        }
    }
}
