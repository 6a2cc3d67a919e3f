//! The address pools, as far as an endpoint cares: which addresses lie in one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Every pool's network, disabled ones too: a disabled pool hands out nothing new, its addresses stay in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    by_name: BTreeMap<String, IpNet>,
}

impl Pools {
    /// The pool `name` is now `cidr`, or gone. Returns whether that is a change.
    pub(crate) fn set(&mut self, name: &str, cidr: Option<IpNet>) -> bool {
        match cidr {
            Some(cidr) => self.by_name.insert(name.to_owned(), cidr) != Some(cidr),
            None => self.by_name.remove(name).is_some(),
        }
    }

    /// Whether some pool covers `address`.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        self.by_name.values().any(|cidr| cidr.contains(&address))
    }
}
