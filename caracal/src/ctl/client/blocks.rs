//! Addresses and blocks: releasing them, and the claims on blocks. Each write is one compare-and-swap, tried again when it
//! loses, as every allocator on the same datastore does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use caracal_datastore::{Error as StoreError, Expect};
use caracal_model::{
    AffinityState, AllocationAttribute, Block, BlockAffinityValue, IpamConfig, Key, Value, prefix,
};
use ipnet::IpNet;

use super::Client;
use super::resources::{ATTEMPTS, pause};
use crate::ctl::error::Error;

/// An address to give back, perhaps only from a certain owner.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    /// The address.
    pub(crate) address: IpAddr,
    /// Released only while this handle has it.
    pub(crate) handle: Option<String>,
    /// Released only if it was allocated at this sequence number.
    pub(crate) sequence: Option<u64>,
}

impl Release {
    /// Whoever has it.
    pub(crate) fn address(address: IpAddr) -> Release {
        Release { address, handle: None, sequence: None }
    }
}

/// A block with its key and revision.
#[derive(Debug, Clone)]
pub(crate) struct StoredBlock {
    pub(crate) key: String,
    pub(crate) block: Block,
    pub(crate) rev: i64,
}

/// Every block, in order of keys. What cannot be read is told on standard error and left out.
pub(crate) async fn blocks(client: &Client) -> Result<Vec<StoredBlock>, Error> {
    let mut found = Vec::new();
    for kv in client.store.list(prefix::BLOCKS).await?.items {
        let parsed = Key::parse(&kv.key)
            .map_err(|e| e.to_string())
            .and_then(|key| Value::parse(&key, &kv.value).map_err(|e| e.to_string()));
        match parsed {
            Ok(Value::Block(block)) => found.push(StoredBlock { key: kv.key, block, rev: kv.rev }),
            Ok(_) => {}
            Err(reason) => eprintln!("warning: {reason}"),
        }
    }
    Ok(found)
}

/// How the allocator is configured, and the revision of that; 0 when nothing is stored.
pub(crate) async fn ipam_config(client: &Client) -> Result<(IpamConfig, i64), Error> {
    match client.store.get(&Key::IpamConfig.path()).await? {
        None => Ok((IpamConfig::when_absent(), 0)),
        Some(kv) => match Value::parse(&Key::IpamConfig, &kv.value) {
            Ok(Value::IpamConfig(config)) => Ok((config, kv.rev)),
            Ok(_) => {
                Err(Error::Other(format!("{} holds something else than the IPAM configuration", kv.key)))
            }
            Err(error) => Err(Error::Other(error.to_string())),
        },
    }
}

async fn block_at(client: &Client, key: &str) -> Result<Option<StoredBlock>, Error> {
    let Some(kv) = client.store.get(key).await? else { return Ok(None) };
    let parsed = Key::parse(&kv.key).map_err(|e| Error::Other(e.to_string()))?;
    match Value::parse(&parsed, &kv.value) {
        Ok(Value::Block(block)) => Ok(Some(StoredBlock { key: kv.key, block, rev: kv.rev })),
        Ok(_) => Ok(None),
        Err(error) => Err(Error::Other(error.to_string())),
    }
}

/// What became of addresses that were to be released; the others were released.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Nobody had them.
    pub(crate) unassigned: Vec<IpAddr>,
    /// Somebody else has them than the one they were to be released from.
    pub(crate) others: Vec<IpAddr>,
}

/// Gives addresses back, with one write a block.
pub(crate) async fn release(client: &Client, releases: &[Release]) -> Result<Kept, Error> {
    let mut kept = Kept::default();
    if releases.is_empty() {
        return Ok(kept);
    }
    let (config, _) = ipam_config(client).await?;
    let cooldown = config.ip_cooldown_seconds.unwrap_or_default();
    let mut by_block: BTreeMap<String, Vec<&Release>> = BTreeMap::new();
    let all = blocks(client).await?;
    for release in releases {
        match all.iter().find(|b| b.block.cidr.contains(&release.address)) {
            Some(block) => by_block.entry(block.key.clone()).or_default().push(release),
            None => kept.unassigned.push(release.address),
        }
    }
    for (key, releases) in by_block {
        let of_block = release_in_block(client, &key, &releases, cooldown).await?;
        kept.unassigned.extend(of_block.unassigned);
        kept.others.extend(of_block.others);
    }
    Ok(kept)
}

