//! What speaks to servers: databases, queues, the secrets that hold addresses, the log.

pub mod address;
pub mod aws;
pub mod db;
pub mod queue;
pub mod secret;
