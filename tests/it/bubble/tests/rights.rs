//! Tokens, privacy rules, databases, and an app's description.

use serde_json::{Value, json};

use super::super::ask::constraints;
use super::super::fake::{Author, Door, Findable, Rights};
use super::*;

/// The path of an app's description.
const META: &str = "/api/1.1/meta";

/// The path of the same as a Swagger file.
const SWAGGER: &str = "/api/1.1/meta/swagger.json";

#[test]
fn an_unknown_token_is_unauthorized() {
    let fake = shop_with(1);
    let reply = get(&fake, ORDERS, Some("another"));
    assert_eq!((reply.status, &reply.json()["error_class"]), (401, &json!("Unauthorized")));
    fake.app().revoke(TOKEN);
    assert_eq!(get(&fake, ORDERS, Some(TOKEN)).status, 401);
    assert_eq!(get(&fake, ORDERS, None).page().count, 1, "no token is no error");
}

#[test]
fn privacy_rules_leave_rows_out_without_a_sign() {
    let fake = shop_with(3);
    let anna = Author::new("1772000000000x000000000000000009", 0);
    let hers = {
        let mut app = fake.app();
        app.allow("ann4", Caller::User(anna.id.to_string()));
        let orders = app.live().of("order");
        orders.public.findable = Findable::Nothing;
        orders.users.findable = Findable::Own;
        app.live().create("order", &New::at(ago(0)).by(&anna))
    };
    let seen = |token| {
        let page = get(&fake, ORDERS, token).page();
        (page.ids(), page.remaining)
    };
    assert_eq!(seen(None), (Vec::new(), Some(0)));
    assert_eq!(seen(Some("ann4")), (vec![hers.clone()], Some(0)));
    assert_eq!(seen(Some(TOKEN)).0.len(), 4);
    let hidden = get(&fake, &format!("{ORDERS}/{hers}"), None);
    assert_eq!((hidden.status, hidden.json()), (200, json!({"response": {"_id": hers}})));
}

#[test]
fn a_constraint_on_a_hidden_field_is_dropped_without_a_sign() {
    let fake = shop_with(5);
    let hidden = vec!["Created Date", "Amount"];
    fake.app().live().of("order").public = Rights { findable: Findable::All, hidden };
    let impossible = constraints(&[
        ("Created Date", "greater than", json!("2030-01-01T00:00:00.000Z")),
        ("Amount", "greater than", json!(0)),
    ]);
    let parameters = [("constraints", &*impossible), ("sort_field", "Created Date")];
    assert_eq!(orders(&fake, &parameters).count, 0);
    let page = get(&fake, &path(ORDERS, &parameters), None).page();
    assert_eq!((page.count, page.remaining), (5, Some(0)));
    assert_eq!(page.rows[0].get("Created Date"), None);
    let mut sorted = page.ids();
    sorted.sort();
    assert_eq!(page.ids(), sorted, "the sort is dropped, too");
}

#[test]
fn live_test_and_branches_are_separate_databases() {
    let fake = shop_with(2);
    let test = format!("/version-test{ORDERS}");
    assert_eq!(get(&fake, &test, Some(TOKEN)).page().count, 0);
    let live = fake.app().live().clone();
    *fake.app().database("test") = live;
    assert_eq!(get(&fake, &test, Some(TOKEN)).page().count, 2, "live was copied over test");
    fake.app().database("next").define("Order", &[]);
    assert_eq!(get(&fake, &format!("/next{ORDERS}"), Some(TOKEN)).page().count, 0);
    assert_eq!(get(&fake, &format!("/gone{ORDERS}"), Some(TOKEN)).status, 404);
}

#[test]
fn a_type_is_served_once_it_is_ticked() {
    let fake = shop_with(1);
    fake.app().live().of("order").is_ticked = false;
    let reply = get(&fake, ORDERS, Some(TOKEN));
    assert_eq!((reply.status, &reply.json()["body"]["status"]), (404, &json!("MISSING_DATA")));
    assert_eq!(get(&fake, META, None).json()["get"], json!([]));
    assert_eq!(get(&fake, "/api/1.1/obj/nothing", Some(TOKEN)).status, 404);
}

