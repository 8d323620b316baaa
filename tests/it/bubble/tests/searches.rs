//! Constraints, and the errors of a search.

use serde_json::{Value, json};

use super::super::ask::constraints;
use super::super::fake::datum::{date, texts};
use super::*;

/// The ids that a search with these constraints finds.
fn found(fake: &Fake, all: &[(&str, &str, Value)]) -> Vec<String> {
    orders(fake, &[("constraints", &constraints(all))]).ids()
}

/// The error of a search.
fn refused(fake: &Fake, parameters: &[(&str, &str)]) -> (u16, String, String) {
    let reply = get(fake, &path(ORDERS, parameters), Some(TOKEN));
    let (json, word) = (reply.json(), |it: &Value| it.as_str().unwrap_or_default().to_owned());
    assert_eq!(json["statusCode"], reply.status);
    (reply.status, word(&json["body"]["status"]), word(&json["body"]["message"]))
}

#[test]
fn greater_and_less_than_are_strict() {
    let fake = shop();
    let [first, second, third] =
        [2, 1, 0].map(|ms| fake.app().live().create("order", &New::at(ago(ms))));
    let after = |at: &str| found(&fake, &[("Created Date", "greater than", json!(at))]);
    let before = |at: &str| found(&fake, &[("Created Date", "less than", json!(at))]);
    assert_eq!(after("2026-03-01T11:59:59.999Z"), [&*third]);
    assert_eq!(before("2026-03-01T11:59:59.999Z"), [first]);
    let both = [
        ("Created Date", "greater than", json!("2026-03-01T11:59:59.998Z")),
        ("Created Date", "less than", json!(NOW.to_string())),
    ];
    assert_eq!(found(&fake, &both), [second]);
    let sorted = orders(
        &fake,
        &[("constraints", &constraints(&both)), ("sort_field", "Created Date"), ("limit", "1")],
    );
    assert_eq!((sorted.count, sorted.remaining), (1, Some(0)));
    fake.app().live().edit("order", &third, ago(-60_000), &[]);
    let edited = [("Modified Date", "greater than", json!(NOW.to_string()))];
    assert_eq!(found(&fake, &edited), [third]);
}

#[test]
fn each_operator_finds_its_things() {
    let fake = shop();
    let full = {
        let new = New::at(ago(0)).with("Status", text("paid")).with("Amount", Datum::Number(12.5));
        let new = new.with("Paid?", Datum::Flag(false)).with("Note", text("Blue shirt"));
        let new = new.with("Due", date(ago(0))).with("Tags", texts(&["a", "b"]));
        fake.app().live().create("order", &new.with("Customer", text("u1")))
    };
    let empty = fake.app().live().create("order", &New::at(ago(0)));
    let cases = [
        ("Status", "equals", json!("paid"), true, false),
        ("Status", "not equal", json!("paid"), false, true),
        ("Status", "in", json!(["open", "paid"]), true, false),
        ("Status", "not in", json!(["open"]), true, true),
        ("Customer", "equals", json!("u1"), true, false),
        ("Amount", "equals", json!(12.5), true, false),
        ("Amount", "greater than", json!(12), true, false),
        ("Amount", "less than", json!(12.5), false, false),
        ("Paid?", "equals", json!(false), true, false),
        ("Note", "is_empty", json!(null), false, true),
        ("Note", "is_not_empty", json!(null), true, false),
        ("Note", "text contains", json!("blue"), true, false),
        ("Note", "not text contains", json!("red"), true, true),
        ("Due", "less than", json!((NOW + 1).to_string()), true, false),
        ("Tags", "contains", json!("b"), true, false),
        ("Tags", "not contains", json!("b"), false, true),
        ("Tags", "empty", json!(null), false, true),
        ("Tags", "not empty", json!(null), true, false),
        ("Slug", "is_empty", json!(null), true, true),
        ("_id", "equals", json!(full), true, false),
        ("_id", "in", json!([empty]), false, true),
    ];
    for (key, operator, value, finds_full, finds_empty) in cases {
        let ids = found(&fake, &[(key, operator, value.clone())]);
        let is_found = [ids.contains(&full), ids.contains(&empty)];
        assert_eq!(is_found, [finds_full, finds_empty], "{key} {operator} {value}");
    }
    let both = [("Status", "equals", json!("paid")), ("Amount", "greater than", json!(13))];
    assert_eq!(found(&fake, &both), [""; 0], "all constraints hold together");
}

