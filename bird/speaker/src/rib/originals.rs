//! Attributes as received, of paths that import policy changed. By blocks of destinations, so that it grows in small steps.

use std::collections::HashMap;

use super::attrs::AttrId;
use super::table::{DestId, PeerIndex};

/// Destinations of a block: two to the power of this.
const BLOCK: u32 = 14;

type Block = HashMap<(DestId, PeerIndex, u32), AttrId, foldhash::fast::FixedState>;

/// See the module. A path is known by its destination, its peer and the identifier that came with it.
#[derive(Default)]
pub(crate) struct Originals {
    blocks: Vec<Block>,
}

fn block(id: DestId) -> usize {
    (id >> BLOCK) as usize
}

impl Originals {
    pub(crate) fn get(&self, id: DestId, peer: PeerIndex, rx_id: u32) -> Option<AttrId> {
        self.blocks.get(block(id))?.get(&(id, peer, rx_id)).copied()
    }

    /// Returns what was there before.
    pub(crate) fn insert(&mut self, id: DestId, peer: PeerIndex, rx_id: u32, attr: AttrId) -> Option<AttrId> {
        let at = block(id);
        if at >= self.blocks.len() {
            self.blocks.resize_with(at + 1, Block::default);
        }
        self.blocks[at].insert((id, peer, rx_id), attr)
    }

    pub(crate) fn remove(&mut self, id: DestId, peer: PeerIndex, rx_id: u32) -> Option<AttrId> {
        let block = self.blocks.get_mut(block(id))?;
        let attr = block.remove(&(id, peer, rx_id));
        if block.is_empty() {
            *block = Block::default();
        }
        attr
    }
}
