//! Paths that outlive their session: taken out, or made long-lived stale, in steps that hold nobody up.

use bird_packet::attr::community;

use super::attrs::{AttrId, flag};
use super::net::Net;
use super::round::Lap;
use super::routes::{Core, Rib};
use super::table::{DestId, Path, PeerIndex, path_flag};

/// Paths of earlier sessions of a peer, and what becomes of them unless they were said again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purge {
    pub(super) peer: PeerIndex,
    /// The session whose paths stay.
    keep: u8,
    what: What,
    /// Where the walk was when it began.
    lap: Lap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Remove,
    /// Remove all but those of the session before too.
    RemoveOlder,
    /// Make them long-lived stale (RFC 9494 §4.2).
    Mark,
}

impl Purge {
    fn concerns(&self, path: &Path) -> bool {
        self.peer == path.peer
            && match self.what {
                What::Remove => self.keep != path.epoch || path.is_long_lived(),
                What::RemoveOlder => self.keep != path.epoch && self.keep.wrapping_sub(1) != path.epoch,
                What::Mark => self.keep != path.epoch && !path.is_long_lived(),
            }
    }
}

/// A path marked costs as much as looking at so many destinations.
const MARK: usize = 4;

/// The attributes that were marked last, with a reference.
type Memo = Option<(AttrId, AttrId)>;

impl<N: Net> Rib<N> {
    /// Removes a peer's paths, except those of session `keep`, and of the one before it if asked. In steps.
    pub(crate) fn purge(&mut self, peer: PeerIndex, keep: u8, keep_previous: bool) {
        self.look_at(peer, keep, if keep_previous { What::RemoveOlder } else { What::Remove });
    }

    /// Makes a peer's paths long-lived stale, except those of session `keep`; removes those that must not be. In steps.
    pub(crate) fn mark_long_lived(&mut self, peer: PeerIndex, keep: u8) {
        self.look_at(peer, keep, What::Mark);
    }

    fn look_at(&mut self, peer: PeerIndex, keep: u8, what: What) {
        self.purges.retain(|p| p.peer != peer);
        if self.received_from(peer) > 0 {
            self.purges.push(Purge { peer, keep, what, lap: self.purge_round.begin() });
        }
    }

    pub(crate) fn is_purging(&self) -> bool {
        !self.purges.is_empty()
    }

    /// One step of all of them; they share the walk. Looks at up to `budget` destinations, fewer where there is much to do.
    pub(crate) fn purge_step(&mut self, core: &mut Core, budget: usize) {
        // An import filter that changed decides first whether a path may become long-lived stale.
        let waits = |p: &Purge| p.what == What::Mark && self.review.is_importing(p.peer);
        let (mut waiting, mut purges): (Vec<Purge>, Vec<Purge>) =
            std::mem::take(&mut self.purges).into_iter().partition(waits);
        let bound = self.table.dest_bound();
        let mut left = if purges.is_empty() { 0 } else { budget.min(bound.max(1)) };
        let mut memo: Memo = None;
        while left > 0 {
            left -= 1;
            let Some(id) = self.purge_round.next(bound) else { break };
            let mut at = self.table.paths(id).len();
            while at > 0 {
                at -= 1;
                let path = self.table.paths(id)[at];
                match purges.iter().find(|p| p.concerns(&path)).map(|p| p.what) {
                    None => {}
                    Some(What::Mark) => {
                        left = left.saturating_sub(MARK);
                        self.mark(core, id, at, &mut memo);
                    }
                    Some(What::Remove | What::RemoveOlder) => self.remove(core, id, at),
                }
            }
        }
        if let Some((_, marked)) = memo {
            core.store.release(marked);
        }
        let (received, round) = (&self.received, self.purge_round);
        purges.retain(|p| !round.is_over(p.lap) && received[usize::from(p.peer)] > 0);
        for purge in &mut waiting {
            purge.lap = round.begin();
        }
        purges.extend(waiting);
        self.purges = purges;
    }

    fn mark(&mut self, core: &mut Core, id: DestId, at: usize, memo: &mut Memo) {
        let path = self.table.paths(id)[at];
        let received = self.table.originals.get(id, path.peer, path.rx_id).unwrap_or(path.attr);
        let has = |attr: AttrId, flag| core.store.attrs.key(attr).has(flag);
        if has(path.attr, flag::NO_LLGR) || has(received, flag::NO_LLGR) {
            return self.remove(core, id, at);
        }
        let flags = path.flags | path_flag::LONG_LIVED;
        if path.is_filtered() || has(path.attr, flag::LLGR_STALE) {
            self.table.paths_mut(id)[at].flags = flags;
            return;
        }
        let marked = match *memo {
            Some((of, marked)) if of == path.attr => marked,
            _ => {
                let marked = core.store.intern_edit(path.attr, |builder| {
                    builder.add_community(community::LLGR_STALE);
                });
                if let Some((_, old)) = memo.replace((path.attr, marked)) {
                    core.store.release(old);
                }
                marked
            }
        };
        core.store.retain(marked);
        core.store.retain(received);
        let path = Path { attr: marked, flags: flags | path_flag::EDITED, ..path };
        self.announce_at(core, id, path, Some(received));
    }
}
