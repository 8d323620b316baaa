//! An app's description of its types: `/meta` and the Swagger file.

use serde_json::{Map, Value, json};

use super::app::{APP_NAME, Database};
use super::schema::{Column, Kind, ThingType};

/// `/api/1.1/meta`. Deleted fields are left out.
pub fn meta(database: &Database) -> String {
    let names = database.types().iter().filter(|it| it.is_ticked).map(|it| &it.name);
    let names: Vec<&String> = names.collect();
    let types = database.types().iter().map(|it| {
        let fields: Vec<Value> = built_in(it).into_iter().chain(own(it)).collect();
        (it.name.clone(), json!({"display": it.display, "fields": fields}))
    });
    json!({
        "get": names,
        "post": [],
        "types": types.collect::<Map<_, _>>(),
        "app_data": {
            "appname": APP_NAME,
            "app_version": database.version,
            "use_captions_for_get": database.has_captions,
            "domain": format!("{APP_NAME}.bubbleapps.io"),
        },
    })
    .to_string()
}

fn built_in(of: &ThingType) -> Vec<Value> {
    let field = |(key, column): (&str, Column)| {
        let display = if key == "_id" { "unique ID" } else { key };
        json!({"id": key, "display": display, "type": of.kind(column).name()})
    };
    Column::BUILT_IN.into_iter().map(field).collect()
}

fn own(of: &ThingType) -> impl Iterator<Item = Value> {
    let fields = of.fields.iter().filter(|field| !field.is_deleted);
    fields.map(|it| json!({"id": it.id, "display": it.display, "type": it.kind.name()}))
}

/// `/api/1.1/meta/swagger.json`, with the types that are ticked.
pub fn swagger(database: &Database) -> String {
    let definitions = database.types().iter().filter(|it| it.is_ticked).map(|it| {
        let built_in = Column::BUILT_IN.iter().map(|(key, column)| (*key, it.kind(*column)));
        let fields = it.fields.iter().filter(|field| !field.is_deleted);
        let fields = fields.map(|field| (field.key(database.has_captions), field.kind.clone()));
        let properties: Map<String, Value> =
            built_in.chain(fields).map(|(key, kind)| (key.to_owned(), property(&kind))).collect();
        (it.name.clone(), json!({"type": "object", "properties": properties}))
    });
    json!({
        "swagger": "2.0",
        "info": {"title": APP_NAME, "version": "1.1"},
        "definitions": definitions.collect::<Map<_, _>>(),
    })
    .to_string()
}

/// A field in the Swagger file. Only its description names the type that a reference leads to.
fn property(kind: &Kind) -> Value {
    match kind {
        Kind::Number => json!({"type": "number", "format": "float"}),
        Kind::YesNo => json!({"type": "boolean"}),
        Kind::Date => json!({"type": "string", "format": "date-time"}),
        Kind::Address => json!({"type": "object"}),
        Kind::List(kind) => json!({"type": "array", "items": property(kind)}),
        Kind::Thing(_) | Kind::User => {
            let name = kind.name();
            let description = format!("('{name}' represented by a unique ID)");
            json!({"type": "string", "description": description})
        }
        Kind::Text | Kind::File | Kind::Choice(_) => json!({"type": "string"}),
    }
}