#[test]
fn what_does_not_exist_is_404_and_never_no_rows() {
    let fake = shop();
    let field = "Field not found NotAField for type order";
    let unknown = ("NotAField", "equals", json!(1));
    for parameter in
        [("constraints", constraints(&[unknown]).as_str()), ("sort_field", "NotAField")]
    {
        let expected = (404, "NOT_FOUND".to_owned(), field.to_owned());
        assert_eq!(refused(&fake, &[parameter]), expected);
    }
    let operators = [
        ("Note", "matches"),
        ("Note", "empty"),
        ("Tags", "equals"),
        ("Amount", "text contains"),
        ("Status", "greater than"),
        ("Created Date", "equals"),
    ];
    for (key, operator) in operators {
        let constraint = constraints(&[(key, operator, json!("1"))]);
        let (status, name, message) = refused(&fake, &[("constraints", &constraint)]);
        assert_eq!((status, name.as_str()), (404, "NOT_FOUND"), "{message}");
    }
    // The key that another client spells wrongly.
    let misspelt = json!([{"key": "Note", "constraint": "is_empty"}]).to_string();
    assert_eq!(refused(&fake, &[("constraints", &misspelt)]).0, 404);
    let none = get(&fake, &format!("{ORDERS}/1x1"), Some(TOKEN));
    assert_eq!(none.json()["body"]["status"], "MISSING_DATA");
    assert_eq!(none.status, 404);
}

#[test]
fn what_cannot_be_read_is_400() {
    let fake = shop();
    let bad = |key, operator, value| constraints(&[(key, operator, value)]);
    let parameters = [
        ("cursor", "x".to_owned()),
        ("cursor", "-1".to_owned()),
        ("limit", "0".to_owned()),
        ("exclude_remaining", "yes".to_owned()),
        ("constraints", "{}".to_owned()),
        ("constraints", bad("Created Date", "greater than", json!("yesterday"))),
        ("constraints", bad("Created Date", "greater than", json!(NOW))),
        ("constraints", bad("Amount", "greater than", json!("x"))),
        ("constraints", bad("Paid?", "equals", json!("no"))),
        ("constraints", bad("Status", "in", json!("paid"))),
    ];
    for (name, value) in parameters {
        let (status, kind, message) = refused(&fake, &[(name, &value)]);
        assert_eq!((status, kind.as_str()), (400, "INVALID_DATA"), "{name} {value}: {message}");
    }
    let more = [("sort_field", "_id"), ("additional_sort_fields", "_id")];
    assert_eq!(refused(&fake, &more).0, 400);
}

#[test]
fn an_unknown_parameter_is_ignored() {
    let fake = shop_with(2);
    let by_date = orders(&fake, &[("sort_field", "Created Date")]);
    let misspelt = [("sort_field", "Created Date"), ("sort_descending", "true")];
    assert_eq!(orders(&fake, &misspelt), by_date);
}

#[test]
fn an_address_has_at_most_2000_characters() {
    let fake = shop();
    let long = |length: usize| {
        let ids = vec!["x".repeat(100); length / 100];
        let constraint = constraints(&[("_id", "in", json!(ids))]);
        get(&fake, &path(ORDERS, &[("constraints", &constraint)]), Some(TOKEN)).status
    };
    assert_eq!((long(1_000), long(2_000)), (200, 414));
}
