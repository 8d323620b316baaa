//! What an app tells of itself: its types, their fields, and how keys are named.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::AppError;
use crate::model::hint::Fault;
use crate::model::text::{listed, nearest};

/// The answer of `/api/1.1/meta`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Meta {
    #[serde(default)]
    types: BTreeMap<String, ThingType>,
    #[serde(default)]
    app_data: AppData,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct AppData {
    app_version: Option<String>,
    #[serde(default)]
    use_captions_for_get: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct ThingType {
    #[serde(default)]
    display: String,
    #[serde(default)]
    fields: Vec<AppField>,
}

#[derive(Clone, Debug, Deserialize)]
struct AppField {
    #[serde(default)]
    display: String,
    id: String,
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct Swagger {
    definitions: BTreeMap<String, Definition>,
}

#[derive(Deserialize)]
struct Definition {
    #[serde(default)]
    properties: BTreeMap<String, Property>,
}

#[derive(Deserialize)]
struct Property {
    #[serde(rename = "type", default)]
    kind: String,
    format: Option<String>,
}

impl Property {
    /// Bubble's word for the type.
    fn kind(&self) -> &str {
        match (self.kind.as_str(), self.format.as_deref()) {
            ("string", Some("date-time")) => "date",
            ("string", _) => "text",
            ("number" | "integer", _) => "number",
            (kind, _) => kind,
        }
    }
}

/// What some apps list beside their own fields.
const BUILT_IN: [&str; 3] = ["unique ID", "Created Date", "Modified Date"];

/// How a field's values are kept in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldType {
    Text,
    Number,
    Date,
    Boolean,
}

impl FieldType {
    /// The type of its column.
    #[must_use]
    pub(crate) const fn sql_type(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "numeric",
            Self::Date => "timestamp with time zone",
            Self::Boolean => "boolean",
        }
    }

    /// The type whose column is of this type.
    #[must_use]
    pub(crate) fn of_column(sql_type: &str) -> Option<Self> {
        let all = [Self::Text, Self::Number, Self::Date, Self::Boolean];
        all.into_iter().find(|kind| kind.sql_type() == sql_type)
    }

    /// The type of a field that Bubble calls `kind`. `None`: its values are lists or objects.
    fn of_bubble(kind: &str) -> Option<Self> {
        match kind {
            "text" | "file" | "image" | "user" => Some(Self::Text),
            "number" => Some(Self::Number),
            "date" => Some(Self::Date),
            "boolean" => Some(Self::Boolean),
            kind if kind.starts_with("custom.") || kind.starts_with("option.") => Some(Self::Text),
            _ => None,
        }
    }
}

impl Meta {
    pub(super) fn decode(body: &[u8]) -> Result<Self, AppError> {
        serde_json::from_slice(body).map_err(|_| {
            let fault = Fault::new("the app's /api/1.1/meta is no description of an app");
            AppError::Refused(fault.remedy("check `app` and `branch` in [source]"))
        })
    }

    /// The same from a Swagger file, which has the keys as things have them.
    pub(super) fn of_swagger(body: &[u8]) -> Result<Self, AppError> {
        let file: Swagger = serde_json::from_slice(body).map_err(|_| {
            let fault = Fault::new("the app's Swagger file is none");
            AppError::Refused(fault.remedy("check `app` and `branch` in [source]"))
        })?;
        let field = |(key, it): (String, Property)| AppField {
            display: key.clone(),
            id: key,
            kind: it.kind().to_owned(),
        };
        let types = file.definitions.into_iter().map(|(name, it)| {
            let fields = it.properties.into_iter().map(field).collect();
            (name.clone(), ThingType { display: name, fields })
        });
        Ok(Self { types: types.collect(), app_data: AppData::default() })
    }

    /// The types of these fields of a type, in a description of this branch.
    ///
    /// # Errors
    /// It describes another branch, or lacks the type or a field.
    pub(crate) fn fields_in(
        &self,
        branch: &str,
        thing: &str,
        fields: &[String],
    ) -> Result<Vec<FieldType>, AppError> {
        self.is_of_branch(branch)?;
        self.fields_of(thing, fields)
    }

    /// Refuses the database of another branch: live and test data are two databases.
    ///
    /// # Errors
    /// The app says that it is another one.
    fn is_of_branch(&self, branch: &str) -> Result<(), AppError> {
        let Some(version) = &self.app_data.app_version else { return Ok(()) };
        let is_same = match version.as_str() {
            "test" => branch == "version-test",
            version => version == branch,
        };
        if is_same {
            return Ok(());
        }
        let fault = Fault::new(format!(
            "the app answers for its branch `{version}`, and the configuration names `{branch}`: \
             these are two databases"
        ));
        Err(AppError::Refused(fault.remedy("set `branch` and `app` in [source] to the same one")))
    }

