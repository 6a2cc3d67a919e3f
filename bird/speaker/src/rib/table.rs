//! The table of one family: prefix -> destination -> paths.
//!
//! A destination is 32 bytes for IPv4 and holds its path inside while there is only one; several lie in a vector of their own.
//! Destination numbers are stable while anybody, here or in an export group, may still refer to them.

use super::attrs::AttrId;
use super::index::Index;
use super::index32;
use super::net::Net;
use super::originals::Originals;
use super::stamp::{LATEST, Stamped as _};
use crate::io::Time;

/// Number of a destination.
pub(crate) type DestId = u32;
/// Number of a peer, configured or one of the [`source`]s of our own.
pub(crate) type PeerIndex = u16;

/// Peer numbers that stand for this node's own routes.
pub(crate) mod source {
    use super::PeerIndex;
    /// Originated by configuration.
    pub(crate) const STATIC: PeerIndex = 0;
    /// Connected subnets and kernel routes.
    pub(crate) const LOCAL: PeerIndex = 1;
    /// The first real peer.
    pub(crate) const FIRST_PEER: PeerIndex = 2;
}

/// Bits of [`Path::flags`].
pub(crate) mod path_flag {
    /// Kept for display and re-evaluation, never used.
    pub(crate) const FILTERED: u8 = 1;
    /// Its attributes are those after import policy changed them; the original ones are in [`super::Table::originals`].
    pub(crate) const EDITED: u8 = 2;
    /// Long-lived stale: its peer did not come back in time (RFC 9494).
    pub(crate) const LONG_LIVED: u8 = 4;
}

/// One way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) attr: AttrId,
    /// Path identifier that the peer sent, 0 without ADD-PATH; for local routes, which one.
    pub(crate) rx_id: u32,
    /// Number for ADD-PATH export, 0 while nobody needs it.
    pub(crate) slot: u32,
    pub(crate) peer: PeerIndex,
    /// Session of the peer that said it last, modulo 256.
    pub(crate) epoch: u8,
    pub(crate) flags: u8,
}

impl Path {
    pub(crate) fn is_filtered(&self) -> bool {
        self.flags & path_flag::FILTERED != 0
    }

    pub(crate) fn is_long_lived(&self) -> bool {
        self.flags & path_flag::LONG_LIVED != 0
    }

    pub(crate) fn is_edited(&self) -> bool {
        self.flags & path_flag::EDITED != 0
    }
}

const NO_PATH: Path = Path { attr: AttrId::NONE, rx_id: 0, slot: 0, peer: 0, epoch: 0, flags: 0 };

/// No best path.
const NO_BEST: u32 = 0xfff;
/// Paths beyond this many for one prefix are not taken.
pub(crate) const MAX_PATHS: usize = crate::config::MOST_PATHS as usize;

/// Bits of a destination.
pub(crate) mod dest_flag {
    /// The slot is in use.
    pub(crate) const USED: u32 = 1;
    /// In the list of kernel changes.
    pub(crate) const FIB_DIRTY: u32 = 2;
    /// Some path had a MED: comparing two paths alone does not give the best.
    pub(crate) const HAS_MED: u32 = 4;
    /// Without paths, waiting until nobody refers to its number.
    pub(crate) const EMPTY: u32 = 8;
    /// The kernel's route was there before us; not to be touched before the restart is over.
    pub(crate) const FIB_STALE: u32 = 16;
    /// The last kernel change failed.
    pub(crate) const FIB_FAILED: u32 = 32;
}

struct Dest<N: Net> {
    /// The prefix, and when a path of it came, went or changed, in seconds after [`Table::epoch`].
    net: N::Stamped,
    /// What the kernel holds of us: an id of [`crate::fib`], 0: nothing.
    fib: u32,
    /// best: 12 bits, count: 12 bits, flags: 8 bits.
    meta: u32,
    /// The only path, or `attr` is the number of a vector of several.
    inline: Path,
}

/// What an update of a path did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// The path before; `None`: it is new.
    pub(crate) old: Option<Path>,
    /// Where it is in the destination's paths.
    pub(crate) at: usize,
}

