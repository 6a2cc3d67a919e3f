//! Where a prefix is, as far as the datastore says: a node's block, a workload's address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Family;
use crate::facts::Facts;

/// Something in the datastore that has a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A block; the block object names its node.
    Block {
        /// The node.
        node: String,
    },
    /// An address of a workload.
    Workload {
        /// The node that it runs on.
        node: String,
        /// `namespace/name` of the WorkloadEndpoint.
        endpoint: String,
        /// Host end of its link.
        interface: Option<String>,
    },
}

impl Place {
    /// The node where it is.
    pub fn node(&self) -> &str {
        match self {
            Self::Block { node } | Self::Workload { node, .. } => node,
        }
    }
}

impl Facts {
    /// What has exactly this prefix, workloads first.
    pub fn places(&self, prefix: IpNet) -> Vec<Place> {
        let prefix = prefix.trunc();
        let mut places = Vec::new();
        if prefix.prefix_len() == prefix.max_prefix_len() {
            places.extend(self.workloads.iter().filter(|(_, w)| w.addresses.contains(&prefix.addr())).map(
                |(endpoint, w)| Place::Workload {
                    node: w.node.clone(),
                    endpoint: endpoint.clone(),
                    interface: w.interface.clone(),
                },
            ));
        }
        places.extend(self.blocks.get(&prefix).map(|node| Place::Block { node: node.clone() }));
        places
    }

    /// The smallest block around a prefix, and its node.
    pub fn block_around(&self, prefix: IpNet) -> Option<(IpNet, &str)> {
        let around = self.blocks.iter().filter(|(block, _)| block.contains(&prefix));
        around.max_by_key(|(block, _)| block.prefix_len()).map(|(block, node)| (*block, node.as_str()))
    }

    /// A node's BGP address.
    pub fn address_of(&self, node: &str, family: Family) -> Option<IpAddr> {
        self.nodes.get(node)?.address(family)
    }

    /// The node with this BGP address.
    pub fn node_at(&self, address: IpAddr) -> Option<&str> {
        self.nodes.iter().find(|(_, node)| node.has_address(address)).map(|(name, _)| name.as_str())
    }
}
