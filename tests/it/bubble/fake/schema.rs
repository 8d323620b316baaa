//! Types and fields: their two names, their keys, and who may see and search what.

use super::datum::Datum;
use super::things::{Thing, Things};

/// The kind of a field's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Text,
    Number,
    Date,
    YesNo,
    Address,
    File,
    User,
    /// An option of a set.
    Choice(&'static str),
    /// A thing of another type.
    Thing(&'static str),
    List(Box<Kind>),
}

impl Kind {
    pub fn list_of(kind: Self) -> Self {
        Self::List(Box::new(kind))
    }

    /// Its name in `/meta`.
    pub fn name(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Date => "date".to_owned(),
            Self::YesNo => "boolean".to_owned(),
            Self::Address => "geographic_address".to_owned(),
            Self::File => "file".to_owned(),
            Self::User => "user".to_owned(),
            Self::Choice(set) => format!("option.{set}"),
            Self::Thing(of) => format!("custom.{of}"),
            Self::List(kind) => format!("list.{}", kind.name()),
        }
    }

    pub fn is_list(&self) -> bool {
        matches!(self, Self::List(_))
    }

    /// Whether `greater than` and `less than` compare its values.
    pub fn is_ordered(&self) -> bool {
        matches!(self, Self::Text | Self::Number | Self::Date)
    }
}

/// A field that the app's maker added.
#[derive(Clone, Debug)]
pub struct Field {
    /// `amount_number`: stays when the field is renamed.
    pub id: String,
    pub display: String,
    pub kind: Kind,
    pub is_deleted: bool,
}

impl Field {
    fn new(display: &str, kind: Kind) -> Self {
        let stem = display.to_lowercase().replace(|it: char| !it.is_alphanumeric(), "_");
        let id = format!("{stem}_{}", kind.name().replace('.', "_"));
        Self { id, display: display.to_owned(), kind, is_deleted: false }
    }

    /// Its key in rows and constraints.
    pub fn key(&self, has_captions: bool) -> &str {
        if has_captions { &self.display } else { &self.id }
    }
}

/// A column that a row, a constraint or a sort names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Id,
    Created,
    Modified,
    By,
    /// The part of an address that names a thing. No thing here has one.
    Slug,
    Field(usize),
}

impl Column {
    /// The fields that each type has. Their keys are the same under both settings.
    pub const BUILT_IN: [(&'static str, Self); 5] = [
        ("_id", Self::Id),
        ("Created Date", Self::Created),
        ("Modified Date", Self::Modified),
        ("Created By", Self::By),
        ("Slug", Self::Slug),
    ];

    pub fn of(self, thing: &Thing) -> Option<Datum> {
        match self {
            Self::Id => Some(Datum::Text(thing.id.clone())),
            Self::Created => Some(Datum::Date(thing.created)),
            Self::Modified => Some(Datum::Date(thing.modified)),
            Self::By => Some(Datum::Text(thing.by.clone())),
            Self::Slug => None,
            Self::Field(field) => thing.value(field).cloned(),
        }
    }
}

/// The things of a type that a caller finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Findable {
    #[default]
    All,
    /// Those that the user made.
    Own,
    Nothing,
}

/// The privacy rules of a type, for callers other than administrators. Without rules all is
/// allowed.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    pub findable: Findable,
    /// Names of columns whose values are not sent. A constraint on one, or a sort by it, is not
    /// applied.
    pub hidden: Vec<&'static str>,
}

/// A type of things.
#[derive(Clone, Debug)]
pub struct ThingType {
    /// Its name in paths: the display name in lower case, without spaces.
    pub name: String,
    pub display: String,
    pub fields: Vec<Field>,
    /// Whether the API serves it (Settings, API, Enable Data API).
    pub is_ticked: bool,
    /// For requests without a token.
    pub public: Rights,
    /// For requests with a user's token.
    pub users: Rights,
    pub things: Things,
}

impl ThingType {
    pub fn new(display: &str, fields: &[(&str, Kind)]) -> Self {
        Self {
            name: path_name(display),
            display: display.to_owned(),
            fields: fields.iter().map(|(name, kind)| Field::new(name, kind.clone())).collect(),
            is_ticked: true,
            public: Rights::default(),
            users: Rights::default(),
            things: Things::default(),
        }
    }

    /// Adds a field. Existing things have no value in it.
    pub fn add_field(&mut self, display: &str, kind: Kind) {
        self.fields.push(Field::new(display, kind));
    }

    /// Renames a field for the app's makers. Its id stays.
    pub fn rename_field(&mut self, from: &str, to: &str) {
        let field = self.field(from);
        self.fields[field].display = to.to_owned();
    }

    pub fn delete_field(&mut self, name: &str) {
        let field = self.field(name);
        self.fields[field].is_deleted = true;
    }

    /// The number of the field with this display name or id.
    pub fn field(&self, name: &str) -> usize {
        let is_it =
            |field: &Field| !field.is_deleted && (field.display == name || field.id == name);
        let found = self.fields.iter().position(is_it);
        found.unwrap_or_else(|| panic!("no field {name} in {}", self.name))
    }

    /// The column that a request names by its key.
    pub fn column(&self, key: &str, has_captions: bool) -> Option<Column> {
        let built_in = Column::BUILT_IN.iter().find(|(name, _)| *name == key);
        built_in.map(|(_, column)| *column).or_else(|| {
            let is_it = |field: &Field| !field.is_deleted && field.key(has_captions) == key;
            self.fields.iter().position(is_it).map(Column::Field)
        })
    }

    /// The kind of the column's values.
    pub fn kind(&self, column: Column) -> Kind {
        match column {
            Column::Id | Column::Slug => Kind::Text,
            Column::Created | Column::Modified => Kind::Date,
            Column::By => Kind::User,
            Column::Field(field) => self.fields[field].kind.clone(),
        }
    }
}

/// The name of a type as paths spell it.
pub fn path_name(display: &str) -> String {
    display.to_lowercase().replace(' ', "")
}
