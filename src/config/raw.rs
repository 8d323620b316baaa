//! A TOML reader that continues after a mistake. It records the problem, with line and dotted key,
//! and returns `None`.
//!
//! Derived deserialisation would stop at the first mistake.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

use toml::de::{DeTable, DeValue};

use super::error::Problem;
use crate::model::hint::{Fault, Hinted};
use crate::model::text::{listed, nearest, shown};

/// The text of a file and the problems found in it so far.
#[derive(Debug)]
pub(super) struct Document<'d> {
    text: &'d str,
    problems: RefCell<Vec<Problem>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        Self { text, problems: RefCell::default() }
    }

    /// Records a problem at the byte `offset`. `None`: the problem has no line.
    pub(super) fn note(&self, offset: Option<usize>, key: &str, fault: impl Into<Fault>) {
        let (message, hint) = fault.into().into_parts();
        let line = offset.map(|offset| line_at(self.text.as_bytes(), offset));
        let problem = Problem { line, key: key.to_owned(), message, hint };
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn is_sound(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// The line of the byte `offset`, from 1.
pub(super) fn line_at(bytes: &[u8], offset: usize) -> usize {
    1 + bytes[..offset.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// A table of the file.
#[derive(Clone, Debug)]
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    /// The dotted key, empty for the whole file.
    pub(super) key: String,
    /// Its offset, or `None` for the whole file.
    at: Option<usize>,
    table: &'d DeTable<'d>,
    /// Known keys that resemble an unknown one. They are not reported as missing too.
    meant: Vec<String>,
}

impl<'d> Section<'d> {
    pub(super) fn root(document: &'d Document<'d>, table: &'d DeTable<'d>) -> Self {
        Self { document, key: String::new(), at: None, table, meant: Vec::new() }
    }

    /// Records a problem of the table as a whole.
    pub(super) fn wrong<T>(&self, fault: impl Into<Fault>) -> Option<T> {
        self.document.note(self.at, &self.key, fault);
        None
    }

    /// The value of `key`, if present.
    pub(super) fn get(&self, key: &str) -> Option<Node<'d>> {
        let (found, value) = self.table.get_key_value(key)?;
        Some(self.node(found.get_ref(), found.span(), value.get_ref()))
    }

    /// The value of `key`. Its absence is recorded with `remedy`.
    pub(super) fn need(&self, key: &str, remedy: &str) -> Option<Node<'d>> {
        let found = self.get(key);
        if found.is_none() && !self.meant.iter().any(|meant| meant == key) {
            self.document.note(self.at, &self.child(key), Fault::new("missing").remedy(remedy));
        }
        found
    }

    /// All values, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(&'d str, Node<'d>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| {
                (key.get_ref().as_ref(), self.node(key.get_ref(), key.span(), value.get_ref()))
            })
            .collect();
        entries.sort_by_key(|(_, node)| node.at);
        entries
    }

    /// Records every key that is not `known`.
    pub(super) fn only(&mut self, known: &[&str]) {
        for (key, node) in self.entries() {
            if !known.contains(&key) {
                node.wrong::<()>(match nearest(key, known.iter().copied()) {
                    Some(near) => {
                        self.meant.push(near.to_owned());
                        Fault::new("unknown key").remedy(format!("did you mean `{near}`?"))
                    }
                    None => Fault::new("unknown key")
                        .remedy(format!("use {}", listed(known.iter().copied()))),
                });
            }
        }
    }

    /// Whether an unknown key resembles a known one.
    pub(super) fn has_typos(&self) -> bool {
        !self.meant.is_empty()
    }

    fn node(&self, key: &str, span: Range<usize>, value: &'d DeValue<'d>) -> Node<'d> {
        Node { document: self.document, key: self.child(key), at: span.start, value }
    }

    fn child(&self, key: &str) -> String {
        let bare =
            |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
        let key = match key {
            "" => "\"\"".to_owned(),
            key if key.chars().all(bare) => key.to_owned(),
            key => shown(key),
        };
        if self.key.is_empty() { key } else { format!("{}.{key}", self.key) }
    }
}

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) struct Node<'d> {
    document: &'d Document<'d>,
    pub(super) key: String,
    at: usize,
    value: &'d DeValue<'d>,
}

