//! The content of a store: items with a key and named values.

use std::collections::HashMap;

/// The attribute with the first part of an item's key: the rollup's name.
pub(crate) const PK: &str = "pk";
/// The attribute with the second part: the slice's start, or a word for an item of the whole
/// rollup.
pub(crate) const SK: &str = "sk";
/// The attribute by which [`super::Sorts::Unfinished`] finds an item: the rollup's name. It is
/// absent once the slice has succeeded.
pub(crate) const UNFINISHED: &str = "unfinished";

/// An item by the names of its attributes, with those of its key.
pub(crate) type Item = HashMap<String, Value>;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number, in decimal digits.
    Number(String),
    /// A set of texts.
    Texts(Vec<String>),
    /// Named values.
    Map(Item),
    /// A truth value. Workers write none, and keep one that an operator wrote.
    Bool(bool),
    /// A null. Workers write none, and keep one that an operator wrote.
    Null,
    /// A kind of value that no worker reads or writes. A copy of the item leaves it out.
    Other,
}

/// The key of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The rollup's name, or `*` for all rollups.
    pub(crate) rollup: String,
    /// The slice's start, or a word. A word starts with a letter, and so sorts after every slice.
    pub(crate) sort: String,
}

impl Key {
    /// The key with this rollup and this second part.
    #[must_use]
    pub(crate) fn new(rollup: &str, sort: &str) -> Self {
        Self { rollup: rollup.to_owned(), sort: sort.to_owned() }
    }

    /// The attributes that every item with this key has.
    #[must_use]
    pub(crate) fn to_item(&self) -> Item {
        let value = |text: &String| Value::Text(text.clone());
        Item::from([(PK.to_owned(), value(&self.rollup)), (SK.to_owned(), value(&self.sort))])
    }
}
