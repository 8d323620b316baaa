//! Lambda's Invoke on loopback, with a real function behind it.

use std::io::BufReader;
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::http::{Request, respond};
use super::listening::Listening;
use super::runtime_api::{Answer, Function};

/// Serves `Invoke` of this function, with this delay before every answer.
pub fn serve(function: Function, delay: Duration) -> Listening {
    let function = Mutex::new(function);
    Listening::start(move |stream| answer(&stream, &function, delay))
}

fn answer(stream: &TcpStream, function: &Mutex<Function>, delay: Duration) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let request = Request::read(&mut reader)?;
        assert_eq!(request.path, "/2015-03-31/functions/tallymark/invocations");
        assert_eq!(request.headers["x-amz-invocation-type"], "RequestResponse");
        assert_eq!(request.headers["x-amz-log-type"], "Tail");
        let event: Value = serde_json::from_slice(&request.body).unwrap();
        let mut function = function.lock().unwrap();
        let before = function.log_lines().len();
        let answer = function.invoke(&event);
        thread::sleep(delay);
        let lines = function.log_lines()[before..].join("\n");
        // The last 4 KB, as Lambda returns it.
        let tail = &lines.as_bytes()[lines.len().saturating_sub(4096)..];
        let log = aws_smithy_types::base64::encode(tail);
        let (kind, body) = match answer {
            Answer::Response(body) => ("", body),
            Answer::Error(body) => ("X-Amz-Function-Error: Unhandled\r\n", body),
        };
        let headers =
            format!("Content-Type: application/json\r\nX-Amz-Log-Result: {log}\r\n{kind}");
        respond(stream, "200 OK", &headers, body.to_string().as_bytes())?;
    }
}
