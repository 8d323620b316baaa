//! The command line program `tallymark`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tallymark::cli::main().await
}
