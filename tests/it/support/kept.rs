//! Systems Manager and Secrets Manager on loopback: names and the texts that are kept under them.

use std::collections::HashMap;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::http::{Request, respond};

/// The services.
pub struct Kept {
    /// Where they are.
    pub endpoint: String,
    texts: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Kept {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (texts, asked) =
            (Arc::<Mutex<HashMap<_, _>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (known, all) = (Arc::clone(&texts), Arc::clone(&asked));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (known, all) = (Arc::clone(&known), Arc::clone(&all));
                thread::spawn(move || serve(&stream, &known, &all));
            }
        });
        Self { endpoint, texts, asked }
    }

    /// Keeps a text under a name.
    pub fn keep(&self, name: &str, text: &str) {
        self.texts.lock().unwrap().insert(name.to_owned(), text.to_owned());
    }

    /// The actions that were called since this was asked last.
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