    /// The types of `fields` of the type `thing`, in their order.
    ///
    /// # Errors
    /// The app has no such type or field, names its keys in another way, or a field holds a list.
    fn fields_of(&self, thing: &str, fields: &[String]) -> Result<Vec<FieldType>, AppError> {
        let refused = |fault| Err(AppError::Refused(fault));
        let Some(found) = self.thing(thing) else {
            let known = self.types.iter().map(|(id, it)| in_address(&it.display, id));
            let known: Vec<String> = known.collect();
            let fault = Fault::new(format!("the app has no type `{thing}` in its Data API"));
            return refused(fault.remedy(match nearest(thing, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "tick the type in Settings → API and deploy; the app has {}",
                    listed(known.iter().map(String::as_str))
                ),
            }));
        };
        fields.iter().map(|key| self.field_of(found, thing, key)).collect()
    }

    fn field_of(&self, found: &ThingType, thing: &str, key: &str) -> Result<FieldType, AppError> {
        let by_display = self.app_data.use_captions_for_get;
        let name = |field: &AppField, by_display| match by_display {
            true => field.display.clone(),
            false => field.id.clone(),
        };
        if let Some(field) = found.fields.iter().find(|it| name(it, by_display) == key) {
            return FieldType::of_bubble(&field.kind).ok_or_else(|| {
                let fault = Fault::new(format!(
                    "field `{key}` of `{thing}` is of Bubble's type {}, which no column holds",
                    field.kind
                ));
                AppError::Refused(fault.remedy("take it out of `fields`"))
            });
        }
        if matches!(key, "Created By" | "Slug") {
            return Ok(FieldType::Text);
        }
        let other = found.fields.iter().find(|it| name(it, !by_display) == key);
        let fault = match other {
            Some(_) => Fault::new(format!(
                "the app names the keys of its Data API by {}, and `{key}` is a name by {}",
                if by_display { "display" } else { "ID" },
                if by_display { "ID" } else { "display" },
            )),
            None => Fault::new(format!("type `{thing}` of the app has no field `{key}`")),
        };
        // A mirror has the built-in ones in any case.
        let known = found.fields.iter().filter(|it| !BUILT_IN.contains(&it.display.as_str()));
        let known: Vec<String> = known.map(|it| name(it, by_display)).collect();
        let known = || known.iter().map(String::as_str);
        Err(AppError::Refused(fault.remedy(match (other, nearest(key, known())) {
            (Some(field), _) => format!("write `{}`", name(field, by_display)),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => format!("its fields are {}", listed(known())),
        })))
    }

    /// The type, by its name in the address: the display name in lower case and without spaces.
    fn thing(&self, name: &str) -> Option<&ThingType> {
        let plain = |text: &str| text.to_lowercase().replace(' ', "");
        let wanted = plain(name);
        let mut types = self.types.iter();
        let found = types.clone().find(|(id, it)| in_address(&it.display, id) == wanted);
        found.or_else(|| types.find(|(id, _)| plain(id) == wanted)).map(|(_, found)| found)
    }
}

/// A type's name in the address of the Data API.
fn in_address(display: &str, id: &str) -> String {
    let name = if display.is_empty() { id } else { display };
    name.to_lowercase().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hint::Hinted as _;

    fn meta(by_display: bool, version: &str) -> Meta {
        let text = format!(
            r#"{{"get":["order"],"types":{{"order":{{"display":"Order","fields":[
                {{"id":"status_option_status","display":"Status","type":"option.status"}},
                {{"id":"amount_number","display":"Amount","type":"number"}},
                {{"id":"items_list_custom_item","display":"Items","type":"list.custom.item"}},
                {{"id":"paid_boolean","display":"Paid?","type":"boolean"}}]}}}},
                "app_data":{{"appname":"shop","app_version":"{version}",
                "use_captions_for_get":{by_display}}}}}"#
        );
        Meta::decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn fields_have_the_types_that_the_app_tells_by_either_kind_of_key() {
        let types = [FieldType::Text, FieldType::Number, FieldType::Boolean];
        let ids = ["status_option_status", "amount_number", "paid_boolean"].map(str::to_owned);
        assert_eq!(meta(false, "live").fields_of("order", &ids).unwrap(), types);
        let displays = ["Status", "Amount", "Paid?"].map(str::to_owned);
        assert_eq!(meta(true, "live").fields_of("Order", &displays).unwrap(), types);
    }

    #[test]
    fn a_missing_type_or_field_a_list_and_other_keys_are_named() {
        for (by_display, thing, field, said, hint) in [
            (false, "ordr", "amount_number", "no type `ordr`", "`order`"),
            (false, "order", "amont_number", "no field `amont_number`", "`amount_number`"),
            (false, "order", "Amount", "by ID, and `Amount` is a name by display", "amount_number"),
            (true, "order", "amount_number", "by display, and", "`Amount`"),
            (true, "order", "Items", "list.custom.item, which no column holds", "`fields`"),
        ] {
            let error = meta(by_display, "live").fields_of(thing, &[field.to_owned()]).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(error.hint().is_some_and(|it| it.contains(hint)), "{error}");
        }
    }

    #[test]
    fn a_swagger_file_has_the_types_where_the_description_is_hidden() {
        let file = br#"{"swagger":"2.0","definitions":{"order":{"type":"object","properties":{
            "Status":{"type":"string"},"Amount":{"type":"number","format":"float"},
            "Due":{"type":"string","format":"date-time"},"Tags":{"type":"array"}}}}}"#;
        let meta = Meta::of_swagger(file).unwrap();
        let fields = ["Status", "Amount", "Due"].map(str::to_owned);
        let types = [FieldType::Text, FieldType::Number, FieldType::Date];
        assert_eq!(meta.fields_of("order", &fields).unwrap(), types);
        let error = meta.fields_of("order", &["Tags".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("array, which no column holds"), "{error}");
    }

    #[test]
    fn another_branch_than_the_configured_one_is_refused() {
        assert!(meta(false, "live").is_of_branch("live").is_ok());
        assert!(meta(false, "test").is_of_branch("version-test").is_ok());
        let error = meta(false, "test").is_of_branch("live").unwrap_err();
        assert!(error.to_string().contains("`test`"), "{error}");
    }
}