async fn release_in_block(
    client: &Client,
    key: &str,
    releases: &[&Release],
    cooldown: i64,
) -> Result<Kept, Error> {
    for attempt in 0..ATTEMPTS {
        let Some(mut stored) = block_at(client, key).await? else {
            return Ok(Kept { unassigned: releases.iter().map(|r| r.address).collect(), ..Kept::default() });
        };
        let (kept, handles) = free(&mut stored.block, releases);
        if kept.unassigned.len() + kept.others.len() == releases.len() {
            return Ok(kept);
        }
        collect(&mut stored.block, cooldown, jiff::Timestamp::now());
        stored.block.sequence_number += 1;
        let done = if stored.block.is_empty()
            && stored.block.affinity.is_none()
            && stored.block.allocated().next().is_none()
        {
            client.store.delete(key, Expect::Rev(stored.rev)).await.map(|_| ())
        } else {
            let bytes = Value::Block(stored.block).to_json();
            client.store.put(key, bytes, Expect::Rev(stored.rev), None).await.map(|_| ())
        };
        match done {
            Ok(()) => {
                let cidr = block_cidr(key)?;
                for (handle, count) in handles {
                    decrement(client, &handle, cidr, count).await?;
                }
                return Ok(kept);
            }
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => pause(attempt).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Conflict(
        format!("block {key}"),
        format!(": it was changed {ATTEMPTS} times meanwhile; try again"),
    ))
}

fn block_cidr(key: &str) -> Result<IpNet, Error> {
    match Key::parse(key) {
        Ok(Key::Block(cidr)) => Ok(cidr),
        _ => Err(Error::Other(format!("{key} is no block"))),
    }
}

/// Marks ordinals as released; returns what is kept, and how many addresses each handle gives back.
fn free(block: &mut Block, releases: &[&Release]) -> (Kept, BTreeMap<String, u32>) {
    let mut kept = Kept::default();
    let mut handles: BTreeMap<String, u32> = BTreeMap::new();
    let mut ordinals = Vec::new();
    for release in releases {
        let owner = block.ordinal(release.address).and_then(|o| block.attribute_of(o).map(|a| (o, a)));
        let Some((ordinal, owner)) = owner.filter(|(_, a)| a.released_at.is_none()) else {
            kept.unassigned.push(release.address);
            continue;
        };
        let taken = block.sequence_number_for_allocation.get(&ordinal).copied();
        let other = release.handle.as_ref().is_some_and(|h| owner.handle_id.as_ref() != Some(h))
            || release.sequence.is_some_and(|s| taken.is_some_and(|t| t != s));
        if other {
            kept.others.push(release.address);
            continue;
        }
        if let Some(handle) = &owner.handle_id {
            *handles.entry(handle.clone()).or_default() += 1;
        }
        ordinals.push(ordinal);
    }
    if !ordinals.is_empty() {
        let now = jiff::Timestamp::now();
        let sequence = block.sequence_number;
        let attributes = block.attributes.get_or_insert_with(Vec::new);
        let index = u32::try_from(attributes.len()).unwrap_or(u32::MAX);
        attributes.push(AllocationAttribute {
            released_at: Some(now.to_string()),
            ..AllocationAttribute::default()
        });
        for ordinal in ordinals {
            if let Some(slot) = usize::try_from(ordinal).ok().and_then(|o| block.allocations.get_mut(o)) {
                *slot = Some(index);
            }
            block.sequence_number_for_allocation.insert(ordinal, sequence);
        }
    }
    (kept, handles)
}

/// Frees addresses that have rested long enough, and drops attributes that nobody uses.
fn collect(block: &mut Block, cooldown: i64, now: jiff::Timestamp) {
    let rested = |attribute: &AllocationAttribute| {
        attribute.released_at.as_deref().is_some_and(|at| {
            at.parse::<jiff::Timestamp>().map_or(true, |at| {
                at.as_nanosecond() + i128::from(cooldown) * 1_000_000_000 <= now.as_nanosecond()
            })
        })
    };
    let over: Vec<u32> =
        block.allocated().filter(|(_, a)| a.is_some_and(rested)).map(|(ordinal, _)| ordinal).collect();
    for ordinal in over {
        if let Some(slot) = usize::try_from(ordinal).ok().and_then(|o| block.allocations.get_mut(o)) {
            *slot = None;
        }
        block.unallocated.push(ordinal);
        block.sequence_number_for_allocation.remove(&ordinal);
    }
    let Some(attributes) = block.attributes.take() else { return };
    let mut moved: BTreeMap<u32, u32> = BTreeMap::new();
    let mut kept = Vec::new();
    for (index, attribute) in (0_u32..).zip(attributes) {
        if block.allocations.contains(&Some(index)) {
            moved.insert(index, u32::try_from(kept.len()).unwrap_or(u32::MAX));
            kept.push(attribute);
        }
    }
    for slot in block.allocations.iter_mut().flatten() {
        *slot = moved.get(slot).copied().unwrap_or(*slot);
    }
    block.attributes = Some(kept);
}

/// Takes addresses of a block from a handle's account; an empty handle goes.
async fn decrement(client: &Client, handle: &str, block: IpNet, count: u32) -> Result<(), Error> {
    let key = Key::Handle(handle.to_owned());
    for attempt in 0..ATTEMPTS {
        let Some(kv) = client.store.get(&key.path()).await? else { return Ok(()) };
        let Ok(Value::Handle(mut value)) = Value::parse(&key, &kv.value) else { return Ok(()) };
        let name = block.to_string();
        match value.block.get(&name).copied() {
            None => return Ok(()),
            Some(had) if had > count => value.block.insert(name, had - count),
            Some(_) => value.block.remove(&name),
        };
        let done = if value.block.is_empty() {
            client.store.delete(&kv.key, Expect::Rev(kv.rev)).await.map(|_| ())
        } else {
            client
                .store
                .put(&kv.key, Value::Handle(value).to_json(), Expect::Rev(kv.rev), None)
                .await
                .map(|_| ())
        };
        match done {
            Ok(()) | Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(StoreError::Conflict { .. }) => pause(attempt).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Conflict(format!("handle {handle}"), String::new()))
}

/// Gives back a host's claim on a block: an empty block goes, one in use loses its owner.
pub(super) async fn release_affinity(
    client: &Client,
    host: &str,
    block: IpNet,
    only_empty: bool,
) -> Result<(), Error> {
    let claim = Key::Affinity { host: host.to_owned(), block };
    let key = Key::Block(block).path();
    for attempt in 0..ATTEMPTS {
        let Some(affinity) = client.store.get(&claim.path()).await? else { return Ok(()) };
        let stored = block_at(client, &key).await?.filter(|b| b.block.host() == Some(host));
        let Some(mut stored) = stored else {
            // The block is gone or somebody else's: the claim is stale.
            return match client.store.delete(&affinity.key, Expect::Rev(affinity.rev)).await {
                Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            };
        };
        let empty = stored.block.is_empty();
        if only_empty && !empty {
            return Ok(());
        }
        let pending = Value::Affinity(BlockAffinityValue::new(AffinityState::PendingDeletion)).to_json();
        let rev = match client.store.put(&affinity.key, pending, Expect::Rev(affinity.rev), None).await {
            Ok(rev) => rev,
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
                pause(attempt).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let done = if empty {
            client.store.delete(&key, Expect::Rev(stored.rev)).await.map(|_| ())
        } else {
            stored.block.affinity = None;
            stored.block.affinity_claim_time = None;
            stored.block.sequence_number += 1;
            client
                .store
                .put(&key, Value::Block(stored.block).to_json(), Expect::Rev(stored.rev), None)
                .await
                .map(|_| ())
        };
        match done {
            Ok(()) | Err(StoreError::NotFound { .. }) => {
                return match client.store.delete(&affinity.key, Expect::Rev(rev)).await {
                    Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                };
            }
            Err(StoreError::Conflict { .. }) => pause(attempt).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Conflict(format!("claim of {host} on {block}"), String::new()))
}

/// Gives back every claim on blocks of a pool.
pub(super) async fn release_pool(client: &Client, pool: IpNet) -> Result<(), Error> {
    for kv in client.store.list(prefix::AFFINITIES).await?.items {
        if let Ok(Key::Affinity { host, block }) = Key::parse(&kv.key)
            && pool.contains(&block)
        {
            release_affinity(client, &host, block, false).await?;
        }
    }
    Ok(())
}

/// A handle that no address names goes, if it still is as it was seen. False: it is not.
pub(crate) async fn delete_handle(client: &Client, handle: &str, rev: i64) -> Result<bool, Error> {
    match client.store.delete(&Key::Handle(handle.to_owned()).path(), Expect::Rev(rev)).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Every handle with its revision.
pub(crate) async fn handles(client: &Client) -> Result<BTreeMap<String, i64>, Error> {
    let listing = client.store.list(prefix::HANDLES).await?;
    let name = |kv: &caracal_datastore::KeyValue| match Key::parse(&kv.key) {
        Ok(Key::Handle(name)) => Some((name, kv.rev)),
        _ => None,
    };
    Ok(listing.items.iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn block(value: serde_json::Value) -> Block {
        serde_json::from_value(value).unwrap()
    }

    fn example() -> Block {
        block(
            json!({"cidr": "10.50.0.0/30", "affinity": "host:a", "allocations": [0, 1, null, 0], "unallocated": [2],
            "attributes": [{"handle_id": "h0", "secondary": {}}, {"handle_id": "h1", "secondary": {}}],
            "sequenceNumber": 9, "sequenceNumberForAllocation": {"0": 5, "1": 6, "3": 7}, "deleted": false}),
        )
    }

    #[test]
    fn released_addresses_go_to_the_end_of_the_queue() {
        let mut b = example();
        let release = Release::address("10.50.0.0".parse().unwrap());
        let gone = Release::address("10.50.0.2".parse().unwrap());
        let (kept, handles) = free(&mut b, &[&release, &gone]);
        assert_eq!(kept.unassigned, [gone.address]);
        assert_eq!(handles, BTreeMap::from([("h0".to_owned(), 1)]));
        collect(&mut b, 0, jiff::Timestamp::now());
        assert_eq!((b.allocations, b.unallocated), (vec![None, Some(1), None, Some(0)], vec![2, 0]));
        assert_eq!(b.sequence_number_for_allocation, BTreeMap::from([(1, 6), (3, 7)]));
        assert_eq!(b.attributes.unwrap().len(), 2);
    }

    #[test]
    fn a_cool_down_keeps_the_address_and_compacts_the_rest() {
        let mut b = example();
        let release = Release::address("10.50.0.1".parse().unwrap());
        free(&mut b, &[&release]);
        collect(&mut b, 600, jiff::Timestamp::now());
        assert_eq!(b.allocations, vec![Some(0), Some(1), None, Some(0)]);
        let attributes = b.attributes.clone().unwrap();
        assert!(attributes[1].released_at.is_some() && attributes[1].handle_id.is_none());
        assert_eq!(b.sequence_number_for_allocation.get(&1), Some(&9));
        // A second release finds nobody there.
        assert_eq!(free(&mut b, &[&release]).0.unassigned, [release.address]);
    }

    #[test]
    fn the_owner_must_be_the_one_that_was_seen() {
        let mut b = example();
        let mut release = Release::address("10.50.0.1".parse().unwrap());
        release.handle = Some("h0".to_owned());
        assert_eq!(free(&mut b, &[&release]).0.others, [release.address]);
        release.handle = Some("h1".to_owned());
        release.sequence = Some(5);
        assert_eq!(free(&mut b, &[&release]).0.others, [release.address]);
        release.sequence = Some(6);
        assert_eq!(free(&mut b, &[&release]).0, Kept::default());
    }
}
