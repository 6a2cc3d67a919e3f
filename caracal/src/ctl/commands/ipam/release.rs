//! `ipam release`: one address, or what a report calls leaked.

use std::net::IpAddr;

use serde_json::Value;

use super::super::console::{complain, line, out};
use super::super::session;
use super::report::{Allocation, LeakedHandle, Report};
use crate::ctl::args::IpamRelease;
use crate::ctl::client::{self, Client, Release};

/// `ipam release`.
pub(super) async fn release(arguments: &IpamRelease, allow_mismatch: bool) -> Result<bool, String> {
    match (&arguments.ip, arguments.from_report.as_slice()) {
        (Some(ip), _) => {
            let address = address(ip)?;
            let client = session::open(&arguments.connection, allow_mismatch).await?;
            one(&client, address).await
        }
        (None, []) => {
            Err("name the address with --ip, or a report of ipam check with --from-report".to_owned())
        }
        (None, files) => {
            let reports = files.iter().map(|file| Report::read(file)).collect::<Result<Vec<_>, _>>()?;
            let client = session::open(&arguments.connection, allow_mismatch).await?;
            from_reports(&client, &reports, arguments.force).await
        }
    }
}

/// The address of a flag.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("invalid IP address specified: {text}; an address without prefix length is wanted")
    })
}

async fn one(client: &Client, address: IpAddr) -> Result<bool, String> {
    let kept = client::release(client, &[Release::address(address)])
        .await
        .map_err(|e| format!("cannot release {address}: {e}"))?;
    if !kept.unassigned.is_empty() {
        return Err(format!("IP address {address} is not assigned"));
    }
    line(format!("Successfully released IP address {address}"));
    Ok(true)
}

async fn from_reports(client: &Client, reports: &[Report], force: bool) -> Result<bool, String> {
    for reason in doubts(client, reports).await? {
        if !force {
            return Err(format!("{reason}, or re-run with --force."));
        }
        complain(format!("warning: {reason}"));
    }
    let released = addresses(client, &leaked_in_all(reports)).await?;
    let deleted = handles(client, &handles_in_all(reports)).await?;
    line("You may now unlock the data store.");
    Ok(released && deleted)
}

/// Why a release may hit addresses that are in use by now. A report of another cluster or of another time is an error that
/// nothing overrides.
async fn doubts(client: &Client, reports: &[Report]) -> Result<Vec<String>, String> {
    let found = client
        .cluster_information()
        .await
        .map_err(|e| format!("cannot read the cluster information: {e}"))?;
    let field =
        |pointer: &str| found.as_ref().and_then(|f| f.value.pointer(pointer).cloned()).unwrap_or(Value::Null);
    let text = |pointer: &str| field(pointer).as_str().unwrap_or_default().to_owned();
    let (guid, revision) = (text("/spec/clusterGUID"), text("/metadata/resourceVersion"));
    if let Some(other) = reports.iter().find(|r| r.cluster_guid != guid) {
        return Err(format!(
            "Cluster does not match the provided report: mismatched cluster GUID ({}, this one is {guid}). Refusing to release.",
            other.cluster_guid
        ));
    }
    if !reports.iter().any(|r| r.cluster_information_revision == revision) {
        return Err("The provided reports are all stale - at least one should be up-to-date. \
            Please generate a new report while the data store is locked and try again."
            .to_owned());
    }
    let mut doubts = Vec::new();
    if field("/spec/datastoreReady") != Value::Bool(false) {
        doubts.push("Data store is not locked. Either lock the data store".to_owned());
    }
    if let Some(other) = reports.iter().find(|r| r.version != session::VERSION) {
        let (theirs, ours) = (&other.version, session::VERSION);
        doubts.push(format!("The report was produced by version {theirs}, this is {ours}. Make it again"));
    }
    Ok(doubts)
}

/// What every report calls leaked, the same allocation in each.
fn leaked_in_all(reports: &[Report]) -> Vec<Allocation> {
    let Some((first, others)) = reports.split_first() else { return Vec::new() };
    let same = |a: &Allocation, b: &Allocation| {
        a.ip == b.ip && a.handle == b.handle && a.sequence_number == b.sequence_number
    };
    first
        .leaks()
        .filter(|leak| others.iter().all(|report| report.leaks().any(|other| same(leak, other))))
        .cloned()
        .collect()
}

