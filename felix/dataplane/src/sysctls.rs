//! Kernel switches: forwarding for the host, and what a workload's link needs (Calico's configureProcSysForInterface).

use std::net::IpAddr;

use caracal_netlink::{Error, Family, Sysctls, sysctl};
use felix_calc::{Config, Workload};

/// Switches forwarding on for the host. Returns how many values had to be written.
pub(crate) fn for_host(config: &Config) -> Result<usize, Error> {
    if !config.ip_forwarding {
        return Ok(0);
    }
    let mut writes = usize::from(sysctl::set("ipv4/ip_forward", "1")?);
    if config.ipv6 && sysctl::read("ipv6/conf/all/forwarding")?.is_some() {
        writes += usize::from(sysctl::set_for_interface(Family::V6, "all", "forwarding", "1")?);
    }
    Ok(writes)
}

/// What new links begin with as reverse path filter, "1" when it cannot be read.
pub(crate) fn default_rp_filter() -> String {
    let value = sysctl::read_for_interface(Family::V4, "default", "rp_filter").ok().flatten();
    value.unwrap_or_else(|| "1".into())
}

/// Sets what a workload's link needs. Returns how many values had to be written.
///
/// `made`: the link is ours from birth, so its IPv6 needs no look-out for duplicates.
pub(crate) fn for_link(
    sysctls: &Sysctls,
    workload: &Workload,
    rp_filter: &str,
    ipv6: bool,
    made: bool,
) -> Result<usize, Error> {
    let iface = workload.iface.as_str();
    let rp_filter = if workload.spoofs { "0" } else { rp_filter };
    let mut writes = 0;
    let mut set = |family, key, value: &str| {
        sysctls.set_for_interface(family, iface, key, value).map(|changed| writes += usize::from(changed))
    };
    set(Family::V4, "route_localnet", "1")?;
    set(Family::V4, "proxy_arp", "1")?;
    set(Family::V4, "forwarding", "1")?;
    set(Family::V4, "rp_filter", rp_filter)?;
    if sysctls.has(Family::V6, iface, "accept_ra")? {
        // Calico sets these for workloads without IPv6 addresses, too, where they have no use.
        if ipv6 && workload.addresses.iter().any(IpAddr::is_ipv6) {
            if made {
                set(Family::V6, "accept_dad", "0")?;
            }
            set(Family::V6, "proxy_ndp", "1")?;
            set(Family::V6, "forwarding", "1")?;
        }
        // Best effort, as in Calico.
        let _ = set(Family::V6, "accept_ra", "0");
    }
    // Best effort: an answer without delay to the first ARP request.
    let _ = sysctls
        .set_for_neighbours(Family::V4, iface, "proxy_delay", "0")
        .map(|changed| writes += usize::from(changed));
    Ok(writes)
}