#[test]
fn a_type_is_named_in_lower_case_without_spaces_and_the_first_wins() {
    let fake = shop();
    {
        let mut app = fake.app();
        app.live().define("Tbl. Bills", &[]);
        app.live().define("tbl.bills", &[]);
        app.live().create("tbl.bills", &New::at(ago(0)));
    }
    for name in ["tbl.bills", "Tbl.%20Bills"] {
        assert_eq!(get(&fake, &format!("/api/1.1/obj/{name}"), Some(TOKEN)).page().count, 1);
    }
}

#[test]
fn the_description_has_both_names_of_each_field() {
    let fake = shop();
    fake.app().live().of("order").add_field("Files", Kind::list_of(Kind::File));
    fake.app().live().of("order").add_field("Cart", Kind::Thing("cart"));
    fake.app().live().of("order").add_field("Old", Kind::Text);
    fake.app().live().of("order").delete_field("Old");
    let meta = get(&fake, META, None).json();
    let data = &meta["app_data"];
    assert_eq!(
        (&data["app_version"], &data["use_captions_for_get"]),
        (&json!("live"), &json!(true))
    );
    assert_eq!(meta["get"], json!(["order"]));
    assert_eq!(meta["types"]["order"]["display"], "Order");
    let fields = meta["types"]["order"]["fields"].as_array().unwrap();
    let field =
        |it: &Value| ["id", "display", "type"].map(|key| it[key].as_str().unwrap().to_owned());
    let fields: Vec<String> = fields.iter().map(|it| field(it).join(" | ")).collect();
    let expected = [
        "_id | unique ID | text",
        "Created Date | Created Date | date",
        "Modified Date | Modified Date | date",
        "Created By | Created By | user",
        "Slug | Slug | text",
        "status_option_state | Status | option.state",
        "amount_number | Amount | number",
        "paid__boolean | Paid? | boolean",
        "note_text | Note | text",
        "due_date | Due | date",
        "customer_user | Customer | user",
        "tags_list_text | Tags | list.text",
        "files_list_file | Files | list.file",
        "cart_custom_cart | Cart | custom.cart",
    ];
    assert_eq!(fields, expected);
    let test = get(&fake, &format!("/version-test{META}"), None).json();
    assert_eq!(test["app_data"]["app_version"], "test");
}

#[test]
fn the_swagger_file_has_the_keys_and_their_types() {
    let fake = shop();
    let swagger = get(&fake, SWAGGER, None).json();
    let fields = &swagger["definitions"]["order"]["properties"];
    assert_eq!(fields["Amount"], json!({"type": "number", "format": "float"}));
    assert_eq!(fields["Due"]["format"], "date-time");
    assert_eq!(fields["Tags"]["type"], "array");
    assert_eq!(fields["Customer"]["description"], "('user' represented by a unique ID)");
    fake.app().live().has_captions = false;
    let swagger = get(&fake, SWAGGER, None).json();
    assert!(swagger["definitions"]["order"]["properties"]["amount_number"].is_object());
}

#[test]
fn the_descriptions_may_need_a_token_or_be_hidden() {
    let fake = shop();
    let doors = [(Door::Open, [200, 200]), (Door::Token, [401, 200]), (Door::Shut, [401, 401])];
    for (door, expected) in doors {
        fake.app().live().meta = door;
        fake.app().live().swagger = door;
        for path in [META, SWAGGER] {
            let status = [None, Some(TOKEN)].map(|token| get(&fake, path, token).status);
            assert_eq!(status, expected, "{door:?} {path}");
        }
    }
}

#[test]
fn a_database_may_say_that_it_is_another() {
    let fake = shop();
    fake.app().live().version = "test".to_owned();
    assert_eq!(get(&fake, META, None).json()["app_data"]["app_version"], "test");
}
