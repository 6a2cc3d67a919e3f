//! The commands. Each tells its result and returns whether all went well, or the one reason why nothing was done.

pub(super) mod console;
mod datastore;
mod get;
mod ipam;
pub(super) mod names;
mod node;
mod patch;
pub(super) mod session;
mod summary;
mod version;
pub(super) mod write;

use std::process::ExitCode;

use super::args::{Command, Line};
use super::bgp;

/// Runs the command of a line.
pub(super) async fn run(line: &Line) -> Result<bool, String> {
    let allow = line.allow_version_mismatch;
    match &line.command {
        Command::Create(create) => write::create(create, allow).await,
        Command::Apply(objects) => write::apply(objects, allow).await,
        Command::Replace(objects) => write::replace(objects, allow).await,
        Command::Delete(delete) => write::delete(delete, allow).await,
        Command::Get(get) => get::get(get, allow).await,
        Command::Patch(patch) => patch::patch(patch, allow).await,
        Command::Label(label) => patch::label(label, allow).await,
        Command::Validate(objects) => write::validate(objects),
        Command::Version(version) => version::version(version).await,
        Command::Ipam(command) => ipam::run(command, allow).await,
        Command::Node(command) => node::run(command),
        Command::Bgp(command) => bgp::run(command, allow).await,
        Command::Datastore(command) => datastore::run(command, allow).await,
    }
}

/// Tells why a command failed.
pub(super) fn fail(reason: &str) -> ExitCode {
    console::complain(reason);
    ExitCode::FAILURE
}
