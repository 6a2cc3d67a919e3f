//! The two maps and the keys where they may differ.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Backoff, Moment, Retries};

/// What should be and what is, for one kind of object.
///
/// Only keys that some call touched are looked at by the next pass, so a pass costs what changed, not what exists.
#[derive(Clone, Debug)]
pub struct Delta<K, V> {
    desired: BTreeMap<K, V>,
    actual: BTreeMap<K, V>,
    dirty: BTreeSet<K>,
    retries: Retries<K>,
}

/// One thing to do, complete in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<K, V> {
    /// Which object.
    pub key: K,
    /// What to do with it.
    pub change: Change<V>,
}

/// What to do with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<V> {
    /// It is wanted and not there.
    Create(V),
    /// It is there, but not as wanted.
    Update {
        /// As it is.
        from: V,
        /// As it should be.
        to: V,
    },
    /// It is there and nobody wants it.
    Delete(V),
}

impl<K: Ord + Clone, V: PartialEq + Clone> Default for Delta<K, V> {
    fn default() -> Self {
        Self::new(Backoff::default())
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Delta<K, V> {
    /// Nothing desired, nothing there.
    pub fn new(backoff: Backoff) -> Self {
        Self {
            desired: BTreeMap::new(),
            actual: BTreeMap::new(),
            dirty: BTreeSet::new(),
            retries: Retries::new(backoff),
        }
    }

    /// `key` should be `value`. A changed wish is tried at once, whatever failed before.
    pub fn want(&mut self, key: K, value: V) {
        if self.desired.get(&key) == Some(&value) {
            return;
        }
        self.retries.forget(&key);
        self.dirty.insert(key.clone());
        self.desired.insert(key, value);
    }

    /// `key` should not exist.
    pub fn unwant(&mut self, key: &K) -> Option<V> {
        let old = self.desired.remove(key);
        if old.is_some() {
            self.retries.forget(key);
            self.dirty.insert(key.clone());
        }
        old
    }

    /// Everything that is desired, in one go: what is not in `all` is not desired any more.
    pub fn replace_desired(&mut self, all: impl IntoIterator<Item = (K, V)>) {
        let new: BTreeMap<K, V> = all.into_iter().collect();
        let gone: Vec<K> = self.desired.keys().filter(|key| !new.contains_key(key)).cloned().collect();
        for key in gone {
            self.unwant(&key);
        }
        for (key, value) in new {
            self.want(key, value);
        }
    }

    /// `key` is `value`: seen in a dump, in a notification, or just written.
    pub fn observe(&mut self, key: K, value: V) {
        if self.desired.get(&key) == Some(&value) {
            self.retries.forget(&key);
            self.dirty.remove(&key);
        } else {
            self.dirty.insert(key.clone());
        }
        self.actual.insert(key, value);
    }

    /// `key` is not there (any more).
    pub fn gone(&mut self, key: &K) -> Option<V> {
        let old = self.actual.remove(key);
        if self.desired.contains_key(key) {
            self.dirty.insert(key.clone());
        } else {
            self.retries.forget(key);
            self.dirty.remove(key);
        }
        old
    }

    /// Everything that is there, from a *complete* dump: what is not in `all` is gone.
    pub fn replace_actual(&mut self, all: impl IntoIterator<Item = (K, V)>) {
        let new: BTreeMap<K, V> = all.into_iter().collect();
        let gone: Vec<K> = self.actual.keys().filter(|key| !new.contains_key(key)).cloned().collect();
        for key in gone {
            self.gone(&key);
        }
        for (key, value) in new {
            self.observe(key, value);
        }
    }

    /// The next pass looks at `key` again, without any wait.
    pub fn touch(&mut self, key: K) {
        self.retries.forget(&key);
        self.dirty.insert(key);
    }

    /// The steps that are due at `now`, in the order of their keys.
    ///
    /// A key leaves the dirty set here; report each step by [`Delta::applied`] or [`Delta::failed`].
    pub fn pass(&mut self, now: Moment) -> Vec<Step<K, V>> {
        let mut keys: BTreeSet<K> = self.retries.due(now).into_iter().collect();
        let (held, ready): (BTreeSet<K>, BTreeSet<K>) =
            std::mem::take(&mut self.dirty).into_iter().partition(|key| self.retries.waits(key, now));
        self.dirty = held;
        keys.extend(ready);
        keys.into_iter().filter_map(|key| self.step(key)).collect()
    }

    /// What `key` needs, if anything.
    fn step(&mut self, key: K) -> Option<Step<K, V>> {
        let change = match (self.desired.get(&key), self.actual.get(&key)) {
            (Some(to), None) => Change::Create(to.clone()),
            (Some(to), Some(from)) if to != from => Change::Update { from: from.clone(), to: to.clone() },
            (None, Some(old)) => Change::Delete(old.clone()),
            _ => {
                self.retries.forget(&key);
                return None;
            }
        };
        Some(Step { key, change })
    }

    /// The step was done: its object is now as the step wanted it.
    pub fn applied(&mut self, step: Step<K, V>) {
        self.retries.forget(&step.key);
        match step.change {
            Change::Create(to) | Change::Update { to, .. } => self.observe(step.key, to),
            Change::Delete(_) => {
                self.gone(&step.key);
            }
        }
    }

    /// The step failed: its key stays dirty and waits, longer each time. Returns the failures in a row.
    pub fn failed(&mut self, key: &K, now: Moment) -> u32 {
        self.dirty.insert(key.clone());
        self.retries.failed(key.clone(), now)
    }

    /// The key is not to be looked at before `due`; this is no failure (a grace period).
    pub fn defer(&mut self, key: &K, due: Moment) {
        self.dirty.insert(key.clone());
        self.retries.defer(key.clone(), due);
    }

    /// When a pass has something to do without any further call: now (`Some(ZERO)`), later, or never.
    pub fn next_due(&self, now: Moment) -> Option<Moment> {
        if self.dirty.iter().any(|key| !self.retries.waits(key, now)) {
            return Some(Moment::ZERO);
        }
        self.retries.next_due()
    }

    /// What `key` should be.
    pub fn desired(&self, key: &K) -> Option<&V> {
        self.desired.get(key)
    }

    /// What `key` is, as far as known.
    pub fn actual(&self, key: &K) -> Option<&V> {
        self.actual.get(key)
    }

    /// Everything that should be, in the order of the keys.
    pub fn all_desired(&self) -> impl Iterator<Item = (&K, &V)> {
        self.desired.iter()
    }

    /// Everything that is, in the order of the keys.
    pub fn all_actual(&self) -> impl Iterator<Item = (&K, &V)> {
        self.actual.iter()
    }

    /// Whether `key` is as it should be.
    pub fn is_settled(&self, key: &K) -> bool {
        self.desired.get(key) == self.actual.get(key)
    }

    /// Keys that are not known to be settled.
    pub fn unsettled(&self) -> impl Iterator<Item = &K> {
        self.dirty.iter().filter(|key| !self.is_settled(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Moment = Moment::ZERO;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn delta() -> Delta<&'static str, u32> {
        Delta::new(Backoff { first: at(50), most: at(400) })
    }

    #[test]
    fn a_pass_says_create_update_delete() {
        let mut d = delta();
        d.observe("stale", 1);
        d.observe("same", 2);
        d.observe("other", 3);
        d.want("same", 2);
        d.want("other", 4);
        d.want("new", 5);
        assert_eq!(
            d.pass(T0),
            [
                Step { key: "new", change: Change::Create(5) },
                Step { key: "other", change: Change::Update { from: 3, to: 4 } },
                Step { key: "stale", change: Change::Delete(1) },
            ]
        );
    }

    #[test]
    fn an_unchanged_restart_has_no_steps() {
        let mut d = delta();
        d.replace_actual([("a", 1), ("b", 2)]);
        d.replace_desired([("b", 2), ("a", 1)]);
        assert_eq!(d.pass(T0), []);
        assert_eq!(d.next_due(T0), None);
    }

    #[test]
    fn a_failed_key_waits_and_others_proceed() {
        let mut d = delta();
        d.want("a", 1);
        d.want("b", 2);
        for step in d.pass(T0) {
            if step.key == "a" {
                d.failed(&"a", T0);
            } else {
                d.applied(step);
            }
        }
        assert_eq!(d.actual(&"b"), Some(&2));
        assert_eq!(d.pass(at(49)), []);
        assert_eq!(d.next_due(at(49)), Some(at(50)));
        assert_eq!(d.pass(at(50)).len(), 1);
        assert_eq!(d.failed(&"a", at(50)), 2);
        assert_eq!(d.next_due(at(51)), Some(at(150)));
    }

    #[test]
    fn a_changed_wish_does_not_wait() {
        let mut d = delta();
        d.want("a", 1);
        d.pass(T0);
        d.failed(&"a", T0);
        d.want("a", 2);
        assert_eq!(d.next_due(at(1)), Some(T0));
        assert_eq!(d.pass(at(1)), [Step { key: "a", change: Change::Create(2) }]);
    }

    #[test]
    fn drift_wakes_the_next_pass() {
        let mut d = delta();
        d.want("a", 1);
        for step in d.pass(T0) {
            d.applied(step);
        }
        assert_eq!(d.pass(T0), []);
        d.gone(&"a");
        assert_eq!(d.pass(T0), [Step { key: "a", change: Change::Create(1) }]);
    }

    #[test]
    fn grace_holds_a_deletion_back_and_an_adoption_ends_it() {
        let mut d = delta();
        d.observe("fresh", 1);
        d.defer(&"fresh", at(10_000));
        assert_eq!(d.pass(at(9_999)), []);
        let mut adopted = d.clone();
        assert_eq!(d.pass(at(10_000)), [Step { key: "fresh", change: Change::Delete(1) }]);
        adopted.want("fresh", 1);
        assert_eq!(adopted.pass(at(9_999)), []);
        assert_eq!(adopted.next_due(at(9_999)), None);
    }

    #[test]
    fn a_wish_that_changed_while_a_step_was_under_way_is_not_lost() {
        let mut d = delta();
        d.want("a", 1);
        let step = d.pass(T0).remove(0);
        d.want("a", 2);
        d.applied(step);
        assert_eq!(d.pass(T0), [Step { key: "a", change: Change::Update { from: 1, to: 2 } }]);
    }
}
