//! The values of a thing as SQL: each has the type of its column, and numbers keep their digits.

use serde_json::value::RawValue;

use crate::clients::bubble::{CREATED, FieldType, Thing, instant};
use crate::model::hint::Fault;
use crate::model::sql::{literal, timestamptz};
use crate::model::text::shown;
use crate::source::reading::shape::Shape;

/// The row of `thing` in the order of the table's columns: time of creation, ID, fields.
pub(super) fn literals(thing: &Thing, shape: &Shape) -> Result<Vec<String>, Fault> {
    let mut row = vec![timestamptz(thing.created_at), text(thing, "_id", &thing.id)?];
    for (place, field) in shape.fields.iter().enumerate() {
        row.push(match place {
            0 => timestamptz(thing.modified_at),
            _ => value(thing, &field.name, &field.sql_type)?,
        });
    }
    Ok(row)
}

/// The value of one field. An absent key and `null` mean the same.
fn value(thing: &Thing, key: &str, sql_type: &str) -> Result<String, Fault> {
    let raw = match thing.values.get(key).map(|raw| RawValue::get(raw)) {
        None | Some("null") => return Ok(format!("NULL::{sql_type}")),
        Some(raw) => raw,
    };
    let unfit = |what: &str| {
        Err(Fault::new(format!(
            "field `{key}` of thing {} is {}, which is no {what}",
            shown(&thing.id),
            shown(raw)
        ))
        .remedy(
            "if its type has changed in the app, give the mirror another name, or take the field out \
             of `fields`",
        ))
    };
    match FieldType::of_column(sql_type) {
        Some(FieldType::Boolean) if matches!(raw, "true" | "false") => Ok(raw.to_owned()),
        Some(FieldType::Boolean) => unfit("yes or no"),
        Some(FieldType::Number) if is_number(raw) => Ok(format!("{}::numeric", literal(raw))),
        Some(FieldType::Number) => unfit("number"),
        Some(FieldType::Date) => match serde_json::from_str::<String>(raw) {
            Ok(date) => match instant(CREATED, &date) {
                Ok(at) => Ok(timestamptz(at)),
                Err(_) => unfit("date"),
            },
            Err(_) => unfit("date"),
        },
        Some(FieldType::Text) | None => match serde_json::from_str::<String>(raw) {
            Ok(given) => text(thing, key, &given),
            Err(_) => unfit("text"),
        },
    }
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn text(thing: &Thing, key: &str, given: &str) -> Result<String, Fault> {
    if given.contains('\0') {
        let facts = format!(
            "field `{key}` of thing {} contains a NUL character, which PostgreSQL cannot keep",
            shown(&thing.id)
        );
        return Err(Fault::new(facts).remedy("remove it in the app"));
    }
    Ok(format!("{}::text", literal(given)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The literal of a value that the app sends so. `None`: it lacks the field.
    fn literal_of(sent: Option<&str>, sql_type: &str) -> Result<String, Fault> {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let raw = |sent: &str| RawValue::from_string(sent.to_owned()).unwrap();
        let values = sent.map(|sent| ("field".to_owned(), raw(sent)));
        let thing = Thing {
            id: "1x1".to_owned(),
            created_at: at,
            modified_at: at,
            values: values.into_iter().collect(),
        };
        value(&thing, "field", sql_type)
    }

    #[test]
    fn numbers_keep_more_digits_than_a_float_has() {
        for digits in ["12345678901234567.89", "0.30", "-7", "1e-7"] {
            let sql = literal_of(Some(digits), "numeric").unwrap();
            assert_eq!(sql, format!("'{digits}'::numeric"));
        }
    }

    #[test]
    fn a_yes_or_no_that_was_never_set_is_no_no() {
        let flag = |sent| literal_of(sent, "boolean").unwrap();
        assert_eq!([flag(Some("true")), flag(Some("false"))], ["true", "false"]);
        for unset in [None, Some("null")] {
            assert_eq!(flag(unset), "NULL::boolean");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_the_things_id() {
        for (sent, sql_type) in [
            ("\"1\"", "numeric"),
            ("1", "boolean"),
            ("1", "text"),
            ("[]", "text"),
            ("\"yesterday\"", "timestamp with time zone"),
        ] {
            let fault = literal_of(Some(sent), sql_type).unwrap_err();
            assert!(fault.to_string().contains("field `field` of thing"), "{fault}");
            assert!(fault.to_string().contains("1x1"), "{fault}");
        }
    }
}