/// All destinations of one family.
pub(crate) struct Table<N: Net> {
    index: Index,
    dests: Vec<Dest<N>>,
    free: Vec<DestId>,
    many: Vec<Vec<Path>>,
    many_free: Vec<u32>,
    /// Destination of each ADD-PATH slot; slot 0 is never given out.
    slots: Vec<DestId>,
    slots_free: Vec<u32>,
    slots_used: bool,
    /// Attributes as received, of paths that import policy changed.
    pub(crate) originals: Originals,
    /// Destinations without paths whose number may still be referred to.
    pub(crate) empty: Vec<DestId>,
    seed: u64,
    paths: usize,
    /// What stamps count from, seconds of the shell's clock.
    epoch: u64,
    /// Seconds since then.
    now: u32,
}

impl<N: Net> Table<N> {
    pub(crate) fn new(seed: u64) -> Self {
        Table {
            index: Index::new(),
            dests: Vec::new(),
            free: Vec::new(),
            many: Vec::new(),
            many_free: Vec::new(),
            slots: vec![0],
            slots_free: Vec::new(),
            slots_used: false,
            originals: Originals::default(),
            empty: Vec::new(),
            seed,
            paths: 0,
            epoch: 0,
            now: 0,
        }
    }

    /// Upper bound of destination numbers.
    pub(crate) fn dest_bound(&self) -> usize {
        self.dests.len()
    }

    /// Paths held, filtered ones included.
    pub(crate) fn path_count(&self) -> usize {
        self.paths
    }

    #[inline]
    pub(crate) fn find(&self, net: N) -> Option<DestId> {
        let dests = &self.dests;
        self.index.find(net.hash(self.seed), |&i| dests[i as usize].net.is(net))
    }

    /// The number of a prefix, made if need be.
    #[inline]
    pub(crate) fn find_or_insert(&mut self, net: N) -> DestId {
        let hash = net.hash(self.seed);
        let dests = &mut self.dests;
        if let Some(i) = self.index.find(hash, |&i| dests[i as usize].net.is(net)) {
            return i;
        }
        let net = N::Stamped::new(net, self.now);
        let dest = Dest { net, fib: 0, meta: (NO_BEST << 20) | dest_flag::USED, inline: NO_PATH };
        let id = if let Some(id) = self.free.pop() {
            dests[id as usize] = dest;
            id
        } else {
            dests.push(dest);
            index32(dests.len() - 1)
        };
        let seed = self.seed;
        let end = index32(dests.len());
        self.index.insert(hash, id, end, |i| {
            let dest = &dests[i as usize];
            (dest.meta & dest_flag::USED != 0).then(|| dest.net.net().hash(seed))
        });
        id
    }

    #[inline]
    pub(crate) fn net(&self, id: DestId) -> N {
        self.dests[id as usize].net.net()
    }

    /// A path of the prefix came, went or changed.
    #[inline]
    pub(crate) fn touch(&mut self, id: DestId) {
        self.dests[id as usize].net.set_stamp(self.now);
    }

    /// How long ago that was, in whole seconds.
    pub(crate) fn unchanged_for(&self, id: DestId) -> Time {
        Time::from_secs(self.now.saturating_sub(self.dests[id as usize].net.stamp()).into())
    }

    /// Time goes on. Stamps reach over 194 days: every half of that the old ones are moved, and lose what lies before.
    #[inline]
    pub(crate) fn tick(&mut self, now: Time) {
        let since = now.as_secs().saturating_sub(self.epoch);
        match u32::try_from(since) {
            Ok(since) if since <= LATEST => self.now = since,
            _ => self.move_stamps(since - u64::from(LATEST / 2)),
        }
    }

    #[cold]
    fn move_stamps(&mut self, by: u64) {
        self.epoch += by;
        self.now = LATEST / 2;
        let by = u32::try_from(by).unwrap_or(LATEST);
        for dest in &mut self.dests {
            let stamp = dest.net.stamp().saturating_sub(by);
            dest.net.set_stamp(stamp);
        }
    }

    #[inline]
    pub(crate) fn paths(&self, id: DestId) -> &[Path] {
        let dest = &self.dests[id as usize];
        match dest.count() {
            0 => &[],
            1 => std::slice::from_ref(&dest.inline),
            _ => &self.many[dest.inline.attr.0 as usize],
        }
    }

