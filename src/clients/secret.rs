//! Addresses and texts stored in AWS: parameters of Systems Manager, secrets of Secrets Manager.
//!
//! Callers read them when first needed and cache them. [`crate::clients::db::Db`] reads again after
//! a refused login.

use std::borrow::Cow;

use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use serde_json::Value;

use crate::clients::address::{Address, DatabaseUrl, encoded};
use crate::clients::aws::root_cause;
use crate::model::hint::{Fault, Hinted};

/// Why a parameter or secret is unusable. It contains nothing of the value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SecretError(Fault);

impl SecretError {
    fn new(facts: impl Into<String>) -> Self {
        Self(Fault::new(facts))
    }
}

impl From<Fault> for SecretError {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl Hinted for SecretError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        self.0.hint()
    }
}

/// Reads the address from wherever it is stored.
///
/// # Errors
/// AWS refuses or cannot be reached, or the stored text is no address.
pub(crate) async fn read(address: &Address) -> Result<DatabaseUrl, SecretError> {
    let (text, place) = match address {
        Address::Url(url) => return Ok(url.clone()),
        Address::WithToken(address) => return Box::pin(read(address)).await,
        Address::Parameter(name) => (parameter(name).await?, "the parameter"),
        Address::Secret(name) => (secret(name).await?, "the secret"),
    };
    url_of(text.trim()).map_err(|fault| SecretError(fault.within(place)))
}

/// The text of a parameter, decrypted.
///
/// # Errors
/// AWS refuses or cannot be reached, or the parameter does not exist.
pub async fn parameter(name: &str) -> Result<String, SecretError> {
    let client = aws_sdk_ssm::Client::new(&crate::clients::aws::config().await);
    let answer = client.get_parameter().name(name).with_decryption(true).send().await;
    let answer = answer.map_err(|error| sdk_error("ssm", &error))?;
    let value = answer.parameter.and_then(|parameter| parameter.value);
    value.ok_or_else(|| SecretError::new("ssm: the parameter has no value"))
}

pub(super) async fn secret(name: &str) -> Result<String, SecretError> {
    let client = aws_sdk_secretsmanager::Client::new(&crate::clients::aws::config().await);
    let answer = client.get_secret_value().secret_id(name).send().await;
    let answer = answer.map_err(|error| sdk_error("secretsmanager", &error))?;
    answer.secret_string.ok_or_else(|| {
        SecretError(Fault::new("secretsmanager: the secret is binary").remedy("write it as text"))
    })
}

fn sdk_error<E>(service: &str, error: &SdkError<E>) -> SecretError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let text = match error.as_service_error().map(|it| (it.message(), it.code())) {
        Some((Some(message), Some(code))) => format!("{message} ({code})"),
        Some((None, Some(code))) => code.to_owned(),
        _ => root_cause(error),
    };
    SecretError::new(format!("{service}: {text}"))
}

/// The address in `text`: the text itself, or the JSON that RDS and Aurora store in a secret.
fn url_of(text: &str) -> Result<DatabaseUrl, Fault> {
    if !text.starts_with('{') {
        return DatabaseUrl::new(text);
    }
    let fields: Value = serde_json::from_str(text).map_err(|_| {
        Fault::new("the text is no JSON object").remedy("store an address, or a JSON object")
    })?;
    if let Some(url) = fields["url"].as_str() {
        return DatabaseUrl::new(url);
    }
    let field = |name: &str| match &fields[name] {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let required = |name: &str| {
        field(name).ok_or_else(|| {
            Fault::new(format!("the JSON has neither `url` nor `{name}`"))
                .remedy("write `url`, or `host`, `username`, `password` and `dbname`")
        })
    };
    let (user, password, host) = (required("username")?, required("password")?, required("host")?);
    let port = field("port").unwrap_or_else(|| "5432".to_owned());
    let database = field("database").map_or_else(|| required("dbname"), Ok)?;
    let options = ["sslmode", "connect_timeout"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", encoded(&field(name)?))))
        .collect::<Vec<_>>()
        .join("&");
    let options = if options.is_empty() { options } else { format!("?{options}") };
    DatabaseUrl::new(format!(
        "postgres://{}:{}@{host}:{port}/{}{options}",
        encoded(&user),
        encoded(&password),
        encoded(&database)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_each_form_that_secrets_have() {
        for (text, expected) in [
            ("postgres://app:p@db.example.com/shop", "postgres://app:p@db.example.com/shop"),
            (r#"{"url":"postgres://app@db/x"}"#, "postgres://app@db/x"),
            (
                r#"{"username":"a p","password":"p@/?#","host":"db","port":5433,"dbname":"shop","engine":"postgres"}"#,
                "postgres://a%20p:p%40%2F%3F%23@db:5433/shop",
            ),
            (
                r#"{"username":"a","password":"p","host":"db","dbname":"s","sslmode":"require"}"#,
                "postgres://a:p@db:5432/s?sslmode=require",
            ),
            (
                r#"{"username":"a","password":"p","host":"db","dbname":"s","sslmode":"require","connect_timeout":30}"#,
                "postgres://a:p@db:5432/s?sslmode=require&connect_timeout=30",
            ),
        ] {
            assert_eq!(url_of(text).unwrap().expose(), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_told_without_a_word_of_it() {
        for text in ["swordfish", "{swordfish}", r#"{"password":"swordfish"}"#] {
            let fault = url_of(text).unwrap_err();
            let said = fault.in_one_line();
            assert!(!said.contains("swordfish") && fault.hint().is_some(), "{said}");
        }
    }
}
