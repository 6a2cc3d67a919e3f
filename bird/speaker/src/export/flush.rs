//! From changed slots to encoded UPDATEs: decide, compare with what the group holds, sort by who reads and by attributes, pack.

use bird_packet::{Nlri, PackError};
use bytes::{Bytes, BytesMut};

use super::group::{Audience, ExportCtx, Group, NOTHING, Out, WALK_SHARE};
use crate::policy::eval;
use crate::rib::attrs::AttrId;
use crate::rib::net::Net;
use crate::rib::table::{DestId, Path, PeerIndex, Table};

/// Slots decided in one flush.
const BATCH: usize = 1 << 14;

/// One route to be written: sorted, runs with equal attributes and readers lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    audience: Audience,
    /// [`AttrId::NONE`] withdraws.
    attr: AttrId,
    from: PeerIndex,
    own_as_done: bool,
    slot: u32,
}

/// The slots of a destination that are told, where their number is limited.
#[derive(Default)]
pub(super) struct Chosen {
    dest: Option<DestId>,
    slots: Vec<u32>,
}

impl Item {
    pub(super) fn announce(audience: Audience, out: Out, slot: u32) -> Item {
        Item { audience, attr: out.attr, from: out.from, own_as_done: out.own_as_done, slot }
    }

    pub(super) fn withdraw(audience: Audience, slot: u32) -> Item {
        Item { audience, attr: AttrId::NONE, from: 0, own_as_done: false, slot }
    }

    fn same_message(&self, other: &Item) -> bool {
        self.attr == other.attr
            && self.from == other.from
            && self.own_as_done == other.own_as_done
            && self.audience == other.audience
    }
}

impl<N: Net> Group<N> {
    /// Works off up to a batch of slots that may have changed, and about `most`; returns as how many it counts.
    pub(super) fn flush(&mut self, table: &Table<N>, ctx: &mut ExportCtx<'_, N>, most: usize) -> usize {
        let looked = self.mark_more(table, BATCH.min(most)) / WALK_SHARE;
        let stop = self.dirty.len().min(self.dirty_at + BATCH.min(most));
        let count = stop - self.dirty_at;
        if count == 0 {
            return 1 + looked;
        }
        self.next_seq();
        let mut items = Vec::with_capacity(count);
        // Slots of one destination lie together: what was chosen for the last one holds for the next.
        let mut chosen = Chosen::default();
        for i in self.dirty_at..stop {
            let slot = self.dirty[i];
            if !self.unmark(slot) {
                continue;
            }
            let new = self.decide(slot, table, ctx, &mut chosen);
            self.change(slot, new, ctx, &mut items);
            // With a limit, what makes room and what takes it belong together.
            let limited = self.key.path_limit.map(|_| table.dest_of_slot(slot) as usize);
            if limited.is_some_and(|dest| dest < table.dest_bound()) {
                for path in table.paths(table.dest_of_slot(slot)) {
                    if self.unmark(path.slot) {
                        let new = self.decide(path.slot, table, ctx, &mut chosen);
                        self.change(path.slot, new, ctx, &mut items);
                    }
                }
            }
        }
        self.dirty_at = stop;
        if self.dirty_at == self.dirty.len() {
            self.dirty_at = 0;
            self.dirty.clear();
            self.dirty.shrink_to(BATCH);
        }
        // A peer with a limit of its own takes no path before it hears of the one that makes room.
        let (first, rest) = match self.key.path_limit {
            Some(_) => items.into_iter().partition(|item| item.attr == AttrId::NONE),
            None => (Vec::new(), items),
        };
        for mut items in [first, rest] {
            for (audience, bytes) in self.encode(&mut items, table, ctx) {
                self.append(audience, bytes);
            }
        }
        count + looked
    }