    /// The paths, to change attributes and flags of; their number stays.
    #[inline]
    pub(crate) fn paths_mut(&mut self, id: DestId) -> &mut [Path] {
        let dest = &mut self.dests[id as usize];
        match dest.count() {
            0 => &mut [],
            1 => std::slice::from_mut(&mut dest.inline),
            _ => &mut self.many[dest.inline.attr.0 as usize],
        }
    }

    #[inline]
    pub(crate) fn best(&self, id: DestId) -> Option<&Path> {
        let best = self.dests[id as usize].best();
        if best == NO_BEST { None } else { self.paths(id).get(best as usize) }
    }

    #[inline]
    pub(crate) fn best_at(&self, id: DestId) -> Option<usize> {
        let best = self.dests[id as usize].best();
        (best != NO_BEST).then_some(best as usize)
    }

    #[inline]
    pub(crate) fn set_best(&mut self, id: DestId, at: Option<usize>) {
        let best = at.map_or(NO_BEST, |at| index32(at).min(NO_BEST));
        let meta = &mut self.dests[id as usize].meta;
        *meta = (*meta & 0x000f_ffff) | (best << 20);
    }

    /// Puts a path: replaces the one of the same peer and identifier, or adds it. The reference on `path.attr` moves in,
    /// the one of [`Replaced::old`] moves out. `None`: there are too many; nothing happened.
    #[inline]
    pub(crate) fn put(&mut self, id: DestId, path: Path) -> Option<Replaced> {
        let dest = &mut self.dests[id as usize];
        match dest.count() {
            0 => {
                let slot = self.new_slot(id);
                let dest = &mut self.dests[id as usize];
                dest.inline = Path { slot, ..path };
                dest.set_count(1);
                self.paths += 1;
                Some(Replaced { old: None, at: 0 })
            }
            1 if dest.inline.peer == path.peer && dest.inline.rx_id == path.rx_id => {
                let old = dest.inline;
                dest.inline = Path { slot: old.slot, ..path };
                Some(Replaced { old: Some(old), at: 0 })
            }
            _ => self.put_many(id, path),
        }
    }

    fn put_many(&mut self, id: DestId, path: Path) -> Option<Replaced> {
        let count = self.dests[id as usize].count() as usize;
        let paths = self.paths_mut(id);
        if let Some(at) = paths.iter().position(|p| p.peer == path.peer && p.rx_id == path.rx_id) {
            let old = paths[at];
            paths[at] = Path { slot: old.slot, ..path };
            return Some(Replaced { old: Some(old), at });
        }
        if count >= MAX_PATHS {
            return None;
        }
        let slot = self.new_slot(id);
        let dest = &mut self.dests[id as usize];
        if count == 1 {
            let block = if let Some(block) = self.many_free.pop() {
                block
            } else {
                self.many.push(Vec::new());
                index32(self.many.len() - 1)
            };
            self.many[block as usize].push(dest.inline);
            dest.inline = Path { attr: AttrId(block), ..NO_PATH };
        }
        self.many[dest.inline.attr.0 as usize].push(Path { slot, ..path });
        dest.set_count(index32(count + 1));
        self.paths += 1;
        Some(Replaced { old: None, at: count })
    }

    /// Takes a path out; the last one takes its place. The best path's position is kept right, or cleared if it was this one.
    /// The reference on its attributes moves to the caller, and its slot must be given to [`Table::free_slot`] in time.
    pub(crate) fn take(&mut self, id: DestId, at: usize) -> Path {
        let best = self.best_at(id);
        let dest = &mut self.dests[id as usize];
        let count = dest.count() as usize;
        debug_assert!(at < count, "no path {at} of {count}");
        let path = if count == 1 {
            std::mem::replace(&mut dest.inline, NO_PATH)
        } else {
            let block = dest.inline.attr.0;
            let paths = &mut self.many[block as usize];
            let path = paths.swap_remove(at);
            if count == 2 {
                dest.inline = paths[0];
                *paths = Vec::new();
                self.many_free.push(block);
                dest.meta &= !dest_flag::HAS_MED;
            }
            path
        };
        dest.set_count(index32(count - 1));
        self.paths -= 1;
        if count == 1 && dest.meta & dest_flag::EMPTY == 0 {
            dest.meta |= dest_flag::EMPTY;
            self.empty.push(id);
        }
        match best {
            Some(best) if best == at => self.set_best(id, None),
            Some(best) if best == count - 1 => self.set_best(id, Some(at)),
            _ => {}
        }
        path
    }

