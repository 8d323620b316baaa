//! What a store keeps: items with a key and named values.

use std::collections::HashMap;

/// The attribute that holds the first part of an item's key: the rollup's name.
pub const PK: &str = "pk";
/// The attribute that holds the second part: the slice's start, or a word for what concerns the
/// rollup as a whole.
pub const SK: &str = "sk";
/// The attribute that makes [`super::Sorts::Unfinished`] find an item: the rollup's name, absent
/// once the slice has succeeded.
pub const UNFINISHED: &str = "unfinished";

/// An item by the names of its attributes, those of its key included.
pub type Item = HashMap<String, Value>;

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
    /// A truth value. No worker writes one; it is kept where an operator wrote it.
    Bool(bool),
    /// A null. No worker writes one; it is kept where an operator wrote it.
    Null,
    /// A kind of value that no worker reads or writes; a copy of the item leaves it out.
    Other,
}

/// Which item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The rollup's name, or `*` for what concerns all rollups.
    pub rollup: String,
    /// The slice's start, or a word that begins with a letter and so sorts behind every slice.
    pub sort: String,
}

impl Key {
    /// The key of this rollup and this second part.
    #[must_use]
    pub fn new(rollup: &str, sort: &str) -> Self {
        Self { rollup: rollup.to_owned(), sort: sort.to_owned() }
    }

    /// The attributes that every item with this key has.
    #[must_use]
    pub fn to_item(&self) -> Item {
        let value = |text: &String| Value::Text(text.clone());
        Item::from([(PK.to_owned(), value(&self.rollup)), (SK.to_owned(), value(&self.sort))])
    }
}
