//! `ipam`: what is allocated, what is in use, and what can be given back.

mod check;
mod configure;
mod figures;
mod release;
mod report;
mod show;
mod split;

use caracal_model::AllocationAttribute;

use crate::ctl::args::Ipam;

/// `ipam …`.
pub(super) async fn run(command: &Ipam, allow_mismatch: bool) -> Result<bool, String> {
    match command {
        Ipam::Show(arguments) => show::show(arguments, allow_mismatch).await,
        Ipam::Check(arguments) => check::check(arguments, allow_mismatch).await,
        Ipam::Release(arguments) => release::release(arguments, allow_mismatch).await,
        Ipam::Split(arguments) => split::split(arguments, allow_mismatch).await,
        Ipam::Configure(arguments) => configure::configure(arguments, allow_mismatch).await,
    }
}

/// A fact that the allocator noted about an owner, empty if it did not.
fn fact<'a>(attribute: &'a AllocationAttribute, name: &str) -> &'a str {
    attribute.secondary.get(name).map_or("", String::as_str)
}
