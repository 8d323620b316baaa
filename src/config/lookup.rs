//! Reads `lookup`, and finds the columns of lookups in expressions and conditions.

use std::collections::BTreeSet;

use crate::model::hint::Fault;
use crate::model::lookup::{Lookup, LookupKey};
use crate::model::operand::Operand;
use crate::model::rollup::{Rollup, TableName};
use crate::model::sql::ident;
use crate::model::text::shown;

use super::predicate::{begins_word, skip_token};
use super::raw::{Node, Section, identifier_fault};
use super::rollup::{is_name, table};

/// Bytes of a lookup's name, which leaves most of PostgreSQL's 63 to its columns.
pub(super) const NAME_MAX: usize = 20;

const FORM: &str = r#"write { account = "public.accounts", on = "account.id = account_id" }"#;

/// Reads the lookups of a rollup of the table `from`.
pub(super) fn read(section: &Section<'_>, from: Option<&TableName>) -> Option<Vec<Lookup>> {
    let Some(node) = section.get("lookup") else { return Some(Vec::new()) };
    let nodes = node.array(r#"an array such as [{ account = "public.accounts", on = "…" }]"#)?;
    let mut lookups: Vec<Option<Lookup>> = Vec::new();
    for node in &nodes {
        let is_taken = |name: &str| lookups.iter().flatten().any(|it: &Lookup| it.name == name);
        let found = one(node, from, is_taken);
        lookups.push(found);
    }
    lookups.into_iter().collect()
}

fn one(
    node: &Node<'_>,
    from: Option<&TableName>,
    is_taken: impl Fn(&str) -> bool,
) -> Option<Lookup> {
    let section = node.section(r#"a table such as { account = "public.accounts", on = "…" }"#)?;
    let on = section.need("on", r#"write on = "account.id = account_id""#);
    let others: Vec<_> = section.entries().into_iter().filter(|(key, _)| *key != "on").collect();
    let [(name, named)] = &others[..] else {
        return section.wrong(Fault::new("does not name one table").remedy(FORM));
    };
    let wrong = |facts: String, remedy: &str| named.wrong(Fault::new(facts).remedy(remedy));
    if !is_name(name) || name.len() > NAME_MAX {
        let facts = format!("{} cannot name a lookup", shown(name));
        return wrong(facts, "use at most 20 of a-z, 0-9 and _, and begin with a letter");
    }
    if is_taken(name) {
        return wrong(format!("{name:?} is the name of an earlier lookup"), "choose another");
    }
    if from.is_some_and(|from| from.name == *name) {
        let facts = format!("{name:?} is the name of the table that is counted");
        return wrong(facts, "choose another");
    }
    let table = table(named)?;
    if table.schema.is_none() {
        let remedy = format!("write schema.{0}, such as public.{0}", table.name);
        return wrong("the table of a lookup needs its schema".to_owned(), &remedy);
    }
    let on = equations(&on?, name, from)?;
    Some(Lookup { name: (*name).to_owned(), table, on, columns: BTreeSet::new() })
}

/// Reads `account.id = account_id AND account.tenant = tenant`.
fn equations(node: &Node<'_>, name: &str, from: Option<&TableName>) -> Option<Vec<LookupKey>> {
    let text = node.string(&format!(r#"an equation such as "{name}.id = {name}_id""#))?;
    let unequal = || {
        let facts = format!(
            "{} does not equate columns of the lookup with columns of the table",
            shown(text)
        );
        node.wrong(Fault::new(facts).remedy(format!(
            "write \"{name}.id = {name}_id\"; several equations are joined by AND"
        )))
    };
    let Some(mut found) = tokens(text).and_then(|tokens| parse(&tokens, name, from)) else {
        return unequal();
    };
    found.sort();
    let mut keys: Vec<_> = found.iter().map(|on| on.key.as_str()).collect();
    keys.dedup();
    if keys.len() < found.len() {
        return unequal();
    }
    fits(node, name, keys.into_iter())?;
    Some(found)
}

/// The tokens of a text without white space. `None`: it is no SQL.
fn tokens(text: &str) -> Option<Vec<String>> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (token, after) = token(rest)?;
        if !token.trim().is_empty() {
            tokens.push(token.to_owned());
        }
        rest = after;
    }
    Some(tokens)
}

fn parse(tokens: &[String], name: &str, from: Option<&TableName>) -> Option<Vec<LookupKey>> {
    let mut found = Vec::new();
    for equation in tokens.split(|token| token.eq_ignore_ascii_case("and")) {
        let mut sides = equation.split(|token| token == "=");
        let (left, right) = (member(sides.next()?)?, member(sides.next()?)?);
        if sides.next().is_some() {
            return None;
        }
        let is_own = |side: &Option<String>| side.as_deref() == Some(name);
        let is_of_table = |side: &Option<String>| {
            side.as_ref().is_none_or(|side| from.is_some_and(|from| from.name == *side))
        };
        let (key, column) = match (&left.0, &right.0) {
            (own, other) if is_own(own) && is_of_table(other) => (left.1, right.1),
            (other, own) if is_own(own) && is_of_table(other) => (right.1, left.1),
            _ => return None,
        };
        found.push(LookupKey { key, column });
    }
    Some(found)
}

/// `account.id`, or `id`.
fn member(tokens: &[String]) -> Option<(Option<String>, String)> {
    match tokens {
        [column] => Some((None, name_of(column)?)),
        [of, dot, column] if dot == "." => Some((Some(name_of(of)?), name_of(column)?)),
        _ => None,
    }
}

/// The first token of `text`, and the text after it.
fn token(text: &str) -> Option<(&str, &str)> {
    let mut rest = skip_token(text).ok()?;
    if text.starts_with('"') {
        // A doubled quote is part of the name.
        while rest.starts_with('"') {
            rest = skip_token(rest).ok()?;
        }
    }
    Some((&text[..text.len() - rest.len()], rest))
}

/// The name that a token stands for, as PostgreSQL stores it. `None`: the token is no name.
fn name_of(token: &str) -> Option<String> {
    if let Some(quoted) = token.strip_prefix('"') {
        return Some(quoted.strip_suffix('"')?.replace("\"\"", "\""));
    }
    let is_word = token.chars().next().is_some_and(begins_word) && !token.contains('\'');
    is_word.then(|| token.to_ascii_lowercase())
}

/// Reports columns whose names are too long beside that of the lookup, or invalid.
fn fits<'c>(node: &Node<'_>, name: &str, columns: impl Iterator<Item = &'c str>) -> Option<()> {
    for column in columns {
        let both = format!("{name}.{column}");
        let fault = identifier_fault(column).or_else(|| identifier_fault(&both));
        if let Some((fault, _)) = fault {
            let fault = Fault::new(format!("{} {fault}", shown(&both)));
            return node.wrong(fault.remedy("shorten the name of the lookup"));
        }
    }
    Some(())
}

/// Names the columns of lookups in all texts of `rollup`, and notes which of them are read.
pub(super) fn resolve(section: &Section<'_>, mut rollup: Rollup) -> Option<Rollup> {
    let Some(node) = section.get("lookup").filter(|_| !rollup.lookups.is_empty()) else {
        return Some(rollup);
    };
    let mut lookups = std::mem::take(&mut rollup.lookups);
    for key in &mut rollup.group_by {
        key.operand = operand(&mut lookups, &key.operand);
    }
    for measure in &mut rollup.measures {
        measure.rename(&mut |of| operand(&mut lookups, of));
        measure.filter = measure.filter.as_ref().map(|text| named(&mut lookups, text));
    }
    rollup.filter = rollup.filter.as_ref().map(|text| named(&mut lookups, text));
    for lookup in &lookups {
        let name = &lookup.name;
        if lookup.columns.is_empty() {
            let facts = format!("no expression and no condition reads the lookup `{name}`");
            return node.wrong(Fault::new(facts).remedy(format!(
                "write {name}.column where it is to be read: {{ country = \"{name}.country\" }}"
            )));
        }
        fits(&node, name, lookup.columns.iter().map(String::as_str))?;
    }
    Some(Rollup { lookups, ..rollup })
}

fn operand(lookups: &mut [Lookup], operand: &Operand) -> Operand {
    match operand.sql() {
        Some(sql) => Operand::expression(&named(lookups, sql)),
        None => operand.clone(),
    }
}

/// `text` with the columns of lookups by their names in statements.
fn named(lookups: &mut [Lookup], text: &str) -> String {
    let (mut written, mut rest, mut is_member) = (String::new(), text, false);
    while let Some((token, after)) = token(rest).filter(|_| !rest.is_empty()) {
        let of = name_of(token).filter(|_| !is_member);
        let lookup = of.and_then(|of| lookups.iter_mut().find(|lookup| lookup.name == of));
        if let Some((lookup, (column, after))) = lookup.zip(column_after(after)) {
            written.push_str(&ident(&lookup.named(&column)));
            lookup.columns.insert(column);
            rest = after;
            continue;
        }
        written.push_str(token);
        if !token.trim().is_empty() {
            is_member = token == ".";
        }
        rest = after;
    }
    written
}

/// The column after a dot, and the text after both.
fn column_after(text: &str) -> Option<(String, &str)> {
    let (token, after) = token(text.trim_start().strip_prefix('.')?.trim_start())?;
    Some((name_of(token)?, after))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn lookup(name: &str) -> Lookup {
        let table = TableName { schema: None, name: "t".to_owned() };
        Lookup { name: name.to_owned(), table, on: Vec::new(), columns: BTreeSet::new() }
    }

    #[test]
    fn columns_of_lookups_are_named_wherever_sql_names_a_column() {
        for (text, expected, columns) in [
            ("account.country", r#""account.country""#, &["country"][..]),
            ("lower(Account . Country)", r#"lower("account.country")"#, &["country"]),
            (r#""account"."Odd ""x""""#, r#""account.Odd ""x""""#, &["Odd \"x\""]),
            ("account.a || account.b", r#""account.a" || "account.b""#, &["a", "b"]),
            (
                "'account.x' || $$account.y$$ -- account.z",
                "'account.x' || $$account.y$$ -- account.z",
                &[],
            ),
            ("public.account.country", "public.account.country", &[]),
            ("my_account.country + account", "my_account.country + account", &[]),
            (r#""Account".country"#, r#""Account".country"#, &[]),
            ("(account).country", "(account).country", &[]),
            ("account.*", "account.*", &[]),
        ] {
            let mut lookups = [lookup("account")];
            assert_eq!(named(&mut lookups, text), expected);
            let found: Vec<_> = lookups[0].columns.iter().map(String::as_str).collect();
            assert_eq!(found, columns, "{text}");
        }
    }

    /// A dimension, a measure and what orders rows each read a column of their own.
    #[test]
    fn every_text_of_a_rollup_reads_columns_of_lookups() {
        let text = r#"
            source.url = "postgres://app@db/shop"
            [[rollup]]
            name = "r"
            from = "orders"
            time = "at"
            start = "2025-01-01"
            slice = "1 day"
            lookup = [{ account = "public.accounts", on = "account.id = account_id" }]
            group_by = [{ country = "account.a" }]
            where = "account.b"
            [rollup.measures]
            n = { count = true, where = "account.c" }
            newest = { last = { sql = "account.d" }, by = { sql = "lower(account.e)" } }
            oldest = { first = "x", by = "y" }
        "#;
        let config = Config::parse(Path::new("tallymark.toml"), text, &|_| None).unwrap();
        let rollup = &config.rollups[0];
        let columns: Vec<_> = rollup.lookups[0].columns.iter().map(String::as_str).collect();
        assert_eq!(columns, ["a", "b", "c", "d", "e"]);
        let read: Vec<_> = rollup.measures[1].reads().iter().map(Operand::definition).collect();
        let named = [r#""account.d""#, r#"lower("account.e")"#];
        assert_eq!(read, named.map(|sql| serde_json::json!({ "sql": sql })));
        assert_eq!(rollup.measures[2].parameters["by"], "y");
    }

    #[test]
    fn equations_pair_columns_of_the_lookup_with_columns_of_the_table() {
        let from = TableName { schema: None, name: "orders".to_owned() };
        let read = |text: &str| {
            let found = parse(&tokens(text)?, "account", Some(&from))?;
            let pairs = found.into_iter().map(|on| format!("{}={}", on.key, on.column));
            Some(pairs.collect::<Vec<_>>().join(" "))
        };
        for (text, expected) in [
            ("account.id = account_id", Some("id=account_id")),
            ("orders.account_id=Account.ID", Some("id=account_id")),
            (
                r#"account."Id" = "Account" and account.tenant = tenant"#,
                Some("Id=Account tenant=tenant"),
            ),
            ("account.id = account.id", None),
            ("id = account_id", None),
            ("account.id = other.account_id", None),
            ("account.id = lower(account_id)", None),
            ("account.id < account_id", None),
            ("account.id = account_id OR true", None),
            ("account.id = account_id = x", None),
            ("'", None),
            ("", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }
}
