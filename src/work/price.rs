//! The cost of work on AWS, by list prices.
//!
//! Prices of us-east-1 without any free tier, in US dollars, as published by AWS on the pages below
//! in November 2026: <https://aws.amazon.com/lambda/pricing/>,
//! <https://aws.amazon.com/dynamodb/pricing/on-demand/>, <https://aws.amazon.com/sqs/pricing/>,
//! <https://aws.amazon.com/cloudwatch/pricing/>. Other regions differ by up to half.

use serde::Serialize;

/// The date of the prices.
pub(crate) const PRICES_OF: &str = "2026-11";

/// Lambda on arm64: a gigabyte for a second, and an invocation.
const LAMBDA_GB_SECOND: f64 = 0.000_013_333_4;
const LAMBDA_REQUEST: f64 = 0.20e-6;

/// The function's memory. Tallymark needs 16 MB. More memory brings more processor time, of which
/// it uses little.
const LAMBDA_GB: f64 = 0.25;

/// DynamoDB on demand: a write of up to 1 KB, a consistent read of up to 4 KB.
const DYNAMODB_WRITE: f64 = 0.625e-6;
const DYNAMODB_READ: f64 = 0.125e-6;

/// Claim and complete. Each also changes the index `unfinished`.
const WRITES_PER_SLICE: f64 = 4.0;

/// The item with the operators' pauses.
const READS_PER_SLICE: f64 = 1.0;

/// SQS standard.
const SQS_REQUEST: f64 = 0.40e-6;

/// A tenth of a send, a receive, a delete.
const SQS_REQUESTS_PER_SLICE: f64 = 2.1;

/// CloudWatch Logs: a gigabyte ingested.
const LOGS_GB: f64 = 0.50;

/// A slice's summary line, its metrics line, and three lines of Lambda itself.
pub const LOG_BYTES_PER_SLICE: f64 = 2_000.0;

/// Cost in dollars by service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Dollars {
    /// Invocations and their time.
    pub(crate) lambda: f64,
    /// Checkpoints, where they are kept there.
    pub(crate) dynamodb: f64,
    /// Messages.
    pub(crate) sqs: f64,
    pub(crate) logs: f64,
}

impl Dollars {
    /// The cost of `slices` that took `elapsed_ms` in total, each in an invocation of its own, with
    /// their checkpoints in DynamoDB.
    #[must_use]
    pub(crate) fn of(slices: f64, elapsed_ms: f64) -> Self {
        Self {
            lambda: slices * LAMBDA_REQUEST + elapsed_ms / 1e3 * LAMBDA_GB * LAMBDA_GB_SECOND,
            dynamodb: slices
                * (WRITES_PER_SLICE * DYNAMODB_WRITE + READS_PER_SLICE * DYNAMODB_READ),
            sqs: slices * SQS_REQUESTS_PER_SLICE * SQS_REQUEST,
            logs: slices * LOG_BYTES_PER_SLICE / 1e9 * LOGS_GB,
        }
    }

    /// The same work with its checkpoints in PostgreSQL.
    #[must_use]
    pub(crate) const fn without_dynamodb(self) -> Self {
        Self { dynamodb: 0.0, ..self }
    }

    /// The cost of both.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            lambda: self.lambda + other.lambda,
            dynamodb: self.dynamodb + other.dynamodb,
            sqs: self.sqs + other.sqs,
            logs: self.logs + other.logs,
        }
    }

    #[must_use]
    pub(crate) fn total(&self) -> f64 {
        self.lambda + self.dynamodb + self.sqs + self.logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked by hand with the prices above: 8,760 slices of 100 ms.
    #[test]
    fn a_year_of_hours_costs_five_cents() {
        let year = Dollars::of(8_760.0, 876_000.0);
        let close = |found: f64, wanted: f64| (found - wanted).abs() < wanted * 0.01;
        assert!(close(year.lambda, 0.001_752 + 0.002_92), "{year:?}");
        assert!(close(year.dynamodb, 0.021_9 + 0.001_095), "{year:?}");
        assert!(close(year.sqs, 0.007_358), "{year:?}");
        assert!(close(year.logs, 0.008_76), "{year:?}");
        assert!(close(year.total(), 0.043_8), "{year:?}");
        assert!(close(year.without_dynamodb().total(), 0.020_8), "{year:?}");
    }
}
