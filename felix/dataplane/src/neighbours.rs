//! Permanent neighbours on the host side: a workload whose Ethernet address is known is never asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use caracal_netlink::{Errno, Mac, Neighbour, Netlink, Request, nud};
use caracal_reconcile::{Backoff, Change, Delta, Moment};

use crate::routes::Surroundings;

/// Link and address.
pub(crate) type NeighbourKey = (u32, IpAddr);

#[derive(Debug)]
pub(crate) struct Neighbours {
    delta: Delta<NeighbourKey, Mac>,
    /// Wanted in this life and not any more.
    released: BTreeSet<NeighbourKey>,
}

impl Neighbours {
    pub(crate) fn new() -> Self {
        Self { delta: Delta::new(Backoff::default()), released: BTreeSet::new() }
    }

    pub(crate) fn want(&mut self, key: NeighbourKey, mac: Mac) {
        self.released.remove(&key);
        self.delta.want(key, mac);
    }

    pub(crate) fn unwant(&mut self, key: &NeighbourKey) {
        if self.delta.unwant(key).is_some() && self.delta.actual(key).is_some() {
            self.released.insert(*key);
        }
    }

    pub(crate) fn actual(&self, key: &NeighbourKey) -> Option<Mac> {
        self.delta.actual(key).copied()
    }

    pub(crate) fn on_event(&mut self, neighbour: &Neighbour, gone: bool, around: &impl Surroundings) {
        let key = (neighbour.index, neighbour.address);
        match permanent(neighbour, around) {
            Some(mac) if !gone => self.delta.observe(key, mac),
            _ if neighbour.proxy || self.delta.actual(&key).is_none() => {}
            _ => {
                self.released.remove(&key);
                self.delta.gone(&key);
            }
        }
    }

    pub(crate) fn link_lost(&mut self, ifindex: u32) {
        let first = (ifindex, IpAddr::from([0; 4]));
        let keys: Vec<NeighbourKey> = self
            .delta
            .all_actual()
            .map(|(key, _)| *key)
            .skip_while(|k| *k < first)
            .take_while(|k| k.0 == ifindex)
            .collect();
        for key in keys {
            self.released.remove(&key);
            self.delta.gone(&key);
        }
    }

    pub(crate) fn dump(
        &mut self,
        netlink: &mut Netlink,
        around: &impl Surroundings,
    ) -> Result<(), caracal_netlink::Error> {
        let found = netlink.neighbours()?;
        let ours: BTreeMap<NeighbourKey, Mac> = found
            .iter()
            .filter_map(|n| permanent(n, around).map(|mac| ((n.index, n.address), mac)))
            .collect();
        self.delta.replace_actual(ours);
        Ok(())
    }

    pub(crate) fn next_due(&self, now: Moment) -> Option<Moment> {
        self.delta.next_due(now)
    }

    /// Writes what is due; returns how many requests were sent and how many of them failed.
    pub(crate) fn pass(
        &mut self,
        netlink: &mut Netlink,
        now: Moment,
        around: &impl Surroundings,
    ) -> (usize, usize) {
        let mut steps = self.delta.pass(now);
        // An entry that somebody made on a link that no endpoint has is not ours to judge.
        steps.retain(|step| {
            !matches!(step.change, Change::Delete(_))
                || self.released.contains(&step.key)
                || around.is_claimed(step.key.0)
        });
        let requests: Vec<Request> = steps
            .iter()
            .map(|step| {
                let (index, address) = step.key;
                match &step.change {
                    Change::Create(mac) | Change::Update { to: mac, .. } => {
                        Request::ReplaceNeighbour(Neighbour::permanent(index, address, *mac))
                    }
                    Change::Delete(mac) => Request::DelNeighbour(Neighbour::permanent(index, address, *mac)),
                }
            })
            .collect();
        let failed: BTreeMap<usize, Errno> = netlink.apply(&requests).into_iter().collect();
        let mut failures = 0;
        for (at, step) in steps.into_iter().enumerate() {
            self.released.remove(&step.key);
            let gone = matches!(failed.get(&at), Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO));
            if !failed.contains_key(&at) || (gone && matches!(step.change, Change::Delete(_))) {
                self.delta.applied(step);
            } else {
                failures += 1;
                self.delta.failed(&step.key, now);
            }
        }
        (requests.len(), failures)
    }
}

/// The Ethernet address of a permanent entry on a workload's link.
fn permanent(neighbour: &Neighbour, around: &impl Surroundings) -> Option<Mac> {
    let ours =
        !neighbour.proxy && neighbour.state & nud::PERMANENT != 0 && around.is_workload(neighbour.index);
    neighbour.mac.filter(|_| ours)
}
