//! The claim protocol (facts of Calico's `ipam_block_reader_writer`), every step one compare-and-swap.

use std::collections::BTreeMap;
use std::net::IpAddr;

use caracal_datastore::{Error as StoreError, Expect, KeyValue, Store};
use caracal_model::ipam::{AffinityState, BlockAffinityValue, Owner};
use caracal_model::{Block, Key, Kind, Resource, Value, prefix};
use ipnet::IpNet;

use crate::plan::{Pool, block_around, pool_of};

/// Rounds of the protocol before a block that keeps changing under us is reported.
const ROUNDS: usize = 20;

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This host owns the block now, newly.
    Claimed(IpNet),
    /// This host owned it before.
    Ours(IpNet),
    /// Another host (or nobody, but it exists) has it: the address is borrowed.
    Borrowed {
        /// The block.
        block: IpNet,
        /// Its owner, when it has one.
        owner: Option<String>,
    },
    /// No pool holds the address, or none that this node may claim from.
    NoPool,
}

/// Why a claim could not be decided.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The datastore did not answer or refused.
    #[error("claiming a block for {address} on node {node}")]
    Store {
        /// The address that needs a block.
        address: IpAddr,
        /// The claiming node.
        node: String,
        /// What the datastore said.
        #[source]
        source: Box<StoreError>,
    },
    /// A value that decides the claim cannot be read.
    #[error("claiming a block for {address}: {source}")]
    Damaged {
        /// The address that needs a block.
        address: IpAddr,
        /// Key, field, reason and fix.
        #[source]
        source: caracal_model::ValueError,
    },
    /// Other writers were faster every time.
    #[error("claiming a block for {address}: {block} changed {ROUNDS} times meanwhile; it is tried again")]
    Contended {
        /// The address that needs a block.
        address: IpAddr,
        /// The block.
        block: IpNet,
    },
}

/// Makes sure that the block around `address` has an owner; claims it for `node` when it has none.
///
/// `now` is RFC 3339 in UTC and the same in nanoseconds since 1970: claim time and first sequence number of a new
/// block, as Calico's clients write them.
pub async fn claim_for(
    store: &dyn Store,
    node: &str,
    address: IpAddr,
    now: (&str, u64),
) -> Result<Outcome, Error> {
    let context = Context { store, node, address };
    let labels = context.labels().await?;
    let pools = context.pools().await?;
    let Some(pool) = pool_of(&pools, address) else { return Ok(Outcome::NoPool) };
    let Some(block) = block_around(pool, address) else { return Ok(Outcome::NoPool) };
    let may_claim = pool.selects(&labels);
    for _ in 0..ROUNDS {
        match context.round(block, may_claim, now).await {
            Ok(Some(outcome)) => return Ok(outcome),
            // Somebody else moved; look again.
            Ok(None) => {}
            Err(Error::Store { source, .. })
                if matches!(*source, StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            Err(err) => return Err(err),
        }
    }
    Err(Error::Contended { address, block })
}

/// Deletes this node's affinities whose block names another host: what a crash between two steps of a lost race leaves.
///
/// Returns the blocks concerned.
pub async fn release_stale(store: &dyn Store, node: &str) -> Result<Vec<IpNet>, StoreError> {
    let mut released = Vec::new();
    for item in store.list(&prefix::affinities_of(node)).await?.items {
        let Ok(Key::Affinity { block, .. }) = Key::parse(&item.key) else { continue };
        let key = Key::Block(block);
        let Some(stored) = store.get(&key.path()).await? else { continue };
        let Ok(Value::Block(value)) = Value::parse(&key, &stored.value) else { continue };
        if value.owner() != Some(Owner::Host(node.into())) {
            match store.delete(&item.key, Expect::Rev(item.rev)).await {
                Ok(_) => released.push(block),
                Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(err) => return Err(err),
            }
        }
    }
    Ok(released)
}

struct Context<'a> {
    store: &'a dyn Store,
    node: &'a str,
    address: IpAddr,
}

