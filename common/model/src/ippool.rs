//! Address pools and reservations.

use crate::json::{record, text_enum};
use crate::object::Object;

/// A range of addresses for workloads.
pub type IpPool = Object<IpPoolSpec>;
/// Addresses that no new workload gets.
pub type IpReservation = Object<IpReservationSpec>;

text_enum! {
    /// Whether a pool's traffic is encapsulated.
    pub enum EncapMode { Never = "Never", Always = "Always", CrossSubnet = "CrossSubnet", }
    /// What addresses of a pool may be used for.
    pub enum PoolUse { Workload = "Workload", Tunnel = "Tunnel", HostSecondary = "HostSecondaryInterface", LoadBalancer = "LoadBalancer", }
    /// Whether a pool serves requests that do not name it.
    pub enum AssignmentMode { Automatic = "Automatic", Manual = "Manual", }
}

record! {
    /// A pool's prefix and how it is used.
    pub struct IpPoolSpec {
        /// The pool's prefix, without host bits.
        pub cidr: Option<String>,
        /// VXLAN; not ours, but it decides who programs routes.
        pub vxlan_mode: Option<EncapMode>,
        /// IPIP; not ours, but it decides who programs routes.
        pub ipip_mode: Option<EncapMode>,
        /// Masquerade traffic that leaves the pools.
        pub nat_outgoing: Option<bool>,
        /// No new addresses from it.
        pub disabled: Option<bool>,
        /// Not told to BGP peers.
        #[serde(rename = "disableBGPExport")]
        pub disable_bgp_export: Option<bool>,
        /// Prefix length of its blocks; 26 and 122 when unset.
        pub block_size: Option<i32>,
        /// Nodes that may claim blocks of it.
        pub node_selector: Option<String>,
        /// Namespaces whose workloads may use it.
        pub namespace_selector: Option<String>,
        /// What its addresses may be used for; workload and tunnel when empty.
        pub allowed_uses: Vec<PoolUse>,
        /// Whether it serves requests that do not name it.
        pub assignment_mode: Option<AssignmentMode>,
    }
    /// Prefixes that no new workload gets.
    pub struct IpReservationSpec {
        /// Prefixes.
        #[serde(rename = "reservedCIDRs")]
        pub reserved_cidrs: Vec<String>,
    }
}

impl IpPoolSpec {
    /// Block prefix length, with Calico's default for the pool's family.
    pub fn block_prefix_len(&self) -> Option<u8> {
        match self.block_size {
            Some(0) | None => self.cidr.as_deref().map(|cidr| if cidr.contains(':') { 122 } else { 26 }),
            Some(size) => u8::try_from(size).ok(),
        }
    }

    /// Whether the pool may serve `wanted`; an empty list allows workloads and tunnels.
    pub fn allows(&self, wanted: &PoolUse) -> bool {
        match self.allowed_uses.as_slice() {
            [] => matches!(wanted, PoolUse::Workload | PoolUse::Tunnel),
            uses => uses.contains(wanted),
        }
    }
}

impl IpPool {
    /// The condition `Allocatable` is False in the status: kube-controllers took the pool out of use.
    pub fn marked_unallocatable(&self) -> bool {
        let conditions =
            self.status.as_ref().and_then(|status| status.get("conditions")).and_then(|list| list.as_array());
        let word = |condition: &serde_json::Value, field: &str, wanted: &str| {
            condition.get(field).is_some_and(|v| v == wanted)
        };
        conditions.is_some_and(|list| {
            list.iter().any(|c| word(c, "type", "Allocatable") && word(c, "status", "False"))
        })
    }
}
