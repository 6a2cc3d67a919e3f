//! Who claims which link and which address: what two endpoints want, one gets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::endpoint::{WepId, Workload};

/// An index of claims, so that a change finds exactly the endpoints that it may concern.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    by_iface: BTreeMap<String, BTreeSet<WepId>>,
    by_address: BTreeMap<IpAddr, BTreeSet<WepId>>,
}

impl Claims {
    pub(crate) fn add(&mut self, id: &WepId, workload: &Workload) {
        self.by_iface.entry(workload.iface.clone()).or_default().insert(id.clone());
        for address in &workload.addresses {
            self.by_address.entry(*address).or_default().insert(id.clone());
        }
    }

    pub(crate) fn remove(&mut self, id: &WepId, workload: &Workload) {
        drop_claim(&mut self.by_iface, &workload.iface, id);
        for address in &workload.addresses {
            drop_claim(&mut self.by_address, address, id);
        }
    }

    /// The endpoint that owns the link: the smallest identity, as in Calico (endpoint_mgr.go).
    pub(crate) fn owner_of_iface(&self, iface: &str) -> Option<&WepId> {
        self.by_iface.get(iface)?.first()
    }

    /// Every endpoint that claims the link.
    pub(crate) fn on_iface(&self, iface: &str) -> impl Iterator<Item = &WepId> {
        self.by_iface.get(iface).into_iter().flatten()
    }

    /// Every endpoint that claims the address.
    pub(crate) fn on_address(&self, address: IpAddr) -> impl Iterator<Item = &WepId> {
        self.by_address.get(&address).into_iter().flatten()
    }
}

fn drop_claim<K: Ord + Clone>(index: &mut BTreeMap<K, BTreeSet<WepId>>, key: &K, id: &WepId) {
    if let Some(claimants) = index.get_mut(key) {
        claimants.remove(id);
        if claimants.is_empty() {
            index.remove(key);
        }
    }
}
