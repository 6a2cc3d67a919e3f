//! The pure part: which pool and which block an address belongs to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use caracal_model::selector::Selector;
use caracal_model::{IpPool, net};
use ipnet::IpNet;

/// A pool as far as claims need it.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name, for messages.
    pub name: String,
    /// Its prefix.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_length: u8,
    /// Not for new claims.
    pub disabled: bool,
    /// Nodes that may claim; `None` when the stored selector does not parse, which selects nobody.
    pub nodes: Option<Selector>,
}

impl Pool {
    /// The pool of a stored object; `None` when its prefix or block size is no such thing.
    pub fn of(object: &IpPool) -> Option<Self> {
        let cidr = net::parse_strict_prefix(object.spec.cidr.as_deref()?).ok()?;
        let block_length = object.spec.block_prefix_len()?;
        if block_length < cidr.prefix_len() || block_length > cidr.max_prefix_len() {
            return None;
        }
        Some(Self {
            name: object.name().to_owned(),
            cidr,
            block_length,
            disabled: object.spec.disabled == Some(true),
            nodes: Selector::parse(object.spec.node_selector.as_deref().unwrap_or_default()).ok(),
        })
    }

    /// Whether a node with these labels may claim blocks of it.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.disabled && self.nodes.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// The pool that holds an address: the longest prefix, should pools overlap.
pub fn pool_of(pools: &[Pool], address: IpAddr) -> Option<&Pool> {
    pools.iter().filter(|pool| pool.cidr.contains(&address)).max_by_key(|pool| pool.cidr.prefix_len())
}

/// The block of a pool around an address.
pub fn block_around(pool: &Pool, address: IpAddr) -> Option<IpNet> {
    let block = IpNet::new(address, pool.block_length).ok()?.trunc();
    pool.cidr.contains(&block).then_some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, cidr: &str, length: i32, selector: &str) -> Pool {
        let spec = caracal_model::IpPoolSpec {
            cidr: Some(cidr.into()),
            block_size: Some(length),
            node_selector: Some(selector.into()),
            ..Default::default()
        };
        Pool::of(&IpPool::new(name, spec)).unwrap()
    }

    #[test]
    fn the_block_around_an_address() {
        let pools = [pool("a", "10.100.0.0/16", 26, ""), pool("b", "fd00::/64", 122, "all()")];
        for (address, block) in [
            ("10.100.104.15", "10.100.104.0/26"),
            ("10.100.166.190", "10.100.166.128/26"),
            ("fd00::47", "fd00::40/122"),
        ] {
            let address = address.parse().unwrap();
            let pool = pool_of(&pools, address).unwrap();
            assert_eq!(block_around(pool, address).unwrap().to_string(), block);
        }
        assert!(pool_of(&pools, "10.101.0.1".parse().unwrap()).is_none());
    }

    #[test]
    fn a_pool_selects_by_labels() {
        let labels = BTreeMap::from([("rack".to_owned(), "r1".to_owned())]);
        assert!(pool("a", "10.0.0.0/8", 26, "rack == 'r1'").selects(&labels));
        assert!(!pool("a", "10.0.0.0/8", 26, "rack == 'r2'").selects(&labels));
    }
}