    #[inline]
    pub(crate) fn flag(&self, id: DestId, flag: u32) -> bool {
        self.dests[id as usize].meta & flag != 0
    }

    /// Sets or clears a flag; returns what it was.
    #[inline]
    pub(crate) fn set_flag(&mut self, id: DestId, flag: u32, on: bool) -> bool {
        let meta = &mut self.dests[id as usize].meta;
        let was = *meta & flag != 0;
        if on {
            *meta |= flag;
        } else {
            *meta &= !flag;
        }
        was
    }

    #[inline]
    pub(crate) fn fib(&self, id: DestId) -> u32 {
        self.dests[id as usize].fib
    }

    #[inline]
    pub(crate) fn set_fib(&mut self, id: DestId, fib: u32) {
        self.dests[id as usize].fib = fib;
    }

    /// Whether the number is in use, with or without paths.
    pub(crate) fn is_used(&self, id: DestId) -> bool {
        self.flag(id, dest_flag::USED)
    }

    /// Gives the number of a destination without paths free; nobody may refer to it any more.
    pub(crate) fn free_dest(&mut self, id: DestId) {
        let dest = &mut self.dests[id as usize];
        debug_assert_eq!(dest.count(), 0, "a destination with paths is in use");
        let net = dest.net.net();
        dest.meta = NO_BEST << 20;
        dest.net = N::Stamped::new(N::DEFAULT, 0);
        self.index.remove(net.hash(self.seed), id);
        self.free.push(id);
        if self.index.is_empty() && self.empty.is_empty() {
            self.shrink();
        }
    }

    /// Whether there is neither a path nor a kernel route, nor a kernel route to be looked at.
    pub(crate) fn is_idle(&self) -> bool {
        self.paths == 0
            && self.dests.iter().all(|d| d.fib == crate::fib::NO_ROUTE && d.meta & dest_flag::FIB_DIRTY == 0)
    }

    /// Gives memory back after everything went away: every number is free again.
    pub(crate) fn shrink(&mut self) {
        self.index = Index::new();
        self.dests = Vec::new();
        self.free = Vec::new();
        self.many = Vec::new();
        self.many_free = Vec::new();
        self.empty = Vec::new();
    }

    /// Numbers every path, from now on.
    pub(crate) fn use_slots(&mut self) {
        if self.slots_used {
            return;
        }
        self.slots_used = true;
        for id in 0..index32(self.dests.len()) {
            for at in 0..self.paths(id).len() {
                let slot = self.new_slot(id);
                self.paths_mut(id)[at].slot = slot;
            }
        }
    }

    #[inline]
    fn new_slot(&mut self, id: DestId) -> u32 {
        if !self.slots_used {
            return 0;
        }
        if let Some(slot) = self.slots_free.pop() {
            self.slots[slot as usize] = id;
            slot
        } else {
            self.slots.push(id);
            index32(self.slots.len() - 1)
        }
    }

    /// Gives the number of a path that is gone free; nobody may refer to it any more.
    pub(crate) fn free_slot(&mut self, slot: u32) {
        self.slots_free.push(slot);
    }

    /// The destination of an ADD-PATH slot, also after its path is gone.
    #[inline]
    pub(crate) fn dest_of_slot(&self, slot: u32) -> DestId {
        self.slots[slot as usize]
    }

    /// The path with this slot, if it is still there.
    pub(crate) fn path_of_slot(&self, slot: u32) -> Option<(DestId, &Path)> {
        let dest = self.slots[slot as usize];
        if dest as usize >= self.dests.len() {
            return None;
        }
        self.paths(dest).iter().find(|p| p.slot == slot).map(|p| (dest, p))
    }

    /// Numbers of all destinations with paths, unordered.
    pub(crate) fn dest_ids(&self) -> impl Iterator<Item = DestId> + '_ {
        self.dests.iter().enumerate().filter(|(_, d)| d.count() > 0).map(|(i, _)| index32(i))
    }
}

impl<N: Net> Dest<N> {
    #[inline]
    fn count(&self) -> u32 {
        (self.meta >> 8) & 0xfff
    }

