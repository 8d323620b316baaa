//! The integration tests: one binary, one PostgreSQL server for all of them.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]
#![allow(clippy::print_stdout, reason = "a seed must be seen where a test fails")]

mod adopt;
mod anywhere;
mod apps;
mod bubble;
mod calendars;
mod capture;
mod capture_columns;
mod capture_functions;
mod checkpoints;
mod cli;
#[cfg(feature = "faults")]
mod compose;
mod consumers;
mod contact;
mod coverage;
#[cfg(all(feature = "faults", feature = "lambda"))]
mod crash;
mod dates;
mod defaults;
mod docs;
mod documents;
mod due;
mod dumps;
mod embedded_postgres;
mod estimate;
mod expressions;
#[cfg(feature = "lambda")]
mod fanout;
mod faults;
mod flights;
mod governor;
mod grafana;
mod guards;
#[cfg(feature = "faults")]
mod histories;
mod holds;
#[cfg(feature = "lambda")]
mod hostile;
mod identity;
mod indexes;
mod interrupt;
mod kill;
#[cfg(feature = "lambda")]
mod lambda;
mod layers;
mod live;
mod locks;
mod lookups;
#[cfg(feature = "lambda")]
mod loud;
mod many;
mod marks;
mod measured;
mod mutations;
mod new;
mod notices;
mod open;
mod origins;
#[cfg(feature = "otlp")]
mod otlp;
mod outage;
mod overview;
mod pace;
mod partitioned;
mod partitions;
mod paths;
mod plan_guard;
mod pooler;
mod preview;
mod purgeable;
mod recut;
#[cfg(feature = "lambda")]
mod remote;
mod repair;
mod restores;
mod retention;
mod roles;
mod rollup;
mod scripts;
mod scrub;
#[cfg(feature = "lambda")]
mod secrets;
mod series;
mod serve;
mod settings;
mod shapes;
mod soak;
mod sources;
mod spine;
mod store;
mod store_losses;
mod support;
mod tables;
mod tls;
mod together;
mod tokens;
mod types;
mod versions;
mod waits;
mod windows;
mod zones;