fn handles_in_all(reports: &[Report]) -> Vec<LeakedHandle> {
    let Some((first, others)) = reports.split_first() else { return Vec::new() };
    let leaked = |report: &Report| report.leaked_handles.clone().unwrap_or_default();
    leaked(first)
        .into_iter()
        .filter(|handle| others.iter().all(|report| leaked(report).contains(handle)))
        .collect()
}

/// Releases each address only from the owner in the report.
async fn addresses(client: &Client, leaks: &[Allocation]) -> Result<bool, String> {
    if leaks.is_empty() {
        line("No addresses need to be released.");
        return Ok(true);
    }
    line(format!("Releasing {} old IPs...", leaks.len()));
    let wanted = |leak: &Allocation| {
        let handle = Some(leak.handle.clone()).filter(|h| !h.is_empty());
        address(&leak.ip).map(|address| Release { address, handle, sequence: leak.sequence_number })
    };
    let wanted = leaks.iter().map(wanted).collect::<Result<Vec<_>, _>>()?;
    let kept = client::release(client, &wanted)
        .await
        .map_err(|e| format!("cannot release them all: {e}; make the report again for the rest"))?;
    let released = leaks.len() - kept.unassigned.len() - kept.others.len();
    if !kept.unassigned.is_empty() {
        line("Warning: report contained addresses which are no longer allocated");
    }
    for address in &kept.others {
        complain(format!("{address} has been given to somebody else since the report; it was not released"));
    }
    line(format!("Released {released} IPs successfully"));
    Ok(kept.others.is_empty())
}

async fn handles(client: &Client, leaked: &[LeakedHandle]) -> Result<bool, String> {
    if leaked.is_empty() {
        return Ok(true);
    }
    line(format!("Deleting {} handles...", leaked.len()));
    line("Key: '.' = Deleted OK; 'x' = skip, handle missing/changed.");
    let (mut deleted, mut skipped, mut errors) = (0, 0, Vec::new());
    for handle in leaked {
        let rev = handle.revision.parse().unwrap_or_default();
        match client::delete_handle(client, &handle.id, rev).await {
            Ok(true) => {
                deleted += 1;
                out(".");
            }
            Ok(false) => {
                skipped += 1;
                out("x");
            }
            Err(error) => errors.push(format!("{}: {error}", handle.id)),
        }
    }
    out("\n");
    line(format!("Released {deleted} handles; {skipped} skipped; {} errors.", errors.len()));
    for error in &errors {
        complain(error);
    }
    Ok(errors.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_reports_call_leaked_goes() {
        let report = |ips: &[(&str, u64, bool)], handles: &[&str]| {
            let allocation = |(ip, sequence, in_use): &(&str, u64, bool)| {
                let one = Allocation {
                    ip: (*ip).to_owned(),
                    sequence_number: Some(*sequence),
                    in_use: *in_use,
                    ..Allocation::default()
                };
                ((*ip).to_owned(), vec![one])
            };
            let handle =
                |id: &&str| LeakedHandle { id: (*id).to_owned(), revision: "7".to_owned(), uid: None };
            Report {
                allocations: ips.iter().map(allocation).collect(),
                leaked_handles: Some(handles.iter().map(handle).collect()),
                ..Report::default()
            }
        };
        let reports = [
            report(
                &[
                    ("10.0.0.1", 1, false),
                    ("10.0.0.2", 2, false),
                    ("10.0.0.3", 3, false),
                    ("10.0.0.4", 4, true),
                ],
                &["a", "b"],
            ),
            report(&[("10.0.0.1", 1, false), ("10.0.0.2", 9, false), ("10.0.0.3", 3, true)], &["b"]),
        ];
        let ips: Vec<String> = leaked_in_all(&reports).into_iter().map(|a| a.ip).collect();
        assert_eq!(ips, ["10.0.0.1"]);
        assert_eq!(handles_in_all(&reports).len(), 1);
        assert_eq!(leaked_in_all(&reports[..1]).len(), 3);
    }
}
