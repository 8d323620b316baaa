//! Raw requests to the fake.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::fake::Fake;
pub use crate::support::serving::Reply;

impl Reply {
    /// The page of a search.
    pub fn page(&self) -> Page {
        assert_eq!(self.status, 200, "{self:?}");
        let response = &self.json()["response"];
        let count = |name: &str| usize::try_from(response[name].as_u64()?).ok();
        Page {
            rows: response["results"].as_array().unwrap().clone(),
            cursor: count("cursor").unwrap(),
            count: count("count").unwrap(),
            remaining: count("remaining"),
        }
    }
}

/// A page as its body states it.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub rows: Vec<Value>,
    pub cursor: usize,
    pub count: usize,
    pub remaining: Option<usize>,
}

impl Page {
    pub fn ids(&self) -> Vec<String> {
        self.column("_id")
    }

    /// The texts of one field.
    pub fn column(&self, key: &str) -> Vec<String> {
        self.rows.iter().map(|row| row[key].as_str().unwrap().to_owned()).collect()
    }
}

/// Sends a request, and reads until the server ends the connection.
pub fn ask(fake: &Fake, method: &str, path: &str, token: Option<&str>) -> Option<Reply> {
    let address = fake.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).unwrap();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{}Connection: close\r\n\r\n",
        token.unwrap_or_default()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    // A cut may fall within a character.
    Reply::parse(&String::from_utf8_lossy(&answer))
}

/// A path with these parameters, encoded.
pub fn path(path: &str, parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// The parameter of these constraints.
pub fn constraints(all: &[(&str, &str, Value)]) -> String {
    let all = all.iter().map(
        |(key, operator, value)| json!({"key": key, "constraint_type": operator, "value": value}),
    );
    Value::Array(all.collect()).to_string()
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
