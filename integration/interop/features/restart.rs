//! Restarts of either side that cost no route.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::basic::hold;
use super::session::{exchanged, pair, start};
use crate::cell::{Cell, Running, SOON};
use crate::peers::{Kind, LLGR_STALE, Route};
use crate::spec::{Family, Neighbour, Restart, Speaker, address, prefix, session};
use crate::wait::wait;

const V4: Family = Family::V4;

/// For so long a side is away once the other has noticed.
const AWAY: Duration = Duration::from_millis(1500);

/// Waits until `at` says that the session is down.
fn down(at: &Running, neighbour: u8) -> anyhow::Result<()> {
    wait(SOON, || match at.peer.established(address(neighbour, V4)) {
        Ok(false) => Ok(()),
        other => Err(format!("{}: the session did not end: {other:?}", at.host.name)),
    })
}

/// `at` has `number`'s prefix all the time, marked as stale if it shows that.
fn keeps(at: &Running, number: u8, shows: bool) -> anyhow::Result<()> {
    let since = Instant::now();
    while since.elapsed() < AWAY {
        let routes = at.peer.routes()?;
        let kept = routes.iter().find(|r| r.prefix == prefix(number, V4));
        ensure!(kept.is_some(), "{}: the route of the restarting side is gone: {routes:?}", at.host.name);
        ensure!(
            !shows || kept.is_some_and(|r| r.stale),
            "{}: the kept route is not marked stale: {kept:?}",
            at.host.name
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

pub(super) fn we_restart(cell: &mut Cell) -> anyhow::Result<()> {
    // FRR says in its first two minutes that it restarted itself, unless it only helps.
    let (mut us, them) = start(cell, pair(&[V4], |n| n.graceful_restart = Restart::Helper), V4)?;
    exchanged(&us, &them, V4)?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;
    let watch = us.watch_kernel()?;

    us.peer.kill();
    down(&them, 1)?;
    keeps(&them, 1, cell.kind != Kind::Bird)?;
    us.peer.start(true)?;
    us.up(address(2, V4))?;
    them.up(address(1, V4))?;
    them.has(prefix(1, V4), |r| hold(!r.stale, "still stale"))?;
    us.has(prefix(2, V4), |_| Ok(()))?;
    watch.nothing_deleted()
}

pub(super) fn they_restart(cell: &mut Cell) -> anyhow::Result<()> {
    let (us, mut them) = start(cell, pair(&[V4], |n| n.graceful_restart = Restart::Both), V4)?;
    exchanged(&us, &them, V4)?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;
    let watch = us.watch_kernel()?;

    them.peer.kill();
    down(&us, 2)?;
    keeps(&us, 2, true)?;
    them.peer.start(true)?;
    us.up(address(2, V4))?;
    them.up(address(1, V4))?;
    us.has(prefix(2, V4), |r| hold(!r.stale, "still stale"))?;
    them.has(prefix(1, V4), |_| Ok(()))?;
    watch.nothing_deleted()
}

/// The route is kept as the last resort (RFC 9494): ours says so, others show the community.
fn last_resort(route: &Route) -> Result<(), String> {
    hold(
        route.long_lived || route.communities.iter().any(|c| c == LLGR_STALE),
        "not marked as the last resort",
    )
}

fn long_lived(n: &mut Neighbour) {
    n.graceful_restart = Restart::LongLived;
}

pub(super) fn we_stay_away(cell: &mut Cell) -> anyhow::Result<()> {
    let (mut us, them) = start(cell, pair(&[V4], long_lived), V4)?;
    exchanged(&us, &them, V4)?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;
    let watch = us.watch_kernel()?;
    us.peer.kill();
    down(&them, 1)?;
    // The restart time passes, and nobody comes back.
    them.has(prefix(1, V4), last_resort)?;
    us.peer.start(true)?;
    us.up(address(2, V4))?;
    them.has(prefix(1, V4), |r| hold(!r.stale && last_resort(r).is_err(), "still marked"))?;
    us.has(prefix(2, V4), |_| Ok(()))?;
    watch.nothing_deleted()
}

pub(super) fn they_stay_away(cell: &mut Cell) -> anyhow::Result<()> {
    let (mut us, them) = pair(&[V4], long_lived);
    let mut third = Speaker::new(3, 65003);
    session(&mut us, &mut third, long_lived);
    let third = cell.ours(&third)?;
    let (us, mut them) = start(cell, (us, them), V4)?;
    exchanged(&us, &them, V4)?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;
    third.has(prefix(2, V4), |_| Ok(()))?;
    let watch = us.watch_kernel()?;
    them.peer.kill();
    down(&us, 2)?;
    us.has(prefix(2, V4), last_resort)?;
    third.has(prefix(2, V4), last_resort)?;
    them.peer.start(true)?;
    us.up(address(2, V4))?;
    us.has(prefix(2, V4), |r| hold(!r.stale && last_resort(r).is_err(), "still marked"))?;
    third.has(prefix(2, V4), |r| hold(last_resort(r).is_err(), "still marked"))?;
    watch.nothing_deleted()
}

pub(super) fn bfd(cell: &mut Cell) -> anyhow::Result<()> {
    // The hold time is 9 s: what happens in a third of that is BFD's doing.
    const FAST: Duration = Duration::from_secs(3);
    let (us, them) = start(cell, pair(&[V4], |n| n.bfd = true), V4)?;
    exchanged(&us, &them, V4)?;
    us.watched(address(2, V4))?;
    them.watched(address(1, V4))?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;

    us.host.space.sh(
        "nft add table ip cut; nft add chain ip cut in '{ type filter hook input priority 0; policy drop; }'; \
         nft add chain ip cut out '{ type filter hook output priority 0; policy drop; }'",
    )?;
    let cut = Instant::now();
    down(&us, 2)?;
    down(&them, 1)?;
    ensure!(cut.elapsed() < FAST, "only after {:?}", cut.elapsed());
    us.has_paths(prefix(2, V4), 0)?;
    us.host.space.sh("nft delete table ip cut")?;
    us.up(address(2, V4))?;
    them.up(address(1, V4))?;
    exchanged(&us, &them, V4)?;
    us.watched(address(2, V4))
}
