//! The operator's tool: calicoctl's commands over the datastore.
//!
//! What it is: one process a command, each write one compare-and-swap, messages in calicoctl's words with more of the why.
//! What it is not: a client of Kubernetes; `datastore migrate export` and `import` say so.
//!
//! Start at [`run`].
//!
//! ```text
//!   args ──> commands ──┬─> input    files to objects in the shape of their kind
//!                       ├─> client   objects to keys and back, checks, addresses and blocks
//!                       ├─> output   objects to tables, YAML, JSON, templates
//!                       └─> bgp      the speaker: from the datastore, and as it runs
//! ```

mod args;
mod bgp;
mod client;
mod commands;
mod error;
mod input;
mod kinds;
mod output;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one command; `args` are the words behind the program's name and role.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let line = match args::Line::read(args) {
        Ok(line) => line,
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return commands::fail(&format!("cannot start: {error}")),
    };
    match runtime.block_on(commands::run(&line)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => commands::fail(&reason),
    }
}
