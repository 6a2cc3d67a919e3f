//! The standalone router alone: `router FILE`. The tests run it as a process of its own, to be killed and restarted.

use std::process::ExitCode;

fn main() -> ExitCode {
    caracal_process::log::init("Debug", caracal_process::log::Format::Text);
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: router FILE");
        return ExitCode::from(2);
    };
    match bird::run_standalone(std::path::Path::new(&path), false) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("router: {err:#}");
            ExitCode::FAILURE
        }
    }
}