    /// Whether a slot was marked; it is not any more.
    fn unmark(&mut self, slot: u32) -> bool {
        let Some(word) = self.dirty_bits.get_mut(slot as usize / 64) else { return false };
        let bit = 1 << (slot % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// What a slot shall be; its attributes carry a reference for the caller.
    fn decide(&self, slot: u32, table: &Table<N>, ctx: &mut ExportCtx<'_, N>, chosen: &mut Chosen) -> Out {
        let (dest, path) = if self.add_path {
            let Some((dest, path)) = table.path_of_slot(slot) else { return NOTHING };
            let usable =
                !path.is_filtered() && ctx.store.next_hops.usable(ctx.store.attrs.key(path.attr).next_hop);
            if !usable {
                return NOTHING;
            }
            if self.key.path_limit.is_some() {
                if chosen.dest != Some(dest) {
                    let paths = self.chosen(dest, table, ctx.decision(), ctx.view()).unwrap_or_default();
                    *chosen = Chosen { dest: Some(dest), slots: paths.iter().map(|p| p.slot).collect() };
                }
                if !chosen.slots.contains(&slot) {
                    return NOTHING;
                }
            }
            (dest, *path)
        } else {
            match table.best(slot) {
                Some(path) => (slot, *path),
                None => return NOTHING,
            }
        };
        self.export(table.net(dest), &path, ctx)
    }

    fn export(&self, net: N, path: &Path, ctx: &mut ExportCtx<'_, N>) -> Out {
        let Ok(accepted) = ctx.view().verdict(&self.key, net, path) else { return NOTHING };
        let mut own_as_done = false;
        let attr = if accepted.changes() {
            let own_as = (!self.key.internal).then_some(self.key.local_as);
            ctx.store.intern_edit(path.attr, |builder| {
                own_as_done = eval::apply(builder, accepted.operations, own_as);
                for community in &accepted.communities {
                    eval::add_community(builder, *community);
                }
            })
        } else {
            ctx.store.retain(path.attr);
            path.attr
        };
        Out { attr, seq: 0, from: path.peer, own_as_done }
    }

    /// Replaces what the group holds for a slot, and lists who must be told what. Every member `m` holds the slot exactly if
    /// there is something and it did not come from `m`.
    fn change(&mut self, slot: u32, new: Out, ctx: &mut ExportCtx<'_, N>, items: &mut Vec<Item>) {
        let old = self.out.get(slot as usize).copied().unwrap_or(NOTHING);
        let gone = new.attr == AttrId::NONE;
        if old.attr == new.attr && old.own_as_done == new.own_as_done && (gone || old.from == new.from) {
            ctx.store.release(new.attr);
            return;
        }
        // Only up to what was ever told: a group that is told nothing, as inside a mesh, costs no memory.
        if self.out.len() <= slot as usize {
            self.out.resize(slot as usize + 1, NOTHING);
        }
        self.out[slot as usize] = Out { seq: self.seq, ..new };
        ctx.store.release(old.attr);
        let except = |peer| if self.is_member(peer) { Audience::Except(peer) } else { Audience::All };
        if gone {
            items.push(Item::withdraw(except(old.from), slot));
            return;
        }
        let had = old.attr != AttrId::NONE;
        let moved = had && old.from != new.from;
        // Reflected routes name their source; elsewhere the same attributes are the same bytes whoever sent them.
        let same_bytes = had
            && old.attr == new.attr
            && old.own_as_done == new.own_as_done
            && !(moved && self.key.internal);
        if !same_bytes {
            items.push(Item::announce(except(new.from), new, slot));
        } else if self.is_member(old.from) {
            items.push(Item::announce(Audience::Only(old.from), new, slot));
        }
        if moved && self.is_member(new.from) {
            items.push(Item::withdraw(Audience::Only(new.from), slot));
        }
    }

    /// Sorts and packs; one piece of bytes for each audience.
    pub(super) fn encode(
        &mut self,
        items: &mut [Item],
        table: &Table<N>,
        ctx: &mut ExportCtx<'_, N>,
    ) -> Vec<(Audience, Bytes)> {
        items.sort_unstable();
        let mut chunks = Vec::new();
        let mut attrs = Vec::new();
        for audience in items.chunk_by(|a, b| a.audience == b.audience) {
            if self.nobody_reads(audience[0].audience) {
                continue;
            }
            let mut out = Vec::with_capacity(audience.len() * 8 + 64);
            for run in audience.chunk_by(Item::same_message) {
                let first = run[0];
                let add_path = self.add_path;
                let routes = run.iter().map(|item| nlri(table, add_path, item.slot));
                if first.attr == AttrId::NONE {
                    let packed = ctx.packer.withdraw(&self.key.ctx, N::FAMILY, routes, &mut out);
                    debug_assert!(packed.is_ok(), "a prefix fits an empty message");
                    continue;
                }
                attrs.clear();
                let next_hop =
                    ctx.view().rewrite(&self.key, first.attr, first.from, first.own_as_done, &mut attrs);
                let packed = match next_hop {
                    Some(next_hop) => {
                        ctx.packer.announce(&self.key.ctx, N::FAMILY, &attrs, next_hop, routes, &mut out)
                    }
                    None => Err(PackError::Family { family: N::FAMILY }),
                };
                if packed.is_err() {
                    // It does not fit a message of this session: what the peers had before is no longer true.
                    let routes = run.iter().map(|item| nlri(table, add_path, item.slot));
                    let packed = ctx.packer.withdraw(&self.key.ctx, N::FAMILY, routes, &mut out);
                    debug_assert!(packed.is_ok(), "a prefix fits an empty message");
                    for item in run {
                        let held = &mut self.out[item.slot as usize];
                        ctx.store.release(held.attr);
                        *held = Out { seq: held.seq, ..NOTHING };
                    }
                }
            }
            let mut rest = BytesMut::from(Bytes::from(out));
            while rest.len() > CHUNK {
                let piece = whole_messages(&rest);
                chunks.push((audience[0].audience, rest.split_to(piece).freeze()));
            }
            if !rest.is_empty() {
                chunks.push((audience[0].audience, rest.freeze()));
            }
        }
        chunks
    }
}

impl<N: Net> Group<N> {
    /// A group of one is not told what its only member told.
    fn nobody_reads(&self, audience: Audience) -> bool {
        self.member_count == 0 || (self.member_count == 1 && matches!(audience, Audience::Except(_)))
    }
}

/// About how much a member is handed at once.
const CHUNK: usize = 64 << 10;

/// The length of as many whole messages as fit a chunk, at least one.
fn whole_messages(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(header) = bytes.get(end..end + 19) {
        let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
        if end > 0 && end + len > CHUNK {
            break;
        }
        end += len;
    }
    end
}

fn nlri<N: Net>(table: &Table<N>, add_path: bool, slot: u32) -> Nlri<N> {
    if add_path {
        Nlri { prefix: table.net(table.dest_of_slot(slot)), path_id: slot }
    } else {
        Nlri::plain(table.net(slot))
    }
}
