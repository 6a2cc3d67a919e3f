//! Paths that outlive their session: taken out, or made long-lived stale, in steps that hold nobody up.

use bird_packet::attr::community;

use super::attrs::{AttrId, flag};
use super::net::Net;
use super::routes::{Core, Rib};
use super::table::{DestId, Path, PeerIndex, path_flag};

/// Paths of earlier sessions of a peer, and what becomes of them unless they were said again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purge {
    pub(super) peer: PeerIndex,
    /// The session whose paths stay.
    keep: u8,
    what: What,
    /// Destinations still to be looked at.
    left: usize,
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

/// Destinations looked at in one step.
const STEP: usize = 1 << 15;
/// Paths marked in one step, each of which costs more than one taken out.
const STEP_MARKS: usize = 1 << 13;

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
            self.purges.push(Purge { peer, keep, what, left: self.table.dest_bound() });
        }
    }

    pub(crate) fn is_purging(&self) -> bool {
        !self.purges.is_empty()
    }

    /// One step of all of them; they share the walk.
    pub(crate) fn purge_step(&mut self, core: &mut Core) {
        let bound = self.table.dest_bound();
        let longest = self.purges.iter().map(|p| p.left).max().unwrap_or(0);
        let step = longest.min(STEP).min(bound);
        let (mut looked, mut marks) = (0, 0);
        let mut memo: Memo = None;
        while looked < step && marks < STEP_MARKS {
            looked += 1;
            if self.purge_at >= bound {
                self.purge_at = 0;
            }
            let id = super::index32(self.purge_at);
            self.purge_at += 1;
            let mut at = self.table.paths(id).len();
            while at > 0 {
                at -= 1;
                let path = self.table.paths(id)[at];
                match self.purges.iter().find(|p| p.concerns(&path)).map(|p| p.what) {
                    None => {}
                    Some(What::Mark) => {
                        marks += 1;
                        self.mark(core, id, at, &mut memo);
                    }
                    Some(What::Remove | What::RemoveOlder) => self.remove(core, id, at),
                }
            }
        }
        if let Some((_, marked)) = memo {
            core.store.release(marked);
        }
        for purge in &mut self.purges {
            purge.left = purge.left.saturating_sub(looked.max(1));
        }
        let received = &self.received;
        self.purges.retain(|p| p.left > 0 && received[usize::from(p.peer)] > 0);
    }

    fn mark(&mut self, core: &mut Core, id: DestId, at: usize, memo: &mut Memo) {
        let path = self.table.paths(id)[at];
        let received = self.table.originals.get(&(id, path.peer, path.rx_id)).copied().unwrap_or(path.attr);
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
