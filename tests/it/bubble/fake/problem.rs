//! Answers that are errors, with their bodies.

use serde_json::json;

/// Why a request gets no rows.
#[derive(Debug)]
pub struct Problem {
    pub status: u16,
    pub body: String,
}

impl Problem {
    fn new(status: u16, name: &str, message: &str) -> Self {
        let body = json!({"statusCode": status, "body": {"status": name, "message": message}});
        Self { status, body: body.to_string() }
    }

    /// A token that the app does not know, or that has no right.
    pub fn unauthorized() -> Self {
        let body = json!({
            "error_class": "Unauthorized",
            "args": {"code": 1_432_216_892},
            "message": "Invalid API token",
            "translation": "Invalid API token",
        });
        Self { status: 401, body: body.to_string() }
    }

    /// A constraint or field that does not exist.
    pub fn not_found(message: &str) -> Self {
        Self::new(404, "NOT_FOUND", message)
    }

    pub fn no_field(field: &str, of: &str) -> Self {
        Self::not_found(&format!("Field not found {field} for type {of}"))
    }

    /// A type or thing that does not exist, or a type that is not ticked or not deployed.
    pub fn missing(what: &str) -> Self {
        Self::new(404, "MISSING_DATA", &format!("Missing object of type {what}"))
    }

    /// A parameter that cannot be read.
    pub fn invalid(message: &str) -> Self {
        Self::new(400, "INVALID_DATA", &format!("Invalid data: {message}"))
    }

    /// Any method but GET. A real app would obey it.
    pub fn method(name: &str) -> Self {
        Self::new(405, "ERROR", &format!("Method not allowed: {name}"))
    }

    /// An address of more than 2,000 characters.
    pub fn too_long() -> Self {
        Self { status: 414, body: "<html><body>Request-URI Too Large</body></html>".to_owned() }
    }
}