impl Context<'_> {
    /// One pass over the protocol; `None` asks for another.
    async fn round(&self, block: IpNet, may_claim: bool, now: (&str, u64)) -> Result<Option<Outcome>, Error> {
        let affinity = Key::Affinity { host: self.node.into(), block };
        let held = self.read(&affinity.path()).await?;
        let stored = self.block(block).await?;
        if let Some((value, _)) = &stored {
            if value.owner() != Some(Owner::Host(self.node.into())) {
                // Whoever the block names has it; our claim, if there is one, was lost.
                if let Some(held) = held {
                    self.wrap(self.store.delete(&held.key, Expect::Rev(held.rev)).await)?;
                }
                let owner = value.host().map(String::from);
                return Ok(Some(Outcome::Borrowed { block, owner }));
            }
            return match &held {
                Some(held) if state(held) == AffinityState::Confirmed => Ok(Some(Outcome::Ours(block))),
                _ => {
                    self.write_affinity(&affinity, held.as_ref(), AffinityState::Confirmed).await?;
                    Ok(Some(Outcome::Claimed(block)))
                }
            };
        }
        if !may_claim {
            return Ok(Some(Outcome::NoPool));
        }
        let rev = self.write_affinity(&affinity, held.as_ref(), AffinityState::Pending).await?;
        let (time, sequence) = now;
        let owner = Owner::Host(self.node.into());
        let Some(fresh) = Block::new(block, Some(&owner), Some(time.into()), sequence) else {
            return Ok(Some(Outcome::NoPool));
        };
        let value = Value::Block(fresh).to_json();
        match self.store.put(&Key::Block(block).path(), value, Expect::Absent, None).await {
            Ok(_) => {}
            // Lost the race, or the reply to our own write was lost: the next round reads who it names.
            Err(StoreError::Conflict { .. }) => return Ok(None),
            Err(err) => return self.wrap(Err(err)),
        }
        let confirmed = Value::Affinity(BlockAffinityValue::new(AffinityState::Confirmed)).to_json();
        self.wrap(self.store.put(&affinity.path(), confirmed, Expect::Rev(rev), None).await)?;
        Ok(Some(Outcome::Claimed(block)))
    }

    async fn write_affinity(
        &self,
        key: &Key,
        held: Option<&KeyValue>,
        to: AffinityState,
    ) -> Result<i64, Error> {
        let expect = held.map_or(Expect::Absent, |held| Expect::Rev(held.rev));
        let value = Value::Affinity(BlockAffinityValue::new(to)).to_json();
        self.wrap(self.store.put(&key.path(), value, expect, None).await)
    }

    async fn block(&self, block: IpNet) -> Result<Option<(Block, i64)>, Error> {
        let key = Key::Block(block);
        let Some(stored) = self.read(&key.path()).await? else { return Ok(None) };
        match Value::parse(&key, &stored.value) {
            Ok(Value::Block(value)) => Ok(Some((value, stored.rev))),
            Ok(_) => Ok(None),
            Err(source) => Err(Error::Damaged { address: self.address, source }),
        }
    }

    /// Labels of this node; without a Node object there are none.
    async fn labels(&self) -> Result<BTreeMap<String, String>, Error> {
        let key = Key::global(Kind::Node, self.node);
        let Some(stored) = self.read(&key.path()).await? else { return Ok(BTreeMap::new()) };
        match Value::parse(&key, &stored.value) {
            Ok(Value::Resource(resource)) => Ok(resource.metadata().labels.clone()),
            Ok(_) => Ok(BTreeMap::new()),
            Err(source) => Err(Error::Damaged { address: self.address, source }),
        }
    }

    /// Every readable pool; a damaged one takes no part and is reported by whoever watches pools.
    async fn pools(&self) -> Result<Vec<Pool>, Error> {
        let listing = self.wrap(self.store.list(prefix::IP_POOLS).await)?;
        let parse = |item: &KeyValue| {
            let key = Key::parse(&item.key).ok()?;
            match Value::parse(&key, &item.value).ok()? {
                Value::Resource(Resource::IpPool(pool)) => Pool::of(&pool),
                _ => None,
            }
        };
        Ok(listing.items.iter().filter_map(parse).collect())
    }

    async fn read(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        self.wrap(self.store.get(key).await)
    }

    fn wrap<T>(&self, result: Result<T, StoreError>) -> Result<T, Error> {
        result.map_err(|source| Error::Store {
            address: self.address,
            node: self.node.into(),
            source: Box::new(source),
        })
    }
}

/// State of a stored affinity; one that cannot be read is treated as not confirmed.
fn state(stored: &KeyValue) -> AffinityState {
    let parsed = Key::parse(&stored.key).ok().and_then(|key| Value::parse(&key, &stored.value).ok());
    match parsed {
        Some(Value::Affinity(value)) => value.state().clone(),
        _ => AffinityState::Pending,
    }
}
