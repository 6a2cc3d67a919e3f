//! `ipam release`: one address, or what a report calls leaked.

use std::net::IpAddr;

use serde_json::Value;

use super::super::console::{complain, line, out};
use super::super::session;
use super::report::{Allocation, LeakedHandle, Report};
use crate::ctl::args::IpamRelease;
use crate::ctl::client::{self, Client, Release};
use crate::ctl::error::Error;

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
    let unassigned = client::release(client, &[Release::address(address)])
        .await
        .map_err(|e| format!("cannot release {address}: {e}"))?;
    if !unassigned.is_empty() {
        return Err(format!("IP address {address} is not assigned"));
    }
    line(format!("Successfully released IP address {address}"));
    Ok(true)
}

async fn from_reports(client: &Client, reports: &[Report], force: bool) -> Result<bool, String> {
    for reason in doubts(client, reports).await? {
        if !force {
            return Err(format!("{reason}, or use --force to release nevertheless"));
        }
        complain(format!("warning: {reason}"));
    }
    let released = addresses(client, &leaked_in_all(reports)).await?;
    let deleted = handles(client, &handles_in_all(reports)).await?;
    line("You may now unlock the data store.");
    Ok(released && deleted)
}

/// Why a release may hit addresses that are in use by now.
async fn doubts(client: &Client, reports: &[Report]) -> Result<Vec<String>, String> {
    let found = client
        .cluster_information()
        .await
        .map_err(|e| format!("cannot read the cluster information: {e}"))?;
    let field = |name: &str| {
        found.as_ref().and_then(|f| f.value.pointer(&format!("/spec/{name}")).cloned()).unwrap_or(Value::Null)
    };
    let guid = field("clusterGUID").as_str().unwrap_or_default().to_owned();
    let mut doubts = Vec::new();
    if let Some(other) = reports.iter().find(|r| r.cluster_guid != guid) {
        return Err(format!(
            "the report is of another cluster ({}, this one is {guid}); nothing was released",
            other.cluster_guid
        ));
    }
    if field("datastoreReady") != Value::Bool(false) {
        doubts
            .push("the datastore is not locked: lock it with `calicoctl datastore migrate lock`".to_owned());
    }
    if reports.iter().any(|r| !r.datastore_locked) {
        doubts.push(
            "the datastore was not locked when the report was made: lock it and make the report again"
                .to_owned(),
        );
    }
    if reports.iter().any(|r| r.version != session::VERSION) {
        doubts.push(format!("the report is of another version than {}: make it again", session::VERSION));
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
    let (mut released, mut gone, mut failed) = (0, 0, 0);
    for leak in leaks {
        let handle = Some(leak.handle.clone()).filter(|h| !h.is_empty());
        let wanted = Release { address: address(&leak.ip)?, handle, sequence: leak.sequence_number };
        match client::release(client, &[wanted]).await {
            Ok(unassigned) if unassigned.is_empty() => released += 1,
            Ok(_) => gone += 1,
            Err(error) => {
                failed += 1;
                complain(format!("{}: not released: {error}", leak.ip));
                if matches!(error, Error::Store(_)) {
                    return Err(format!(
                        "stopped after {released} of {} addresses; run the command again",
                        leaks.len()
                    ));
                }
            }
        }
    }
    if gone > 0 {
        line(format!("{gone} IPs were released already"));
    }
    match failed {
        0 => line(format!("Released {released} IPs successfully")),
        failed => complain(format!("Released {released} IPs; {failed} could not be released")),
    }
    Ok(failed == 0)
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