    #[inline]
    fn set_count(&mut self, count: u32) {
        self.meta = (self.meta & 0xfff0_00ff) | (count << 8);
    }

    #[inline]
    fn best(&self) -> u32 {
        self.meta >> 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bird_packet::{Prefix, Prefix4, Prefix6};

    fn net(text: &str) -> Prefix4 {
        Prefix4::from_prefix(text.parse::<Prefix>().unwrap()).unwrap()
    }

    fn path(peer: PeerIndex, attr: u32) -> Path {
        Path { attr: AttrId(attr), peer, ..NO_PATH }
    }

    #[test]
    fn an_ipv4_destination_is_half_a_cache_line() {
        assert_eq!(size_of::<Dest<Prefix4>>(), 32);
        assert_eq!(size_of::<Dest<Prefix6>>(), 48);
        assert_eq!(size_of::<Path>(), 16);
    }

    #[test]
    fn a_prefix_knows_when_it_changed_and_years_do_not_confuse_it() {
        const DAY: u64 = 86_400;
        let mut t = Table::new(7);
        let at = |t: &mut Table<Prefix4>, secs| t.tick(Time::from_secs(secs));
        at(&mut t, 100);
        let old = t.find_or_insert(net("10.0.0.0/8"));
        let young = t.find_or_insert(net("11.0.0.0/8"));
        at(&mut t, 160);
        t.touch(young);
        at(&mut t, 161);
        let ages = |t: &Table<Prefix4>| [old, young].map(|id| t.unchanged_for(id).as_secs());
        assert_eq!(ages(&t), [61, 1]);
        at(&mut t, 150 * DAY);
        t.touch(young);
        at(&mut t, 195 * DAY);
        assert_eq!(ages(&t)[1], 45 * DAY);
        assert!((90 * DAY..=195 * DAY).contains(&ages(&t)[0]), "{:?}: longer than it can say", ages(&t));
        assert_eq!((t.net(old), t.find(net("11.0.0.0/8"))), (net("10.0.0.0/8"), Some(young)));
        // A clock that began long ago, and one that stood still for years.
        at(&mut t, 5000 * DAY);
        t.touch(young);
        at(&mut t, 5000 * DAY + 3);
        assert_eq!(ages(&t)[1], 3);
        let mut new = Table::<Prefix4>::new(7);
        at(&mut new, 5000 * DAY);
        let id = new.find_or_insert(net("10.0.0.0/8"));
        at(&mut new, 5000 * DAY + 9);
        assert_eq!(new.unchanged_for(id).as_secs(), 9);
    }

    #[test]
    fn paths_come_and_go_and_the_best_stays_marked() {
        let mut t = Table::new(7);
        let d = t.find_or_insert(net("10.0.0.0/8"));
        assert_eq!(t.find(net("10.0.0.0/8")), Some(d));
        for peer in 2..6 {
            let replaced = t.put(d, path(peer, u32::from(peer))).unwrap();
            assert_eq!((replaced.old, replaced.at), (None, usize::from(peer) - 2));
        }
        t.set_best(d, Some(3));
        assert_eq!(t.put(d, path(5, 50)).unwrap().old.unwrap().attr, AttrId(5));
        assert_eq!(t.take(d, 0).peer, 2); // the last one, which is the best, takes its place
        assert_eq!(t.best(d).unwrap().peer, 5);
        assert_eq!(t.take(d, 0).peer, 5);
        assert_eq!(t.best(d), None);
        t.take(d, 0);
        assert_eq!(t.paths(d).len(), 1);
        t.take(d, 0);
        assert_eq!(t.empty, [d]);
        t.empty.clear();
        t.free_dest(d);
        assert_eq!(t.find(net("10.0.0.0/8")), None);
        assert_eq!(t.path_count(), 0);
    }

    #[test]
    fn slots_name_paths_after_they_are_gone() {
        let mut t = Table::new(7);
        let d = t.find_or_insert(net("10.0.0.0/8"));
        t.put(d, path(2, 1));
        t.put(d, path(3, 2));
        t.use_slots();
        let slot = t.paths(d)[1].slot;
        assert_eq!(t.path_of_slot(slot).unwrap().1.peer, 3);
        t.take(d, 1);
        assert_eq!(t.path_of_slot(slot), None);
        assert_eq!(t.dest_of_slot(slot), d);
    }
}
