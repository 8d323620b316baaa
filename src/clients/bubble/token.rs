//! The app's token. It may write and delete everything there, so no output shows it.

use std::fmt;

use crate::clients::secret::{self, SecretError};

/// Where the token is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum AppToken {
    /// The token itself.
    Text(String),
    /// A parameter of AWS Systems Manager.
    Parameter(String),
    /// A secret of AWS Secrets Manager.
    Secret(String),
}

impl AppToken {
    /// The token's text, read from wherever it is kept.
    pub(super) async fn read(&self) -> Result<String, SecretError> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Parameter(name) => secret::parameter(name).await?,
            Self::Secret(name) => secret::secret(name).await?,
        };
        Ok(text.trim().to_owned())
    }
}

impl fmt::Debug for AppToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Parameter(name) => write!(f, "Parameter({name:?})"),
            Self::Secret(name) => write!(f, "Secret({name:?})"),
        }
    }
}
