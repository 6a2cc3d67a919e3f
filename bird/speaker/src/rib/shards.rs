//! A hash table that grows in small steps: it is many, each with a part of the entries. The parts differ, so that they do
//! not all grow at the same time. Finding costs some nanoseconds more: not for what is looked up for every prefix.

use hashbrown::HashTable;

const SHARDS: usize = 32;
/// The first shard has this many shares of the entries, each further one a share more; so the last has about twice as many.
const SHARES: usize = SHARDS * SHARDS + SHARDS * (SHARDS - 1) / 2;

/// The shard that each share belongs to.
static SHARD_OF: [u8; SHARES] = shares();

const fn shares() -> [u8; SHARES] {
    let mut of = [0; SHARES];
    let (mut at, mut shard, mut number) = (0, 0, 0);
    while shard < SHARDS {
        let end = at + SHARDS + shard;
        while at < end {
            of[at] = number;
            at += 1;
        }
        shard += 1;
        number += 1;
    }
    of
}

/// See the module.
pub(crate) struct Shards {
    tables: [HashTable<u32>; SHARDS],
    len: usize,
}

/// Bits that the tables themselves use neither to choose a bucket nor to compare.
#[inline]
fn shard(hash: u64) -> usize {
    let [_, _, _, low, high, ..] = hash.to_le_bytes();
    let share = (usize::from(u16::from_le_bytes([low, high])) * SHARES) >> 16;
    usize::from(SHARD_OF[share])
}

impl Shards {
    pub(crate) fn new() -> Self {
        Shards { tables: [const { HashTable::new() }; SHARDS], len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, eq: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.tables[shard(hash)].find(hash, eq).copied()
    }

    /// Puts one that is not there.
    #[inline]
    pub(crate) fn insert_unique(&mut self, hash: u64, value: u32, hasher: impl Fn(&u32) -> u64) {
        self.tables[shard(hash)].insert_unique(hash, value, hasher);
        self.len += 1;
    }

    /// Takes one out, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, value: u32) {
        if let Ok(entry) = self.tables[shard(hash)].find_entry(hash, |&v| v == value) {
            entry.remove();
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_until_it_is_taken_out() {
        let hash = |v: u32| u64::from(v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut shards = Shards::new();
        for v in 0..10_000 {
            shards.insert_unique(hash(v), v, |&v| hash(v));
        }
        assert_eq!(shards.len(), 10_000);
        assert!((0..10_000).all(|v| shards.find(hash(v), |&found| found == v) == Some(v)));
        for v in 0..10_000 {
            shards.remove(hash(v), v);
            shards.remove(hash(v), v);
        }
        assert_eq!(shards.len(), 0);
        assert_eq!(shards.find(hash(7), |&found| found == 7), None);
    }

    #[test]
    fn parts_differ_and_none_is_large() {
        let mut counts = [0_usize; SHARDS];
        for v in 0..100_000_u64 {
            counts[shard(v.wrapping_mul(0x9e37_79b9_7f4a_7c15))] += 1;
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*most < 6000 && least * 3 / 2 < *most, "{counts:?}");
    }
}
