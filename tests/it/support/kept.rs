//! Systems Manager and Secrets Manager on loopback: names with the texts stored under them.

use std::collections::HashMap;
use std::io::BufReader;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::http::{Request, respond};
use super::listening::Listening;

/// The services.
pub struct Kept {
    /// Their address.
    pub endpoint: String,
    texts: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
    _listening: Listening,
}

impl Kept {
    pub fn start() -> Self {
        let (texts, asked) =
            (Arc::<Mutex<HashMap<_, _>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (known, all) = (Arc::clone(&texts), Arc::clone(&asked));
        let listening = Listening::start(move |stream| serve(&stream, &known, &all));
        Self { endpoint: listening.endpoint(), texts, asked, _listening: listening }
    }

    /// Stores a text under a name.
    pub fn keep(&self, name: &str, text: &str) {
        self.texts.lock().unwrap().insert(name.to_owned(), text.to_owned());
    }

    /// The actions that were called since the last call of this.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(
    stream: &TcpStream,
    texts: &Mutex<HashMap<String, String>>,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let request = Request::read(&mut reader)?;
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let action = request.headers["x-amz-target"].clone();
        asked.lock().unwrap().push(action.clone());
        let (name, is_parameter) = match &*action {
            "AmazonSSM.GetParameter" => {
                assert_eq!(body["WithDecryption"], true);
                (&body["Name"], true)
            }
            "secretsmanager.GetSecretValue" => (&body["SecretId"], false),
            _ => panic!("unexpected action {action}"),
        };
        let found = texts.lock().unwrap().get(name.as_str().unwrap()).cloned();
        let (status, answer) = match (found, is_parameter) {
            (Some(text), true) => {
                ("200 OK", json!({ "Parameter": { "Name": name, "Value": text } }))
            }
            (Some(text), false) => ("200 OK", json!({ "Name": name, "SecretString": text })),
            (None, true) => ("400 Bad Request", json!({ "__type": "ParameterNotFound" })),
            (None, false) => (
                "400 Bad Request",
                json!({ "__type": "ResourceNotFoundException", "message": "no such secret" }),
            ),
        };
        let headers = "Content-Type: application/x-amz-json-1.1\r\n";
        respond(stream, status, headers, answer.to_string().as_bytes())?;
    }
}
