//! The dashboard for Grafana: each of its queries of PostgreSQL, as a reader of a target that `init` made.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::cli::{Place, daily, day};

/// The dashboard's variables with the values that a person chose.
const CHOSEN: [(&str, &str); 4] =
    [("schema", "stats"), ("rollup", "daily"), ("measure", "events"), ("step", "1 day")];

/// The values below `value` of this key.
fn all_of<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    let own = value.get(key);
    let objects = value.as_object().into_iter().flat_map(|object| object.values());
    let inner = objects.chain(value.as_array().into_iter().flatten());
    own.into_iter().chain(inner.flat_map(|inner| all_of(inner, key))).collect()
}

/// A query as Grafana sends it: with the values of its variables, and the ends of the chosen time.
fn sent(query: &str) -> String {
    let mut sql = query.to_owned();
    for (name, value) in CHOSEN {
        sql = sql.replace(&format!("${{{name}:raw}}"), value);
        sql = sql.replace(&format!("${{{name}:sqlstring}}"), &format!("'{value}'"));
    }
    let [from, to] = [3, 0].map(|days| format!("'{}T00:00:00Z'", day(days)));
    sql = sql.replace("$__timeFrom()", &from).replace("$__timeTo()", &to);
    assert!(!sql.contains('$'), "{sql}");
    sql
}

/// The rows of a query, as objects.
async fn rows(reader: &mut PgConnection, query: &str) -> Vec<Value> {
    let sql = format!("SELECT to_jsonb(q)::text FROM ({}) q", sent(query));
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(reader).await.unwrap();
    rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

fn sum(rows: &[Value], column: &str) -> f64 {
    rows.iter().filter_map(|row| row[column].as_f64()).sum()
}

#[tokio::test]
async fn the_dashboard_for_grafana_shows_a_reader_what_is_there() {
    let (place, _database) = Place::with_events(3).await;
    let role = format!("grafana_{:016x}", fastrand::u64(..));
    place.sql(&format!("CREATE ROLE {role}")).await;
    let readers = format!("readers = [\"{role}\"]\n[checkpoint]\nstore = \"postgres\"\n");
    place.configure(&(readers + &daily(3)));
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    // The newest day has changed since.
    let outstanding = format!(
        "INSERT INTO tallymark.outstanding (rollup, slice_start, slice_end, generation, since, reason) \
         VALUES ('daily', '{}Z', '{}Z', 1, now(), 'late change')",
        day(1),
        day(0)
    );
    place.sql(&outstanding).await;

    let text = include_str!("../../examples/grafana/tallymark.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    assert_eq!(dashboard["schemaVersion"], 39, "that of Grafana 11, which later ones migrate");
    let mut reader = PgConnection::connect(&place.target_url).await.unwrap();
    let as_role = AssertSqlSafe(format!("SET ROLE {role}"));
    sqlx::query(as_role).execute(&mut reader).await.unwrap();

    let mut lists = Vec::new();
    for variable in all_of(&dashboard, "list").iter().flat_map(|list| list.as_array().unwrap()) {
        if variable["type"] == "query" {
            let found = rows(&mut reader, variable["query"].as_str().unwrap()).await;
            let values = found.iter().flat_map(|row| row.as_object().unwrap().values().cloned());
            lists.push((variable["name"].as_str().unwrap(), values.collect::<Vec<_>>()));
        }
    }
    let named = |list: &[&str]| list.iter().map(|name| Value::from(*name)).collect::<Vec<_>>();
    assert_eq!(lists, [("rollup", named(&["daily"])), ("measure", named(&["events", "revenue"]))]);

    let queries: Vec<_> = all_of(&dashboard, "rawSql");
    assert_eq!(queries.len(), 7, "six panels and what marks the final numbers");
    let today = format!("{}T00:00:00+00:00", day(0));
    let yesterday = format!("{}T00:00:00+00:00", day(1));
    for query in queries {
        let query = query.as_str().unwrap();
        let found = rows(&mut reader, query).await;
        if query.contains("_series\"") {
            assert_eq!((sum(&found, "final"), sum(&found, "not final")), (480.0, 240.0), "{query}");
        } else if query.contains("slice_state") {
            let [slice] = &found[..] else { panic!("{found:?}") };
            assert_eq!(
                (&slice["state"], &slice["slice_end"]),
                (&"stale".into(), &today.clone().into())
            );
        } else {
            let [row] = &found[..] else { panic!("{query}: {found:?}") };
            let final_until = row.get("complete_through").or(row.get("time"));
            assert!(final_until.is_none_or(|it| *it == *yesterday), "{query}: {row}");
            assert!(row.get("stale").is_none_or(|it| *it == 1), "{query}: {row}");
        }
    }
    place.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
