//! Claims the block around each local workload's address, when nobody has it.
//!
//! An address inside a block of this node costs nothing. One outside is asked for at the datastore: the block is free
//! (claimed), or another node's (the address is borrowed; bird announces it as a single address).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use caracal_datastore::{Store, SyncEvent, Syncer};
use caracal_ipam::{Outcome, Pool, claim_for, pool_of, release_stale};
use caracal_model::{Key, Kind, Resource, Value, WepName, net, prefix};
use caracal_process::Shutdown;
use ipnet::IpNet;

/// How soon what could not be decided is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How often borrowed addresses are looked at again: their block may have become free.
const REVIEW: Duration = Duration::from_mins(1);

/// What decides who needs a claim.
#[derive(Default)]
struct View {
    node: String,
    /// Addresses of this node's workloads, by key.
    addresses: BTreeMap<String, Vec<IpAddr>>,
    pools: BTreeMap<String, Pool>,
    /// Blocks of which this node's affinity is confirmed.
    confirmed: BTreeSet<IpNet>,
    /// Addresses that were looked at and found to be borrowed or without a pool.
    settled: BTreeSet<IpAddr>,
}

/// Follows the datastore until shutdown.
pub(crate) async fn run(node: String, store: Arc<dyn Store>, shutdown: Shutdown) -> anyhow::Result<()> {
    let prefixes =
        vec![prefix::WORKLOAD_ENDPOINTS.into(), prefix::IP_POOLS.into(), prefix::affinities_of(&node)];
    let mut syncer = Syncer::start(store.clone(), prefixes);
    let mut view = View { node, ..View::default() };
    let mut in_sync = false;
    let mut wake = REVIEW;
    loop {
        tokio::select! {
            batch = syncer.next() => {
                for event in batch {
                    match event {
                        SyncEvent::Update { key, value, .. } => view.on_update(&key, value.as_deref()),
                        SyncEvent::InSync => {
                            in_sync = true;
                            release(store.as_ref(), &view.node).await;
                        }
                        SyncEvent::Status(_) => {}
                    }
                }
            }
            () = tokio::time::sleep(wake) => {
                if wake == REVIEW {
                    view.settled.clear();
                }
            }
            () = shutdown.wait() => return Ok(()),
        }
        if in_sync {
            wake = if claim(store.as_ref(), &mut view).await { REVIEW } else { RETRY };
        }
    }
}

impl View {
    fn on_update(&mut self, path: &str, value: Option<&[u8]>) {
        // What does not parse is reported by the part that it is meant for.
        let Ok(key) = Key::parse(path) else { return };
        match &key {
            Key::Resource { kind: Kind::WorkloadEndpoint, name, .. } => {
                let ours = WepName::parse(name).map_or(true, |parsed| parsed.node == self.node);
                let addresses = if ours { value.and_then(|v| self.local_addresses(&key, v)) } else { None };
                match addresses {
                    Some(addresses) => drop(self.addresses.insert(path.into(), addresses)),
                    None => drop(self.addresses.remove(path)),
                }
            }
            Key::Resource { kind: Kind::IpPool, .. } => {
                self.settled.clear();
                match value.map(|v| Value::parse(&key, v)) {
                    Some(Ok(Value::Resource(Resource::IpPool(pool)))) => {
                        if let Some(pool) = Pool::of(&pool) {
                            self.pools.insert(path.into(), pool);
                        }
                    }
                    Some(_) => {}
                    None => drop(self.pools.remove(path)),
                }
            }
            Key::Affinity { block, .. } => {
                let confirmed = match value.map(|v| Value::parse(&key, v)) {
                    Some(Ok(Value::Affinity(affinity))) => affinity.is_confirmed(),
                    _ => false,
                };
                if confirmed {
                    self.confirmed.insert(*block);
                } else {
                    self.confirmed.remove(block);
                    self.settled.clear();
                }
            }
            _ => {}
        }
    }

    /// Addresses of a workload endpoint of this node.
    fn local_addresses(&self, key: &Key, value: &[u8]) -> Option<Vec<IpAddr>> {
        match Value::parse(key, value) {
            Ok(Value::Resource(Resource::WorkloadEndpoint(wep)))
                if wep.spec.node.as_deref() == Some(&self.node) =>
            {
                Some(
                    wep.spec
                        .ip_networks
                        .iter()
                        .filter_map(|n| net::parse_address_or_prefix(n).ok())
                        .map(|n| n.addr())
                        .collect(),
                )
            }
            _ => None,
        }
    }

    /// Addresses in a pool and outside this node's blocks.
    fn needy(&self) -> BTreeSet<IpAddr> {
        let pools: Vec<Pool> = self.pools.values().cloned().collect();
        self.addresses
            .values()
            .flatten()
            .filter(|a| !self.settled.contains(a) && !self.confirmed.iter().any(|block| block.contains(*a)))
            .filter(|a| pool_of(&pools, **a).is_some())
            .copied()
            .collect()
    }
}

/// Asks for every needy address; false when something has to be asked again.
async fn claim(store: &dyn Store, view: &mut View) -> bool {
    let mut complete = true;
    let mut claimed: Vec<IpNet> = Vec::new();
    for address in view.needy() {
        if claimed.iter().any(|block| block.contains(&address)) {
            continue;
        }
        let now = jiff::Timestamp::now();
        let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let nanoseconds = u64::try_from(now.as_nanosecond()).unwrap_or_default();
        match claim_for(store, &view.node, address, (&time, nanoseconds)).await {
            Ok(Outcome::Claimed(block)) => {
                tracing::info!(node = %view.node, %block, %address, "claimed a block");
                view.confirmed.insert(block);
                claimed.push(block);
            }
            Ok(Outcome::Ours(block)) => {
                view.confirmed.insert(block);
                claimed.push(block);
            }
            Ok(Outcome::Borrowed { block, owner }) => {
                let owner = owner.unwrap_or_else(|| "nobody".into());
                tracing::info!(node = %view.node, %block, %address, owner, "address borrowed from another's block");
                view.settled.insert(address);
            }
            Ok(Outcome::NoPool) => {
                tracing::warn!(
                    node = %view.node, %address,
                    fix = "widen the pool's nodeSelector or enable it, or give the workload another address",
                    "no pool lets this node claim a block for a workload's address"
                );
                view.settled.insert(address);
            }
            Err(err) => {
                let err: &(dyn std::error::Error + 'static) = &err;
                tracing::warn!(node = %view.node, %address, err, "cannot claim a block yet");
                complete = false;
                break;
            }
        }
    }
    complete
}

/// Takes back claims that were lost; a failure is left to the next claim.
async fn release(store: &dyn Store, node: &str) {
    match release_stale(store, node).await {
        Ok(blocks) => {
            for block in blocks {
                tracing::warn!(node, %block, "released our affinity: the block names another host");
            }
        }
        Err(err) => tracing::warn!(node, %err, "cannot look for lost claims"),
    }
}
