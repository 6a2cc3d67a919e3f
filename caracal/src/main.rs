//! `caracal`: one binary, five roles.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(role) if role == "ctl" => caracal::ctl::run(args.collect()),
        _ => ExitCode::FAILURE,
    }
}
