//! The links of this host as the kernel last told, by index and by name.

use std::collections::{BTreeMap, BTreeSet};

use caracal_netlink::Link;
use caracal_reconcile::Moment;

/// Mark of links that felix made, so that a restarted felix knows them (`ip link show group 51729`).
pub const OUR_GROUP: u32 = 0xca11;

/// Every link, workload or not.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_index: BTreeMap<u32, Entry>,
    by_name: BTreeMap<String, u32>,
    /// Handed over for deletion: not there any more as far as desired state goes.
    doomed: BTreeSet<u32>,
}

#[derive(Debug)]
struct Entry {
    link: Link,
    first_seen: Moment,
}

/// What an event about a link amounts to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkChange {
    /// Names whose endpoints have to be looked at.
    pub(crate) names: Vec<String>,
    /// The kernel dropped the routes and neighbours of this link.
    pub(crate) lost: Option<u32>,
    /// It carried packets and does not any more, although nobody set it down here: look at its far end.
    pub(crate) fell: bool,
    /// What the host's MTU is taken from may have changed.
    pub(crate) mtu: bool,
}

impl Links {
    /// A link is new or has changed.
    pub(crate) fn observe(&mut self, link: Link, now: Moment) -> LinkChange {
        let mut change = LinkChange::default();
        let index = link.index;
        let old = self.by_index.get(&index).map(|entry| &entry.link);
        if old == Some(&link) {
            return change;
        }
        if let Some(old) = old {
            if old.up && !link.up {
                change.lost = Some(index);
            }
            if old.name != link.name {
                change.names.push(old.name.clone());
                if self.by_name.get(&old.name) == Some(&index) {
                    let name = old.name.clone();
                    self.by_name.remove(&name);
                }
            }
            change.fell = old.running && !link.running && link.up;
            change.mtu = old.mtu != link.mtu;
        } else {
            change.mtu = true;
        }
        change.names.push(link.name.clone());
        self.by_name.insert(link.name.clone(), index);
        let first_seen = self.by_index.get(&index).map_or(now, |entry| entry.first_seen);
        self.by_index.insert(index, Entry { link, first_seen });
        change
    }

    /// A link is gone.
    pub(crate) fn gone(&mut self, index: u32) -> LinkChange {
        self.doomed.remove(&index);
        let Some(Entry { link, .. }) = self.by_index.remove(&index) else { return LinkChange::default() };
        if self.by_name.get(&link.name) == Some(&index) {
            self.by_name.remove(&link.name);
        }
        LinkChange { names: vec![link.name], lost: Some(index), fell: false, mtu: true }
    }

    /// Every link, from a complete dump; returns what that changed.
    pub(crate) fn replace(&mut self, dump: Vec<Link>, now: Moment) -> Vec<LinkChange> {
        let seen: BTreeSet<u32> = dump.iter().map(|link| link.index).collect();
        let gone: Vec<u32> = self.by_index.keys().filter(|index| !seen.contains(index)).copied().collect();
        let mut changes: Vec<LinkChange> = gone.into_iter().map(|index| self.gone(index)).collect();
        changes.extend(dump.into_iter().map(|link| self.observe(link, now)));
        changes
    }

    /// The link of that name, unless it is on its way out.
    pub(crate) fn named(&self, name: &str) -> Option<&Link> {
        let index = self.by_name.get(name)?;
        if self.doomed.contains(index) {
            return None;
        }
        self.by_index.get(index).map(|entry| &entry.link)
    }

    /// Whether a link of that name still has to disappear before another can be made.
    pub(crate) fn is_leaving(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|index| self.doomed.contains(index))
    }

    pub(crate) fn name_of(&self, index: u32) -> Option<&str> {
        self.by_index.get(&index).map(|entry| entry.link.name.as_str())
    }

    pub(crate) fn first_seen(&self, index: u32) -> Option<Moment> {
        self.by_index.get(&index).map(|entry| entry.first_seen)
    }

    pub(crate) fn doom(&mut self, index: u32) {
        self.doomed.insert(index);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.by_index.values().map(|entry| &entry.link)
    }

    pub(crate) fn doomed(&self) -> impl Iterator<Item = u32> {
        self.doomed.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> Link {
        Link {
            index,
            name: name.into(),
            up,
            running: up,
            mac: None,
            mtu: 1500,
            kind: "veth".into(),
            group: 0,
            peer_index: None,
            peer_netns: None,
            master: None,
            alias: None,
        }
    }

    #[test]
    fn a_rename_moves_the_name_and_wakes_both() {
        let mut links = Links::default();
        links.observe(link(7, "calia", true), Moment::ZERO);
        let change = links.observe(link(7, "calib", true), Moment::from_secs(1));
        assert_eq!(change.names, ["calia", "calib"]);
        assert!(links.named("calia").is_none());
        assert_eq!(links.first_seen(7), Some(Moment::ZERO));
    }

    #[test]
    fn an_index_used_again_is_another_link() {
        let mut links = Links::default();
        links.observe(link(7, "calia", true), Moment::ZERO);
        assert_eq!(links.gone(7).lost, Some(7));
        links.observe(link(7, "calib", true), Moment::from_secs(5));
        assert_eq!(links.first_seen(7), Some(Moment::from_secs(5)));
        assert!(links.named("calia").is_none());
    }

    #[test]
    fn a_name_that_moved_to_a_new_index_survives_the_old_ones_end() {
        let mut links = Links::default();
        links.observe(link(7, "calia", true), Moment::ZERO);
        links.observe(link(8, "calia", true), Moment::ZERO);
        links.gone(7);
        assert_eq!(links.named("calia").map(|l| l.index), Some(8));
    }

    #[test]
    fn down_means_lost_and_a_repetition_means_nothing() {
        let mut links = Links::default();
        links.observe(link(7, "calia", true), Moment::ZERO);
        assert_eq!(links.observe(link(7, "calia", true), Moment::ZERO), LinkChange::default());
        assert_eq!(links.observe(link(7, "calia", false), Moment::ZERO).lost, Some(7));
    }

    #[test]
    fn a_doomed_link_is_absent_until_it_is_gone() {
        let mut links = Links::default();
        links.observe(link(7, "calia", true), Moment::ZERO);
        links.doom(7);
        assert!(links.named("calia").is_none() && links.is_leaving("calia"));
        let changes = links.replace(Vec::new(), Moment::ZERO);
        assert_eq!(changes[0].names, ["calia"]);
        assert!(!links.is_leaving("calia"));
    }
}
