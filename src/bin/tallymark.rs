//! The command line program `tallymark`.

use std::io;
use std::panic::resume_unwind;
use std::process::ExitCode;

use tokio::runtime::Builder;

/// The stack of a thread, as large as that of a program's first one.
const STACK_BYTES: usize = 8 * 1024 * 1024;

fn main() -> io::Result<ExitCode> {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.enable_all().thread_stack_size(STACK_BYTES).build()?;
    // As a task of the runtime, the command runs on the thread that receives the servers' answers.
    // The first thread would have to be woken for each of them.
    let command = runtime.spawn(tallymark::cli::main());
    match runtime.block_on(command) {
        Ok(code) => Ok(code),
        Err(error) => error.try_into_panic().map_or(Ok(ExitCode::FAILURE), |it| resume_unwind(it)),
    }
}
