//! Rows: keys, empty fields, numbers, dates, lists.

use serde_json::{Value, json};

use super::super::fake::datum::{address, date, texts};
use super::super::model::{Measure, group_by};
use super::*;

/// The row of an order.
fn row(fake: &Fake, id: &str) -> Value {
    get(fake, &format!("{ORDERS}/{id}"), Some(TOKEN)).json()["response"].clone()
}

#[test]
fn an_empty_field_is_left_out_or_null() {
    let fake = shop();
    let id = order(&fake, "Paid?", Datum::Flag(false));
    let expected = json!({
        "_id": id, "Created By": "admin_user_shop_test", "Paid?": false,
        "Created Date": "2026-03-01T12:00:00.000Z", "Modified Date": "2026-03-01T12:00:00.000Z",
    });
    assert_eq!(row(&fake, &id), expected);
    fake.app().live().shows_nulls = true;
    assert_eq!(row(&fake, &id)["Note"], Value::Null);
    assert_eq!(row(&fake, &id).as_object().unwrap().len(), 4 + 7);
}

#[test]
fn one_column_mixes_integers_and_doubles() {
    let fake = shop();
    let shown = |value: f64| {
        let id = order(&fake, "Amount", Datum::Number(value));
        let body = get(&fake, &format!("{ORDERS}/{id}"), Some(TOKEN)).body;
        let rest = body.split_once("\"Amount\":").unwrap().1.to_owned();
        rest.split([',', '}']).next().unwrap().to_owned()
    };
    let values = [12.0, 12.5, -3.0, 0.1 + 0.2, 0.0, 1e21, 1.5e-7, 1e20];
    let expected = [
        "12",
        "12.5",
        "-3",
        "0.30000000000000004",
        "0",
        "1e+21",
        "1.5e-7",
        "100000000000000000000",
    ];
    assert_eq!(values.map(shown), expected);
}

#[test]
fn dates_have_three_digits_and_lists_at_most_200_items() {
    let fake = shop();
    let due = order(&fake, "Due", date(ago(12 * 3_600_000 + 7)));
    assert_eq!(row(&fake, &due)["Due"], "2026-02-28T23:59:59.993Z");
    let tags = order(&fake, "Tags", texts(&["a"; 300]));
    assert_eq!(row(&fake, &tags)["Tags"].as_array().unwrap().len(), 200);
}

#[test]
fn an_address_and_a_user_have_nested_values() {
    let fake = shop();
    let id = {
        let mut app = fake.app();
        app.live().define("User", &[("Home", Kind::Address)]);
        let home = address("Main St 1, \"Rear\"", 52.5, -13.0);
        app.live().create("user", &New::at(ago(0)).with("Home", home))
    };
    let row = get(&fake, &format!("/api/1.1/obj/user/{id}"), Some(TOKEN)).json();
    let row = &row["response"];
    let home = json!({"address": "Main St 1, \"Rear\"", "lat": 52.5, "lng": -13});
    assert_eq!(row["Home"], home);
    assert!(row["authentication"].is_object(), "{row}");
}

#[test]
fn a_setting_says_whether_keys_are_names_or_ids() {
    let fake = shop();
    let id = order(&fake, "Paid?", Datum::Flag(true));
    assert_eq!(row(&fake, &id)["Paid?"], true);
    fake.app().live().has_captions = false;
    assert_eq!(row(&fake, &id)["paid__boolean"], true);
    assert_eq!(row(&fake, &id)["Paid?"], Value::Null);
    let sorted = get(&fake, &path(ORDERS, &[("sort_field", "Paid?")]), Some(TOKEN));
    assert_eq!(sorted.status, 404);
    fake.app().live().of("order").rename_field("Paid?", "Settled");
    assert_eq!(row(&fake, &id)["paid__boolean"], true, "an id outlasts a rename");
    fake.app().live().has_captions = true;
    assert_eq!(row(&fake, &id)["Settled"], true);
}

#[test]
fn fields_come_and_go() {
    let fake = shop();
    let id = order(&fake, "Note", text("hello"));
    let mut app = fake.app();
    app.live().of("order").add_field("Source", Kind::Choice("source"));
    app.live().edit("order", &id, ago(-60_000), &[("Source", Some(text("web")))]);
    app.live().of("order").delete_field("Note");
    drop(app);
    let row = row(&fake, &id);
    assert_eq!((&row["Source"], &row["Note"]), (&json!("web"), &Value::Null));
}

#[test]
fn an_edit_moves_the_modified_date_alone() {
    let fake = shop();
    let id = order(&fake, "Note", text("old"));
    fake.app().live().edit("order", &id, ago(-1), &[("Note", None)]);
    let row = row(&fake, &id);
    assert_eq!(row["Created Date"], "2026-03-01T12:00:00.000Z");
    assert_eq!(row["Modified Date"], "2026-03-01T12:00:00.001Z");
    assert_eq!(row["Note"], Value::Null);
}

#[test]
fn a_restored_database_is_as_it_was() {
    let fake = shop();
    let id = order(&fake, "Note", text("old"));
    let saved = fake.app().live().clone();
    fake.app().live().delete("order", &id);
    order(&fake, "Note", text("new"));
    *fake.app().live() = saved;
    assert_eq!(orders(&fake, &[]).ids(), [id]);
}

#[test]
fn the_model_groups_as_postgresql_does() {
    let fake = shop();
    let mut app = fake.app();
    let live = app.live();
    let made = [
        (3, Some("paid"), Some(12.0)),
        (3, Some("paid"), Some(12.5)),
        (3, Some("paid"), Some(0.1 + 0.2)),
        (3, None, None),
        (1, Some("open"), Some(-0.5)),
    ];
    for (days, status, amount) in made {
        let mut new = New::at(ago(days * 86_400_000)).with("Note", text("n"));
        if let Some(status) = status {
            new = new.with("Status", text(status));
        }
        if let Some(amount) = amount {
            new = new.with("Amount", Datum::Number(amount));
        }
        live.create("order", &new);
    }
    let day = |ms| DateTime::from_timestamp_millis(ms).unwrap().format("%F").to_string();
    let measures = [
        Measure::Count,
        Measure::Sum("Amount"),
        Measure::Min("Amount"),
        Measure::Max("Amount"),
        Measure::Distinct("Note"),
    ];
    let groups = group_by(live, "order", day, &["Status"], &measures);
    let shown = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
    let line = |(group, measures): (&Vec<_>, &Vec<_>)| {
        group.iter().chain(measures).map(shown).collect::<Vec<_>>().join(" ")
    };
    let lines: Vec<String> = groups.iter().map(line).collect();
    let expected = [
        "2026-02-26 - 1 - - - 1",
        "2026-02-26 paid 3 24.80000000000000004 0.30000000000000004 12.5 1",
        "2026-02-28 open 1 -0.5 -0.5 -0.5 1",
    ];
    assert_eq!(lines, expected);
}
