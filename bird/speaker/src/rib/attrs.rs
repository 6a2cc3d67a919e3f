//! The attribute store: every distinct set of path attributes is kept once, with all that is asked of it often.

use bird_packet::attr::community;
use bird_packet::{AttrBuilder, AttrSet};

use super::index32;
use super::nexthop::{NextHops, NhId};
use super::shards::Shards;

/// A set of attributes in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttrId(pub(crate) u32);

impl AttrId {
    /// No attributes: nothing sent, nothing held.
    pub(crate) const NONE: AttrId = AttrId(0);
}

/// LOCAL_PREF of a route that came without.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the decision process and the fixed rules of BGP ask of a set of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DecisionKey {
    /// Higher is better: not long-lived stale, LOCAL_PREF (with the place of local routes), AS path length, ORIGIN.
    pub(crate) rank: u64,
    /// MULTI_EXIT_DISC; missing counts as 0 (RFC 4271 §9.1.2.2 c).
    pub(crate) med: u32,
    /// The neighbouring AS of the path, 0 if it began here.
    pub(crate) first_as: u32,
    /// ORIGINATOR_ID, 0 without.
    pub(crate) originator: u32,
    /// LOCAL_PREF, with its default.
    pub(crate) local_pref: u32,
    /// Index of the next hop.
    pub(crate) next_hop: NhId,
    /// Entries of CLUSTER_LIST.
    pub(crate) cluster_len: u8,
    /// [`flag`] bits.
    pub(crate) flags: u8,
}

/// Bits of [`DecisionKey::flags`].
pub(crate) mod flag {
    /// NO_EXPORT (RFC 1997).
    pub(crate) const NO_EXPORT: u8 = 1;
    /// NO_ADVERTISE (RFC 1997).
    pub(crate) const NO_ADVERTISE: u8 = 2;
    /// LLGR_STALE (RFC 9494).
    pub(crate) const LLGR_STALE: u8 = 4;
    /// NO_LLGR (RFC 9494).
    pub(crate) const NO_LLGR: u8 = 8;
    /// GRACEFUL_SHUTDOWN (RFC 8326).
    pub(crate) const GRACEFUL_SHUTDOWN: u8 = 16;
    /// Made here: static, connected or kernel route.
    pub(crate) const LOCAL: u8 = 32;
}

/// Where a local route stands among BGP routes; see [`DecisionKey::digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Learned by BGP: by LOCAL_PREF.
    Bgp,
    /// Another daemon's kernel route: as good as LOCAL_PREF says, but at least as good as an ordinary BGP route, and the
    /// better of two equals. So only a BGP route with a better than normal LOCAL_PREF overrides it.
    Kernel {
        /// LOCAL_PREF of an ordinary route.
        normal: u32,
    },
    /// One of our statics; nothing learned beats it.
    Static,
    /// A connected subnet.
    Connected,
}

