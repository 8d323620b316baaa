//! Items in the form that every store returns as it was written, so that two stores can be compared.

use crate::checkpoint::store::{Item, Value};

/// The item without values that a store does not keep, in the form in which all of them write the
/// rest.
pub(super) fn item(item: &Item) -> Item {
    item.iter().filter_map(|(name, it)| Some((name.clone(), value(it)?))).collect()
}

fn value(it: &Value) -> Option<Value> {
    // PostgreSQL stores every character but this one.
    let storable = |text: &String| text.replace('\0', "\u{fffd}");
    Some(match it {
        Value::Text(text) => Value::Text(storable(text)),
        Value::Number(text) => Value::Number(number(text)),
        Value::Texts(texts) if texts.is_empty() => return None,
        Value::Texts(texts) => {
            let mut texts: Vec<String> = texts.iter().map(storable).collect();
            texts.sort();
            texts.dedup();
            Value::Texts(texts)
        }
        Value::Map(fields) => Value::Map(item(fields)),
        Value::Bool(_) | Value::Null => it.clone(),
        Value::Other => return None,
    })
}

/// Whole numbers are written alike everywhere, fractions as the nearest number of 64 bits.
fn number(text: &str) -> String {
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match text.parse::<f64>() {
        Ok(number) if !is_whole && number.is_finite() => number.to_string(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_stores_write_differently_are_the_same() {
        let number = |text: &str| value(&Value::Number(text.to_owned()));
        assert_eq!(number("0.50"), number("5e-1"));
        assert_eq!(number("2.0"), number("2"));
        // Beyond the precision of a fraction.
        assert_ne!(number("18446744073709551615"), number("18446744073709551614"));
        let texts = |texts: &[&str]| {
            value(&Value::Texts(texts.iter().map(|text| (*text).to_owned()).collect()))
        };
        assert_eq!(texts(&["b", "a"]), texts(&["a", "b"]));
        assert_eq!((texts(&[]), value(&Value::Other)), (None, None));
        let nested = Item::from([("x".to_owned(), Value::Other)]);
        assert_eq!(value(&Value::Map(nested)), Some(Value::Map(Item::new())));
    }
}
