//! The clients of servers: databases, queues, and the secrets that hold addresses.

pub mod address;
pub(crate) mod aws;
pub mod bubble;
#[cfg(feature = "otlp")]
pub(crate) mod collector;
pub mod db;
mod https;
pub mod queue;
pub mod secret;
pub(crate) mod token;
pub mod webhook;