impl DecisionKey {
    /// Reads the canonical attributes once.
    pub(crate) fn digest(attrs: AttrSet<'_>, next_hop: NhId, standing: Standing) -> Self {
        let local_pref = attrs.local_pref().unwrap_or(DEFAULT_LOCAL_PREF);
        let mut flags = 0;
        for value in attrs.communities() {
            flags |= match value {
                community::NO_EXPORT | community::NO_EXPORT_SUBCONFED => flag::NO_EXPORT,
                community::NO_ADVERTISE => flag::NO_ADVERTISE,
                community::LLGR_STALE => flag::LLGR_STALE,
                community::NO_LLGR => flag::NO_LLGR,
                community::GRACEFUL_SHUTDOWN => flag::GRACEFUL_SHUTDOWN,
                _ => 0,
            };
        }
        let path = attrs.as_path();
        let path_len = u64::try_from(path.length()).unwrap_or(u64::MAX).min(0xffff);
        let origin = u64::from(attrs.origin().code());
        // 33 bits: LOCAL_PREF, and one that lets a kernel route win a tie.
        let preference = match standing {
            Standing::Bgp => u64::from(local_pref) << 1,
            Standing::Kernel { normal } => (u64::from(local_pref.max(normal)) << 1) | 1,
            Standing::Static => 1 << 34,
            Standing::Connected => (1 << 34) | 1,
        };
        if standing != Standing::Bgp {
            flags |= flag::LOCAL;
        }
        let fresh = u64::from(flags & flag::LLGR_STALE == 0);
        let rank = (fresh << 60) | (preference << 18) | ((0xffff - path_len) << 2) | (2 - origin);
        DecisionKey {
            rank,
            med: attrs.med().unwrap_or(0),
            first_as: path.first_as().unwrap_or(0),
            originator: attrs.originator_id().map_or(0, std::net::Ipv4Addr::to_bits),
            local_pref,
            next_hop,
            cluster_len: u8::try_from(attrs.cluster_list().count()).unwrap_or(u8::MAX),
            flags,
        }
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

struct Entry {
    bytes: Box<[u8]>,
    key: DecisionKey,
    hash: u64,
    /// Paths, sent routes and memos that hold this entry; 0: free.
    refs: u32,
}

/// All distinct attribute sets. An entry lives as long as somebody holds a reference.
pub(crate) struct AttrStore {
    entries: Vec<Entry>,
    free: Vec<u32>,
    index: Shards,
    seed: u64,
}

impl AttrStore {
    pub(crate) fn new(seed: u64) -> Self {
        let nobody = Entry { bytes: Box::default(), key: DecisionKey::default(), hash: 0, refs: 1 };
        AttrStore { entries: vec![nobody], free: Vec::new(), index: Shards::new(), seed }
    }

    /// The id of these canonical bytes with this next hop and standing, with one more reference.
    /// `fresh` is called with the key when the set was not there.
    pub(crate) fn intern(
        &mut self,
        bytes: &[u8],
        next_hop: NhId,
        standing: Standing,
        fresh: impl FnOnce(&DecisionKey),
    ) -> AttrId {
        let local = standing != Standing::Bgp;
        let hash = hash_bytes(bytes, self.seed ^ (u64::from(next_hop.0) << 1) ^ u64::from(local));
        let entries = &mut self.entries;
        let found = self.index.find(hash, |&i| {
            let e = &entries[i as usize];
            e.hash == hash
                && e.key.next_hop == next_hop
                && e.key.has(flag::LOCAL) == local
                && *e.bytes == *bytes
                && (!local || e.key == DecisionKey::digest(AttrSet::new(bytes), next_hop, standing))
        });
        if let Some(i) = found {
            entries[i as usize].refs += 1;
            return AttrId(i);
        }
        let key = DecisionKey::digest(AttrSet::new(bytes), next_hop, standing);
        fresh(&key);
        let entry = Entry { bytes: bytes.into(), key, hash, refs: 1 };
        let i = if let Some(i) = self.free.pop() {
            entries[i as usize] = entry;
            i
        } else {
            entries.push(entry);
            index32(entries.len() - 1)
        };
        self.index.insert_unique(hash, i, |&i| entries[i as usize].hash);
        AttrId(i)
    }

    #[inline]
    pub(crate) fn retain(&mut self, id: AttrId) {
        self.entries[id.0 as usize].refs += 1;
    }

    /// Drops a reference; the last one frees the entry and returns its next hop, which it held.
    #[inline]
    #[must_use = "the next hop that was held must be released"]
    pub(crate) fn release(&mut self, id: AttrId) -> Option<NhId> {
        if id == AttrId::NONE {
            return None;
        }
        let entry = &mut self.entries[id.0 as usize];
        entry.refs -= 1;
        if entry.refs > 0 {
            return None;
        }
        Some(self.remove(id))
    }

    #[cold]
    fn remove(&mut self, id: AttrId) -> NhId {
        let entry = &mut self.entries[id.0 as usize];
        entry.bytes = Box::default();
        let (hash, next_hop) = (entry.hash, entry.key.next_hop);
        self.index.remove(hash, id.0);
        self.free.push(id.0);
        next_hop
    }

    #[inline]
    pub(crate) fn key(&self, id: AttrId) -> &DecisionKey {
        &self.entries[id.0 as usize].key
    }

    #[inline]
    pub(crate) fn attrs(&self, id: AttrId) -> AttrSet<'_> {
        AttrSet::new(&self.entries[id.0 as usize].bytes)
    }

    pub(crate) fn bytes(&self, id: AttrId) -> &[u8] {
        &self.entries[id.0 as usize].bytes
    }

    /// Distinct sets held.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

/// Eight bytes at a time through a folded multiply.
fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::with_seed(seed).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// Attribute sets and the next hops they name, kept together because each set holds its next hop.
pub(crate) struct Store {
    pub(crate) attrs: AttrStore,
    pub(crate) next_hops: NextHops,
}

impl Store {
    pub(crate) fn new(seed: u64, resolve: bool) -> Self {
        Store { attrs: AttrStore::new(seed), next_hops: NextHops::new(resolve) }
    }

    /// See [`AttrStore::intern`].
    #[inline]
    pub(crate) fn intern(&mut self, bytes: &[u8], next_hop: NhId, standing: Standing) -> AttrId {
        let next_hops = &mut self.next_hops;
        self.attrs.intern(bytes, next_hop, standing, |_| next_hops.retain(next_hop))
    }

    /// The id of edited attributes with the next hop of `of`.
    pub(crate) fn intern_edit(&mut self, of: AttrId, edit: impl FnOnce(&mut AttrBuilder<'_>)) -> AttrId {
        let mut bytes = Vec::with_capacity(self.attrs.bytes(of).len() + 32);
        let written = {
            let mut builder = AttrBuilder::from_set(self.attrs.attrs(of));
            edit(&mut builder);
            builder.write(&mut bytes)
        };
        if written.is_err() {
            // An attribute above 64 KiB: leave the set as it is rather than lose the route.
            self.attrs.retain(of);
            return of;
        }
        self.intern(&bytes, self.attrs.key(of).next_hop, Standing::Bgp)
    }

    #[inline]
    pub(crate) fn retain(&mut self, id: AttrId) {
        self.attrs.retain(id);
    }

    #[inline]
    pub(crate) fn release(&mut self, id: AttrId) {
        if let Some(next_hop) = self.attrs.release(id) {
            self.next_hops.release(next_hop);
        }
    }
}
