//! The answer of an app to a request, when nothing goes wrong.

use super::app::{App, Caller, Database, Door};
use super::bill::Bill;
use super::datum::quoted;
use super::meta;
use super::problem::Problem;
use super::schema::{Column, Findable, Rights, ThingType};
use super::search::Search;
use super::things::Thing;

/// Characters of a path with its parameters.
const ADDRESS_MAX: usize = 2_000;

/// A request, taken apart.
#[derive(Debug)]
pub struct Asked {
    pub method: String,
    /// The parts of the path, decoded.
    pub path: Vec<String>,
    /// The parameters, decoded.
    pub query: Vec<(String, String)>,
    /// Characters of both, encoded.
    pub length: usize,
    pub authorization: Option<String>,
}

impl Asked {
    /// A parameter. Of two with one name, the last.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().rev().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The app's answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub bill: Bill,
    /// Where each row of a page begins in the body, and where the last one ends.
    pub rows: Vec<usize>,
}

impl Answer {
    fn new(body: String, bill: Bill) -> Self {
        let bill = Bill { calls: 1, bytes: body.len(), ..bill };
        Self { status: 200, body, bill, rows: Vec::new() }
    }

    fn problem(problem: Problem) -> Self {
        Self { status: problem.status, ..Self::new(problem.body, Bill::default()) }
    }
}

/// A type of things as one caller sees it.
#[derive(Debug)]
struct View<'a> {
    database: &'a Database,
    of: &'a ThingType,
    rights: Rights,
    caller: &'a Caller,
}

/// The answer to a request. Things that tie are in the order of `seed`.
pub fn answer(app: &App, asked: &Asked, seed: u64) -> Answer {
    route(app, asked, seed).unwrap_or_else(Answer::problem)
}

fn route(app: &App, asked: &Asked, seed: u64) -> Result<Answer, Problem> {
    if asked.length > ADDRESS_MAX {
        return Err(Problem::too_long());
    }
    if asked.method != "GET" {
        return Err(Problem::method(&asked.method));
    }
    let caller = caller(app, asked)?;
    let mut path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
    let branch = if path.first() == Some(&"api") { "live" } else { path.remove(0) };
    let branch = if branch == "version-test" { "test" } else { branch };
    let database = app.at(branch).ok_or_else(|| Problem::missing(branch))?;
    match path[..] {
        ["api", "1.1", "meta"] => {
            enter(database.meta, caller)?;
            Ok(Answer::new(meta::meta(database), Bill::default()))
        }
        ["api", "1.1", "meta", "swagger.json"] => {
            enter(database.swagger, caller)?;
            Ok(Answer::new(meta::swagger(database), Bill::default()))
        }
        ["api", "1.1", "obj", of] => View::new(database, of, caller)?.page(asked, app.wall, seed),
        ["api", "1.1", "obj", of, id] => View::new(database, of, caller)?.thing(id),
        _ => Err(Problem::not_found(&asked.path.join("/"))),
    }
}

/// Who asks. A token that the app does not know is an error, and no token is none.
fn caller<'a>(app: &'a App, asked: &Asked) -> Result<&'a Caller, Problem> {
    let Some(header) = &asked.authorization else { return Ok(&Caller::Stranger) };
    let token = header.strip_prefix("Bearer ");
    token.and_then(|token| app.caller(token)).ok_or_else(Problem::unauthorized)
}

fn enter(door: Door, caller: &Caller) -> Result<(), Problem> {
    match door {
        Door::Open => Ok(()),
        Door::Token if *caller == Caller::Administrator => Ok(()),
        Door::Token | Door::Shut => Err(Problem::unauthorized()),
    }
}

impl<'a> View<'a> {
    fn new(database: &'a Database, of: &str, caller: &'a Caller) -> Result<Self, Problem> {
        let found = database.named(of).filter(|found| found.is_ticked);
        let of = found.ok_or_else(|| Problem::missing(of))?;
        let rights = match caller {
            Caller::Administrator => Rights::default(),
            Caller::User(_) => of.users.clone(),
            Caller::Stranger => of.public.clone(),
        };
        Ok(Self { database, of, rights, caller })
    }

    /// The user whose things alone are found.
    fn own(&self) -> Option<&str> {
        match (self.rights.findable, self.caller) {
            (Findable::All, _) => None,
            (Findable::Own, Caller::User(user)) => Some(user),
            // No user has this id.
            (Findable::Own | Findable::Nothing, _) => Some(""),
        }
    }

    /// A page of a search.
    fn page(&self, asked: &Asked, wall: usize, seed: u64) -> Result<Answer, Problem> {
        let mut search = Search::new(self.of, self.database.has_captions, &self.rights.hidden);
        search.own = self.own();
        for (name, value) in &asked.query {
            search.take(name, value)?;
        }
        search.take_order(|name| asked.parameter(name))?;
        let found = search.find(wall, seed);
        let mut body = format!("{{\"response\":{{\"cursor\":{},\"results\":[", search.cursor);
        let (mut rows, mut characters) = (vec![body.len()], 0);
        for slot in &found.page {
            if rows.len() > 1 {
                body.push(',');
            }
            let start = body.len();
            self.row(self.of.things.at(*slot), &mut body);
            characters += body[start..].chars().count();
            rows.push(body.len());
        }
        let count = found.page.len();
        body.push_str(&format!("],\"count\":{count}"));
        if search.counts {
            let remaining = found.total.saturating_sub(search.cursor + count);
            body.push_str(&format!(",\"remaining\":{remaining}"));
        }
        body.push_str("}}");
        let aggregates = usize::from(search.counts);
        let bill = Bill { searches: 1, things: count, characters, aggregates, ..Bill::default() };
        Ok(Answer { rows, ..Answer::new(body, bill) })
    }

    /// One thing. Of one that the rules hide, the id alone is sent.
    fn thing(&self, id: &str) -> Result<Answer, Problem> {
        let missing =
            || Problem::missing(&format!("{}: object with id {id} does not exist", self.of.name));
        let thing = self.of.things.find(id).ok_or_else(missing)?;
        let mut row = String::new();
        if self.own().is_none_or(|user| *thing.by == *user) {
            self.row(thing, &mut row);
        } else {
            row = format!("{{\"_id\":{}}}", quoted(id));
        }
        let bill = Bill { things: 1, characters: row.chars().count(), ..Bill::default() };
        Ok(Answer::new(format!("{{\"response\":{row}}}"), bill))
    }

    /// Appends a thing. Hidden and empty fields are left out.
    fn row(&self, thing: &Thing, out: &mut String) {
        out.push('{');
        let is_hidden = |name: &str| self.rights.hidden.contains(&name);
        for (key, column) in Column::BUILT_IN {
            if let Some(value) = column.of(thing).filter(|_| !is_hidden(key)) {
                out.push_str(&format!("\"{key}\":"));
                value.show(out);
                out.push(',');
            }
        }
        for (place, field) in self.of.fields.iter().enumerate() {
            if field.is_deleted || is_hidden(&field.display) {
                continue;
            }
            let key = quoted(field.key(self.database.has_captions));
            match thing.value(place) {
                Some(value) => {
                    out.push_str(&key);
                    out.push(':');
                    value.show(out);
                    out.push(',');
                }
                None if self.database.shows_nulls => out.push_str(&format!("{key}:null,")),
                None => {}
            }
        }
        if self.of.name == "user" {
            out.push_str("\"authentication\":{\"email\":{\"email_confirmed\":true}},");
        }
        if out.pop() == Some('{') {
            out.push('{');
        }
        out.push('}');
    }
}
