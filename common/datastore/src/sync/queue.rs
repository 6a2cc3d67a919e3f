//! What is known of the store and what the consumer has yet to hear, coalesced by key.
//!
//! Pure: no clock, no I/O. The memory used is bounded by the store's own content: one small entry
//! for each known key, one value for each key changed since the consumer last asked, and nothing
//! for a key that came and went unheard.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{SyncEvent, SyncStatus};
use crate::store::{Event, KeyValue, Listing};

/// The place of a key's latest incarnation in history; the value is the consumer's to keep.
#[derive(Debug, Clone, Copy)]
struct Known {
    rev: i64,
    create_rev: i64,
}

/// One thing to tell.
enum Item {
    Change(Change),
    InSync,
    Status(SyncStatus),
}

struct Change {
    key: Arc<str>,
    value: Option<Vec<u8>>,
    rev: i64,
    /// Whether the consumer holds an incarnation of this key.
    held: bool,
    /// The incarnation it holds was deleted at this revision, before `value` was created.
    gone: Option<i64>,
}

#[derive(Default)]
pub(super) struct Queue {
    known: BTreeMap<Arc<str>, Known>,
    /// In the order to be told; the number is only an order.
    items: BTreeMap<u64, Item>,
    changes: HashMap<Arc<str>, u64>,
    status: Option<u64>,
    last: u64,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue::default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes up to `most` events, oldest first (one more when the last is a key that was replaced).
    pub(super) fn take(&mut self, most: usize) -> Vec<SyncEvent> {
        let mut batch = Vec::with_capacity(self.items.len().min(most));
        while batch.len() < most {
            let Some((number, item)) = self.items.pop_first() else { break };
            match item {
                Item::Change(change) => {
                    self.changes.remove(&change.key);
                    let key: String = change.key.as_ref().to_owned();
                    if let Some(rev) = change.gone {
                        batch.push(SyncEvent::Update { key: key.clone(), value: None, rev });
                    }
                    batch.push(SyncEvent::Update { key, value: change.value, rev: change.rev });
                }
                Item::InSync => batch.push(SyncEvent::InSync),
                Item::Status(status) => {
                    if self.status == Some(number) {
                        self.status = None;
                    }
                    batch.push(SyncEvent::Status(status));
                }
            }
        }
        batch
    }

    pub(super) fn in_sync(&mut self) {
        let number = self.number();
        self.items.insert(number, Item::InSync);
    }

    /// Only the latest status is worth telling.
    pub(super) fn status(&mut self, status: SyncStatus) {
        if let Some(number) = self.status.take() {
            self.items.remove(&number);
        }
        let number = self.number();
        self.status = Some(number);
        self.items.insert(number, Item::Status(status));
    }

    /// A watch event. Returns the change in the number of keys, or `None` for an event that says
    /// nothing new.
    pub(super) fn event(&mut self, event: Event) -> Option<i32> {
        match event.value {
            Some(value) => {
                let known = self.known.get(event.key.as_str()).copied();
                if known.is_some_and(|known| event.rev <= known.rev) {
                    return None;
                }
                self.put(&event.key, value, event.rev, event.create_rev, known);
                Some(i32::from(known.is_none()))
            }
            None => {
                let known = self.known.get(event.key.as_str())?;
                if event.rev <= known.rev {
                    return None;
                }
                self.delete(&event.key, event.rev);
                Some(-1)
            }
        }
    }

    /// The truth about a prefix: what differs is changed, what is missing is gone. Returns the
    /// number of keys that differed. Must not overlap with watch events newer than the listing.
    pub(super) fn listing(&mut self, prefix: &str, listing: Listing) -> usize {
        let mut differences = 0;
        let vanished: Vec<Arc<str>> = {
            let mut listed = listing.items.iter().map(|kv| kv.key.as_str()).peekable();
            self.under(prefix)
                .filter(|(key, _)| {
                    while listed.next_if(|name| *name < key.as_ref()).is_some() {}
                    listed.peek() != Some(&key.as_ref())
                })
                .map(|(key, _)| key.clone())
                .collect()
        };
        for key in vanished {
            self.delete(&key, listing.rev);
            differences += 1;
        }
        for KeyValue { key, value, rev, create_rev } in listing.items {
            let known = self.known.get(key.as_str()).copied();
            if known.is_none_or(|known| known.rev != rev) {
                self.put(&key, value, rev, create_rev, known);
                differences += 1;
            }
        }
        differences
    }

    /// The store's history is another one: no revision means anything any more, so the next listing
    /// tells every key again.
    pub(super) fn forget_revisions(&mut self) {
        for known in self.known.values_mut() {
            known.rev = 0;
        }
    }

    /// How many keys are known under a prefix.
    pub(super) fn count(&self, prefix: &str) -> usize {
        self.under(prefix).count()
    }

    /// The revision at which a key is known.
    pub(super) fn rev(&self, key: &str) -> Option<i64> {
        self.known.get(key).map(|known| known.rev)
    }

    fn under(&self, prefix: &str) -> impl Iterator<Item = (&Arc<str>, &Known)> {
        self.known
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    fn put(&mut self, key: &str, value: Vec<u8>, rev: i64, create_rev: i64, was: Option<Known>) {
        let name = match self.known.get_key_value(key) {
            Some((name, _)) => name.clone(),
            None => Arc::from(key),
        };
        self.known.insert(name.clone(), Known { rev, create_rev });
        let replaced = was.is_some_and(|was| was.create_rev != create_rev);
        let deleted_at = create_rev.saturating_sub(1);
        if let Some(change) = self.pending(key) {
            if change.held && change.gone.is_none() {
                change.gone = match change.value {
                    None => Some(change.rev),
                    Some(_) => replaced.then_some(deleted_at),
                };
            }
            change.value = Some(value);
            change.rev = rev;
            return;
        }
        let change = Change {
            key: name,
            value: Some(value),
            rev,
            held: was.is_some(),
            gone: replaced.then_some(deleted_at),
        };
        self.push(change);
    }

    fn delete(&mut self, key: &str, rev: i64) {
        let Some((name, _)) = self.known.remove_entry(key) else { return };
        match self.pending(key) {
            Some(change) if change.held => {
                change.value = None;
                change.gone = None;
                change.rev = rev;
            }
            Some(_) => {
                if let Some(number) = self.changes.remove(key) {
                    self.items.remove(&number);
                }
            }
            None => self.push(Change { key: name, value: None, rev, held: true, gone: None }),
        }
    }

    fn pending(&mut self, key: &str) -> Option<&mut Change> {
        match self.items.get_mut(self.changes.get(key)?) {
            Some(Item::Change(change)) => Some(change),
            _ => None,
        }
    }

    fn push(&mut self, change: Change) {
        let number = self.number();
        self.changes.insert(change.key.clone(), number);
        self.items.insert(number, Item::Change(change));
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
