//! The types of fields, where the app hides its description: from the values of some things.

use super::page::{Page, instant};
use super::{AppError, FieldType};
use crate::model::hint::Fault;
use crate::model::text::shown;

impl Page {
    /// The types of `fields`, by the first value that some thing of this page has of each.
    ///
    /// # Errors
    /// No thing has a value of one of them, or it is a list or an object.
    pub(crate) fn types_of(&self, fields: &[String]) -> Result<Vec<FieldType>, AppError> {
        fields.iter().map(|key| self.type_of(key)).collect()
    }

    fn type_of(&self, key: &str) -> Result<FieldType, AppError> {
        let values = self.things.iter().filter_map(|thing| thing.values.get(key));
        let Some(value) = values.map(|raw| raw.get()).find(|raw| *raw != "null") else {
            let facts = format!(
                "the app hides its description, and none of {} things has the field `{key}`, so its \
                 type is unknown",
                self.things.len()
            );
            return Err(AppError::Refused(Fault::new(facts).remedy(
                "let the app show /api/1.1/meta or its Swagger file while `tallymark init` runs, or \
                 take the field out of `fields`",
            )));
        };
        match value.as_bytes().first() {
            Some(b'"') => {
                let text: String = serde_json::from_str(value).unwrap_or_default();
                let is_date = instant(key, &text).is_ok();
                Ok(if is_date { FieldType::Date } else { FieldType::Text })
            }
            Some(b't' | b'f') => Ok(FieldType::Boolean),
            Some(b'[' | b'{') => {
                let facts = format!("field `{key}` holds {}, which no column holds", shown(value));
                Err(AppError::Refused(Fault::new(facts).remedy("take it out of `fields`")))
            }
            _ => Ok(FieldType::Number),
        }
    }
}
