//! The meaning of the SDK's errors.

use std::error::Error;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};

use super::DynamoDb;
use crate::checkpoint::store::StoreError;
use crate::clients::aws::{place_of, root_cause};
use crate::model::text::cut;

/// The store's name in messages.
const STORE: &str = "dynamodb";

impl DynamoDb {
    /// A request that the SDK refuses to build.
    pub(super) fn unsendable(&self, operation: &'static str, error: BuildError) -> StoreError {
        let (table, problem) = (self.table.clone(), error.to_string());
        StoreError::Other { operation, table, problem, retryable: false, source: error.into() }
    }

    /// Classifies the SDK's error.
    pub(super) fn error<E>(&self, operation: &'static str, error: SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let table = self.table.clone();
        let unreachable = match &error {
            SdkError::TimeoutError(_) => true,
            // The kind "other" with a transient cause means that the connection was closed instead
            // of a reply.
            SdkError::DispatchFailure(failure) => {
                failure.is_io() || failure.is_timeout() || failure.as_other().is_some()
            }
            _ => false,
        };
        if unreachable {
            let problem = root_cause(&error);
            let (place, source) = (place_of("DYNAMODB"), error.into());
            return StoreError::Unreachable { store: STORE, operation, place, problem, source };
        }
        let server_fault = error.raw_response().is_some_and(|raw| raw.status().is_server_error());
        let Some(code) = error.as_service_error().and_then(|error| error.code()) else {
            let problem = root_cause(&error);
            // The SDK has no type for this. Without credentials no request is sent.
            if matches!(error, SdkError::DispatchFailure(_)) {
                let source = error.into();
                return StoreError::NoCredentials { operation, table, problem, source };
            }
            let retryable = server_fault || matches!(error, SdkError::ResponseError(_));
            let source = error.into();
            return StoreError::Other { operation, table, problem, retryable, source };
        };
        let message = cut(error.message().unwrap_or("no message"));
        let problem = format!("{message} ({code})");
        match code {
            "ResourceNotFoundException" => StoreError::NoTable { table },
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "RequestLimitExceeded" => {
                let source = error.into();
                StoreError::Throttled { store: STORE, operation, table, problem, source }
            }
            "AccessDeniedException"
            | "ExpiredTokenException"
            | "IncompleteSignatureException"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "UnrecognizedClientException" => denied(operation, table, problem, error.into()),
            "ValidationException" => {
                StoreError::Invalid { operation, table, problem, source: error.into() }
            }
            _ => {
                let conflict = code == "TransactionConflictException"
                    || code == "ReplicatedWriteConflictException";
                let retryable = server_fault || conflict;
                StoreError::Other { operation, table, problem, retryable, source: error.into() }
            }
        }
    }
}

fn denied(
    operation: &'static str,
    table: String,
    problem: String,
    source: Box<dyn Error + Send + Sync>,
) -> StoreError {
    StoreError::Denied { store: STORE, operation, table, problem, source }
}
