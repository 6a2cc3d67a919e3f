//! Whatever happens in whatever order, the end is set algebra: actual becomes desired.

use std::collections::BTreeMap;

use caracal_reconcile::{Backoff, Change, Delta, Moment};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Want(u8, u8),
    Unwant(u8),
    /// The kernel changed by another hand, and we were told.
    Drift(u8, Option<u8>),
    /// A pass in which the keys of the set fail.
    Pass(Vec<u8>),
    /// A complete dump.
    Dump,
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let key = 0u8..12;
    prop_oneof![
        (key.clone(), 0u8..4).prop_map(|(k, v)| Event::Want(k, v)),
        key.clone().prop_map(Event::Unwant),
        (key.clone(), proptest::option::of(0u8..4)).prop_map(|(k, v)| Event::Drift(k, v)),
        proptest::collection::vec(key, 0..6).prop_map(Event::Pass),
        Just(Event::Dump),
        (1u16..2000).prop_map(Event::Wait),
    ]
}

/// Runs one pass against `kernel`; keys in `fail` refuse.
fn pass(delta: &mut Delta<u8, u8>, kernel: &mut BTreeMap<u8, u8>, fail: &[u8], now: Moment) {
    for step in delta.pass(now) {
        match &step.change {
            Change::Create(to) => assert!(!kernel.contains_key(&step.key), "create of what is there: {to}"),
            Change::Update { from, .. } | Change::Delete(from) => {
                assert_eq!(kernel.get(&step.key), Some(from));
            }
        }
        if fail.contains(&step.key) {
            delta.failed(&step.key, now);
            continue;
        }
        match &step.change {
            Change::Create(to) | Change::Update { to, .. } => kernel.insert(step.key, *to),
            Change::Delete(_) => kernel.remove(&step.key),
        };
        delta.applied(step);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn actual_becomes_desired(events in proptest::collection::vec(event(), 0..60)) {
        let mut delta = Delta::new(Backoff::default());
        let (mut desired, mut kernel) = (BTreeMap::new(), BTreeMap::new());
        let mut now = Moment::ZERO;
        for event in events {
            match event {
                Event::Want(k, v) => { desired.insert(k, v); delta.want(k, v); }
                Event::Unwant(k) => { desired.remove(&k); delta.unwant(&k); }
                Event::Drift(k, Some(v)) => { kernel.insert(k, v); delta.observe(k, v); }
                Event::Drift(k, None) => { kernel.remove(&k); delta.gone(&k); }
                Event::Pass(fail) => pass(&mut delta, &mut kernel, &fail, now),
                Event::Dump => delta.replace_actual(kernel.clone()),
                Event::Wait(ms) => now += Moment::from_millis(ms.into()),
            }
        }
        now += Backoff::default().most;
        pass(&mut delta, &mut kernel, &[], now);
        prop_assert_eq!(&kernel, &desired);
        prop_assert_eq!(delta.next_due(now), None);
        prop_assert_eq!(delta.unsettled().count(), 0);
        prop_assert!(delta.pass(now).is_empty());
    }
}
