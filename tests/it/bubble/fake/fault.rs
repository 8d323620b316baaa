//! Ways in which an answer goes wrong.

use std::time::Duration;

use super::answer::Answer;
use super::bill::Bill;

/// A fault of one answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An error of the server, with an HTML body: 500, 502, 503 or 504.
    Status(u16),
    /// 429, with `Retry-After` in seconds or without it.
    TooMany(Option<u64>),
    /// 200 with a page of maintenance or login.
    Html,
    /// This many rows are missing at the end of the page, whose `count` and `remaining` stay.
    Short(usize),
    /// The connection ends in the middle of the body.
    Cut,
    /// The connection ends without an answer.
    Hangup,
    /// The answer comes after this time.
    Slow(Duration),
    /// 302 to the same path below this address.
    Redirect(String),
    /// No header `Date`.
    NoDate,
    /// Another body.
    Body(fn(&str) -> String),
}

/// An answer as it leaves for the client.
#[derive(Debug)]
pub struct Sent {
    pub status: u16,
    /// Whole lines.
    pub headers: String,
    pub content_type: &'static str,
    pub body: String,
    /// Bytes of the body after which the connection ends. Without any of the answer it is `None`.
    pub cut: Option<Option<usize>>,
    pub wait: Duration,
    pub has_date: bool,
    pub bill: Bill,
}

impl Sent {
    /// The answer as it is.
    pub fn new(answer: &Answer, wait: Duration) -> Self {
        Self {
            status: answer.status,
            headers: String::new(),
            content_type: if answer.status == 414 { HTML } else { "application/json" },
            body: answer.body.clone(),
            cut: None,
            wait,
            has_date: true,
            bill: answer.bill,
        }
    }

    /// Breaks it. A request that never reached the app costs nothing.
    pub fn spoil(mut self, fault: &Fault, answer: &Answer, path: &str) -> Self {
        match fault {
            Fault::Status(status) => self.instead(*status, "An error occurred"),
            Fault::TooMany(after) => {
                let header = after.map(|seconds| format!("Retry-After: {seconds}\r\n"));
                Self {
                    headers: header.unwrap_or_default(),
                    ..self.instead(429, "Too many requests")
                }
            }
            Fault::Html => self.instead(200, "We are down for maintenance"),
            Fault::Redirect(to) => {
                let headers = format!("Location: {to}{path}\r\n");
                Self { headers, ..self.instead(302, "Moved") }
            }
            Fault::Short(rows) => {
                let kept = answer.rows.len().saturating_sub(1 + rows);
                if let (Some(from), Some(to)) = (answer.rows.get(kept), answer.rows.last()) {
                    self.body.replace_range(from..to, "");
                }
                self
            }
            Fault::Cut => Self { cut: Some(Some(self.body.len() / 2)), ..self },
            Fault::Hangup => Self { cut: Some(None), ..self },
            Fault::Slow(wait) => Self { wait: *wait, ..self },
            Fault::NoDate => Self { has_date: false, ..self },
            Fault::Body(change) => Self { body: change(&self.body), ..self },
        }
    }

    fn instead(self, status: u16, words: &str) -> Self {
        let body = format!("<!DOCTYPE html><html><body>{words}</body></html>");
        Self { status, body, content_type: HTML, bill: Bill::default(), ..self }
    }
}

const HTML: &str = "text/html";
