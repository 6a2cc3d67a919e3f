//! A hash table of destination numbers that grows by and by: a large one is moved into a larger by some entries at each
//! insertion, instead of all at once, which takes fifty milliseconds for a million.

use hashbrown::HashTable;

use super::table::DestId;

/// A table up to this size grows at once.
const LARGE: usize = 1 << 14;
/// Numbers moved at each insertion; with two the move would be done just before the new table is full.
const MOVED: u32 = 8;

/// See the module. Numbers are given out from 0 on, so they are what is walked over when entries are moved.
pub(crate) struct Index {
    now: HashTable<DestId>,
    moving: Option<Moving>,
}

/// The table that was too small. It still has what is not moved, and what is.
struct Moving {
    before: HashTable<DestId>,
    next: DestId,
    end: DestId,
}

impl Index {
    pub(crate) fn new() -> Self {
        Index { now: HashTable::new(), moving: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.now.is_empty() && self.moving.as_ref().is_none_or(|m| m.before.is_empty())
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, eq: impl Fn(&DestId) -> bool) -> Option<DestId> {
        let found = self.now.find(hash, &eq);
        if found.is_none()
            && let Some(moving) = &self.moving
        {
            return moving.before.find(hash, &eq).copied();
        }
        found.copied()
    }

    /// Puts a number that is not there. `end` is above all numbers; `hash_of` is of a number, or `None` if it is not in use.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        id: DestId,
        end: DestId,
        hash_of: impl Fn(DestId) -> Option<u64>,
    ) {
        if self.moving.is_some() {
            self.go_on(MOVED, &hash_of);
        }
        if self.now.len() == self.now.capacity() && self.now.len() >= LARGE {
            self.go_on(DestId::MAX, &hash_of);
            let larger = HashTable::with_capacity(self.now.len() * 2);
            let before = std::mem::replace(&mut self.now, larger);
            self.moving = Some(Moving { before, next: 0, end });
        }
        self.now.insert_unique(hash, id, |&i| hash_of(i).unwrap_or_default());
    }

    #[cold]
    fn go_on(&mut self, count: u32, hash_of: &impl Fn(DestId) -> Option<u64>) {
        let Some(moving) = &mut self.moving else { return };
        let stop = moving.end.min(moving.next.saturating_add(count));
        for id in moving.next..stop {
            // One that was freed and given out again meanwhile was taken out there.
            if let Some(hash) = hash_of(id)
                && moving.before.find(hash, |&i| i == id).is_some()
            {
                self.now.insert_unique(hash, id, |&i| hash_of(i).unwrap_or_default());
            }
        }
        moving.next = stop;
        if stop == moving.end {
            self.moving = None;
        }
    }

    /// Takes a number out.
    pub(crate) fn remove(&mut self, hash: u64, id: DestId) {
        if let Ok(entry) = self.now.find_entry(hash, |&i| i == id) {
            entry.remove();
        }
        if let Some(moving) = &mut self.moving
            && let Ok(entry) = moving.before.find_entry(hash, |&i| i == id)
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Numbers are freed and given out again for other keys while the table grows twice.
    #[test]
    fn what_is_put_is_found_until_it_is_taken_out() {
        let mut index = Index::new();
        let mut keys: Vec<Option<u64>> = Vec::new();
        let mut free: Vec<DestId> = Vec::new();
        let mut moves = 0;
        for key in 0..100_000_u64 {
            let id = free.pop().unwrap_or_else(|| {
                keys.push(None);
                super::super::index32(keys.len() - 1)
            });
            keys[id as usize] = Some(key);
            let end = super::super::index32(keys.len());
            let was = index.moving.is_some();
            index.insert(hash(key), id, end, |i| keys[i as usize].map(hash));
            moves += u32::from(!was && index.moving.is_some());
            if key % 3 == 0 {
                let at = usize::try_from(key / 2).unwrap() % keys.len();
                if let Some(gone) = keys[at].take() {
                    index.remove(hash(gone), super::super::index32(at));
                    free.push(super::super::index32(at));
                    assert_eq!(index.find(hash(gone), |&i| keys[i as usize] == Some(gone)), None);
                }
            }
            if key % 1000 == 0 {
                for (id, key) in keys.iter().enumerate().filter_map(|(id, k)| Some((id, (*k)?))) {
                    let found = index.find(hash(key), |&i| keys[i as usize] == Some(key));
                    assert_eq!(found, Some(super::super::index32(id)));
                }
            }
        }
        assert!(moves >= 2, "{moves}");
        for (id, key) in keys.iter_mut().enumerate() {
            if let Some(gone) = key.take() {
                index.remove(hash(gone), super::super::index32(id));
            }
        }
        assert!(index.is_empty());
    }
}
