//! Plain sessions.

use crate::cell::Cell;
use crate::spec::{Announce, Family, Speaker, address, prefix, session};

/// `Err` with a description unless it holds.
pub(super) fn hold(good: bool, what: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(what.to_owned()) }
}

const V4: Family = Family::V4;

pub(super) fn ebgp(cell: &mut Cell) -> anyhow::Result<()> {
    let mut us = Speaker::new(1, 65001).announces_own(V4);
    let mut them = Speaker::new(2, 65002).announces_own(V4);
    let mut third = Speaker::new(3, 65003).announces_own(V4);
    session(&mut us, &mut them, |_| ());
    session(&mut us, &mut third, |_| ());
    let us = cell.ours(&us)?;
    let mut them = cell.theirs(&them)?;
    let mut third = cell.ours(&third)?;
    us.up(address(2, V4))?;
    them.up(address(1, V4))?;

    let ours = them.has(prefix(1, V4), |r| hold(r.as_path == [65001], "AS path is not 65001"))?;
    anyhow::ensure!(ours.next_hop == Some(address(1, V4)), "next hop told: {ours:?}");
    them.has(prefix(3, V4), |r| hold(r.as_path == [65001, 65003], "AS path is not 65001 65003"))?;
    us.has(prefix(2, V4), |r| hold(r.next_hop == Some(address(2, V4)), "next hop is not theirs"))?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;

    third.peer.kill();
    them.has_paths(prefix(3, V4), 0)?;
    them.peer.withdraw(&Announce::plain(prefix(2, V4)))?;
    us.has_paths(prefix(2, V4), 0)
}

pub(super) fn ibgp(cell: &mut Cell) -> anyhow::Result<()> {
    let mut us = Speaker::new(1, 65001).announces_own(V4);
    let mut them = Speaker::new(2, 65001).announces_own(V4);
    let mut third = Speaker::new(3, 65001).announces_own(V4);
    session(&mut us, &mut them, |_| ());
    session(&mut us, &mut third, |_| ());
    let us = cell.ours(&us)?;
    let them = cell.theirs(&them)?;
    let _third = cell.ours(&third)?;
    us.up(address(2, V4))?;
    them.up(address(1, V4))?;

    them.has(prefix(1, V4), |r| {
        hold(r.as_path.is_empty(), "AS path is not empty")?;
        hold(r.local_pref == Some(100), "LOCAL_PREF is not 100")?;
        hold(r.next_hop == Some(address(1, V4)), "next hop is not ours")
    })?;
    us.has(prefix(2, V4), |r| hold(r.next_hop == Some(address(2, V4)), "next hop is not theirs"))?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;
    us.has(prefix(3, V4), |_| Ok(()))?;
    them.stays_without(prefix(3, V4))
}
