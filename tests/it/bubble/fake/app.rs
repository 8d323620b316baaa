//! An app: its databases, its tokens, and what its makers and users do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use fastrand::Rng;

use super::datum::Datum;
use super::schema::{Kind, ThingType, path_name};
use super::things::Thing;

/// Offset past which a search of the shared cluster sends nothing.
const WALL: usize = 50_000;

/// The name of the app, which `/meta` tells.
pub const APP_NAME: &str = "shop";

/// In whose name a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A token of the app's settings. Privacy rules do not hold for it.
    Administrator,
    /// A token of the user with this id.
    User(String),
    /// A request without a token.
    Stranger,
}

/// An app with the databases `live` and `test`. Branches have further ones.
#[derive(Debug)]
pub struct App {
    databases: BTreeMap<String, Database>,
    tokens: HashMap<String, Caller>,
    /// Offset past which a search sends nothing.
    pub wall: usize,
    pub rng: Rng,
}

impl App {
    pub fn new(mut rng: Rng) -> Self {
        let databases = [("live", "live"), ("test", "test")]
            .map(|(name, version)| (name.to_owned(), Database::new(version, rng.fork())));
        Self { databases: databases.into(), tokens: HashMap::new(), wall: WALL, rng }
    }

    /// The database `live`, `test` or that of a branch, which is made when it is first named.
    pub fn database(&mut self, name: &str) -> &mut Database {
        let rng = &mut self.rng;
        let new = || Database::new(name, rng.fork());
        self.databases.entry(name.to_owned()).or_insert_with(new)
    }

    pub fn live(&mut self) -> &mut Database {
        self.database("live")
    }

    /// The database behind the first part of a path.
    pub fn at(&self, name: &str) -> Option<&Database> {
        self.databases.get(name)
    }

    /// Lets a token in, with the rights of this caller from now on.
    pub fn allow(&mut self, token: &str, caller: Caller) {
        self.tokens.insert(token.to_owned(), caller);
    }

    pub fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
    }

    pub fn caller(&self, token: &str) -> Option<&Caller> {
        self.tokens.get(token)
    }
}

/// Who gets an answer of `/meta` or of the Swagger file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    /// Those with a token.
    Token,
    Shut,
}

/// One of the app's databases, with the settings that were deployed to it. A clone of it is a
/// restore point, and assigning one restores it or copies one database over another.
#[derive(Clone, Debug)]
pub struct Database {
    /// The setting "Use field display instead of ID for key names".
    pub has_captions: bool,
    /// Whether an empty field is sent as `null`. Otherwise it is left out.
    pub shows_nulls: bool,
    /// The version that `/meta` names.
    pub version: String,
    pub meta: Door,
    pub swagger: Door,
    types: Vec<ThingType>,
    rng: Rng,
}

impl Database {
    fn new(version: &str, rng: Rng) -> Self {
        Self {
            has_captions: true,
            shows_nulls: false,
            version: version.to_owned(),
            meta: Door::Open,
            swagger: Door::Open,
            types: Vec::new(),
            rng,
        }
    }

    /// Adds a type of things, which the API serves.
    pub fn define(&mut self, display: &str, fields: &[(&str, Kind)]) -> &mut ThingType {
        self.types.push(ThingType::new(display, fields));
        self.types.last_mut().unwrap()
    }

    pub fn types(&self) -> &[ThingType] {
        &self.types
    }

    /// The type that a path names: of two with one name, the first.
    pub fn named(&self, name: &str) -> Option<&ThingType> {
        let name = path_name(name);
        self.types.iter().find(|it| it.name == name)
    }

    /// All things of a type, ascending by id.
    pub fn things(&self, of: &str) -> impl Iterator<Item = &Thing> {
        let things = &self.named(of).unwrap().things;
        things.by_id().iter().map(|slot| things.at(*slot))
    }

    /// The type of this name, to change it.
    pub fn of(&mut self, name: &str) -> &mut ThingType {
        let found = self.types.iter_mut().find(|it| it.name == name);
        found.unwrap_or_else(|| panic!("no type {name}"))
    }

    /// Creates a thing, and returns its id.
    pub fn create(&mut self, of: &str, new: &New) -> String {
        let id = self.new_id(new);
        let made_in = self.of(of);
        let mut values = vec![None; made_in.fields.len()];
        for (field, value) in &new.values {
            values[made_in.field(field)] = Some(value.clone());
        }
        let (created, by) = (new.at_ms, new.by.id.clone());
        let thing = Thing { id: id.as_str().into(), created, modified: created, by, values };
        made_in.things.add(thing);
        id
    }

    /// Creates things with one Created Date, as a bulk upload or a copy of a list does.
    pub fn bulk_create(&mut self, of: &str, count: usize, new: &New) -> Vec<String> {
        (0..count).map(|_| self.create(of, new)).collect()
    }

    /// Sets or empties fields. The Modified Date becomes `at`.
    pub fn edit(
        &mut self,
        of: &str,
        id: &str,
        at: DateTime<Utc>,
        values: &[(&str, Option<Datum>)],
    ) {
        let edited = self.of(of);
        let values: Vec<(usize, _)> =
            values.iter().map(|(field, value)| (edited.field(field), value.clone())).collect();
        let width = edited.fields.len();
        edited.things.change(id, |thing| {
            thing.modified = at.timestamp_millis();
            thing.values.resize(width, None);
            for (field, value) in values {
                thing.values[field] = value;
            }
        });
    }

    /// Deletes a thing, which leaves no trace.
    pub fn delete(&mut self, of: &str, id: &str) {
        self.of(of).things.remove(id);
    }

    /// 13 digits of the creating device's clock, and 18 of chance.
    fn new_id(&mut self, new: &New) -> String {
        let chance = self.rng.u64(..1_000_000_000_000_000_000);
        format!("{:013}x{chance:018}", new.at_ms + new.by.clock_ms)
    }
}

/// A user of the app, with a device.
#[derive(Clone, Debug)]
pub struct Author {
    /// The user's id.
    pub id: Arc<str>,
    /// The lead of the device's clock, which the ids of the things made on it show.
    pub clock_ms: i64,
}

impl Author {
    pub fn new(id: &str, clock_ms: i64) -> Self {
        Self { id: id.into(), clock_ms }
    }
}

/// A thing to create.
#[derive(Clone, Debug)]
pub struct New {
    at_ms: i64,
    by: Author,
    values: Vec<(&'static str, Datum)>,
}

impl New {
    /// One with this Created Date. A date in the past is that of a workflow which lasted until now.
    pub fn at(at: DateTime<Utc>) -> Self {
        let by = Author::new("admin_user_shop_test", 0);
        Self { at_ms: at.timestamp_millis(), by, values: Vec::new() }
    }

    pub fn by(self, author: &Author) -> Self {
        Self { by: author.clone(), ..self }
    }

    /// Sets a field.
    pub fn with(mut self, field: &'static str, value: Datum) -> Self {
        self.values.push((field, value));
        self
    }
}