impl<'d> Node<'d> {
    /// Records that the value is wrong.
    pub(super) fn wrong<T>(&self, fault: impl Into<Fault>) -> Option<T> {
        self.document.note(Some(self.at), &self.key, fault);
        None
    }

    fn unexpected<T>(&self, expected: &str) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.wrong(format!("expected {expected}, found {found}"))
    }

    /// The string, if it is one.
    pub(super) fn as_str(&self) -> Option<&'d str> {
        self.value.as_str()
    }

    /// The boolean, if it is one.
    pub(super) fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// The value in JSON. A date or time becomes its text.
    pub(super) fn value(&self) -> serde_json::Value {
        json(self.value)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.as_bool().or_else(|| self.unexpected("true or false"))
    }

    /// The table, if it is one.
    pub(super) fn as_section(&self) -> Option<Section<'d>> {
        let table = self.value.as_table()?;
        Some(Section {
            document: self.document,
            key: self.key.clone(),
            at: Some(self.at),
            table,
            meant: Vec::new(),
        })
    }

    /// A string. `expected` describes it.
    pub(super) fn string(&self, expected: &str) -> Option<&'d str> {
        self.as_str().or_else(|| self.unexpected(expected))
    }

    /// A table. `expected` describes it.
    pub(super) fn section(&self, expected: &str) -> Option<Section<'d>> {
        self.as_section().or_else(|| self.unexpected(expected))
    }

    pub(super) fn is_array(&self) -> bool {
        self.value.is_array()
    }

    /// An array. `expected` describes it.
    pub(super) fn array(&self, expected: &str) -> Option<Vec<Node<'d>>> {
        let Some(array) = self.value.as_array() else { return self.unexpected(expected) };
        let nodes = array.iter().enumerate().map(|(index, item)| Node {
            document: self.document,
            key: format!("{}[{index}]", self.key),
            at: item.span().start,
            value: item.get_ref(),
        });
        Some(nodes.collect())
    }

    /// The text of a date or time, quoted or bare. `expected` describes it.
    pub(super) fn instant_text(&self, expected: &str) -> Option<String> {
        match self.value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Datetime(bare) => Some(bare.to_string()),
            _ => self.unexpected(expected),
        }
    }

    /// An integer in `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = self.value else { return self.unexpected(&expected) };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.wrong(format!("expected {expected}, found {}", number.as_str())),
        }
    }

    /// A number in `range`, with or without a fraction.
    pub(super) fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let text = match self.value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return self.unexpected(&expected),
        };
        match text.parse::<f64>() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.wrong(format!("expected {expected}, found {text}")),
        }
    }

    /// Records that `text` was refused because of `fault`, and quotes it. If the text cannot be
    /// shown as it is, `remedy` describes it instead.
    pub(super) fn refused<T>(&self, text: &str, fault: &impl Hinted, remedy: &str) -> Option<T> {
        let shown = shown(text);
        if shown.trim_matches('"') == text {
            self.wrong(Fault::of(fault))
        } else {
            self.wrong(Fault::new(format!("{shown} cannot be used here")).remedy(remedy))
        }
    }

    /// The name of a column, table or schema in PostgreSQL.
    pub(super) fn identifier(&self, expected: &str) -> Option<&'d str> {
        let name = self.string(expected)?;
        match identifier_fault(name) {
            Some((fault, remedy)) => {
                self.wrong(Fault::new(format!("{} {fault}", shown(name))).remedy(remedy))
            }
            None => Some(name),
        }
    }
}

fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().into()
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().ok().into(),
        DeValue::Boolean(is_true) => (*is_true).into(),
        DeValue::Datetime(at) => at.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())))
            .collect(),
    }
}

/// Why `name` is invalid as an identifier in PostgreSQL, and the remedy.
pub(super) fn identifier_fault(name: &str) -> Option<(&'static str, &'static str)> {
    /// PostgreSQL's NAMEDATALEN less one. It would cut off the rest without an error.
    const BYTES_MAX: usize = 63;
    if name.is_empty() {
        Some(("is empty", "write the name as PostgreSQL stores it"))
    } else if name.len() > BYTES_MAX {
        Some(("is longer than the 63 bytes that PostgreSQL keeps of a name", "shorten it"))
    } else if name.contains('\0') {
        Some(("contains a NUL character", "remove it"))
    } else {
        None
    }
}
