//! Servers for machines without any: a PostgreSQL process, and a DynamoDB API in this process. The
//! same code talks to them as to any other server.

pub mod dynamodb;
pub mod postgres;
