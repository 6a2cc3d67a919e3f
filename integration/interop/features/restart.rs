//! Restarts of either side that cost no route.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::basic::hold;
use super::session::{exchanged, pair, pair_with, start};
use crate::cell::{Cell, Running, SOON};
use crate::peers::{Kind, LLGR_STALE, Route};
use crate::spec::{Family, Neighbour, Restart, Speaker, address, prefix, session};
use crate::wait::wait;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

/// For so long a side is away once the other has noticed.
const AWAY: Duration = Duration::from_millis(1500);

/// Waits until `at` says that the session is down.
fn down(at: &Running, neighbour: u8) -> anyhow::Result<()> {
    wait(SOON, || match at.peer.established(address(neighbour, V4)) {
        Ok(false) => Ok(()),
        other => Err(format!("{}: the session did not end: {other:?}", at.host.name)),
    })
}

/// `at` has `number`'s prefixes all the time, marked as stale if it shows that.
fn keeps(at: &Running, number: u8, families: &[Family], shows: bool) -> anyhow::Result<()> {
    let since = Instant::now();
    while since.elapsed() < AWAY {
        let routes = at.peer.routes()?;
        for family in families {
            let kept = routes.iter().find(|r| r.prefix == prefix(number, *family));
            ensure!(kept.is_some(), "{}: the route of the restarting side is gone: {routes:?}", at.host.name);
            ensure!(
                !shows || kept.is_some_and(|r| r.stale),
                "{}: the kept route is not marked stale: {kept:?}",
                at.host.name
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Which kind of session it is that restarts.
struct Kinds {
    their_as: u32,
    families: &'static [Family],
    bfd: bool,
}

const PLAIN: Kinds = Kinds { their_as: 65002, families: &[V4], bfd: false };
const INTERNAL: Kinds = Kinds { their_as: 65001, ..PLAIN };
const DUAL: Kinds = Kinds { families: &[V4, V6], ..PLAIN };
const WATCHED: Kinds = Kinds { bfd: true, ..PLAIN };

impl Kinds {
    /// Both run, have what the other announces, and BFD if they should.
    fn begin(&self, cell: &mut Cell, restart: Restart) -> anyhow::Result<(Running, Running)> {
        let set = |n: &mut Neighbour| {
            (n.graceful_restart, n.bfd) = (restart, self.bfd);
            n.families = self.families.to_vec();
        };
        let (us, them) = start(cell, pair_with(self.their_as, self.families, set), V4)?;
        for family in self.families {
            them.has(prefix(1, *family), |_| Ok(()))?;
            if *family == V4 || cell.kind != Kind::Openbgpd {
                us.has(prefix(2, *family), |_| Ok(()))?;
                us.kernel_has(prefix(2, *family), "dev eth0")?;
            }
        }
        if self.bfd {
            us.watched(address(2, V4))?;
            them.watched(address(1, V4))?;
        }
        Ok((us, them))
    }

    /// The session is back, and every route of `back` is fresh at `at`.
    fn fresh(&self, at: &Running, back: &Running) -> anyhow::Result<()> {
        at.up(address(back.number, V4))?;
        back.up(address(at.number, V4))?;
        for family in self.families {
            at.has(prefix(back.number, *family), |r| hold(!r.stale, "still stale"))?;
        }
        Ok(())
    }

    fn we_restart(&self, cell: &mut Cell) -> anyhow::Result<()> {
        // FRR says in its first two minutes that it restarted itself, unless it only helps.
        let (mut us, them) = self.begin(cell, Restart::Helper)?;
        let watch = us.watch_kernel()?;
        us.peer.kill();
        down(&them, 1)?;
        keeps(&them, 1, self.families, cell.kind != Kind::Bird)?;
        us.peer.start(true)?;
        self.fresh(&them, &us)?;
        us.has(prefix(2, V4), |_| Ok(()))?;
        if self.bfd {
            us.watched(address(2, V4))?;
        }
        watch.nothing_deleted()
    }

    fn they_restart(&self, cell: &mut Cell) -> anyhow::Result<()> {
        let (us, mut them) = self.begin(cell, Restart::Both)?;
        let watch = us.watch_kernel()?;
        them.peer.kill();
        down(&us, 2)?;
        keeps(&us, 2, self.families, true)?;
        them.peer.start(true)?;
        self.fresh(&us, &them)?;
        them.has(prefix(1, V4), |_| Ok(()))?;
        if self.bfd {
            us.watched(address(2, V4))?;
        }
        watch.nothing_deleted()
    }
}

pub(super) fn we_restart(cell: &mut Cell) -> anyhow::Result<()> {
    PLAIN.we_restart(cell)
}

pub(super) fn they_restart(cell: &mut Cell) -> anyhow::Result<()> {
    PLAIN.they_restart(cell)
}

pub(super) fn we_restart_internal(cell: &mut Cell) -> anyhow::Result<()> {
    INTERNAL.we_restart(cell)
}

pub(super) fn they_restart_internal(cell: &mut Cell) -> anyhow::Result<()> {
    INTERNAL.they_restart(cell)
}

pub(super) fn we_restart_dual(cell: &mut Cell) -> anyhow::Result<()> {
    DUAL.we_restart(cell)
}

pub(super) fn they_restart_dual(cell: &mut Cell) -> anyhow::Result<()> {
    DUAL.they_restart(cell)
}

pub(super) fn we_restart_watched(cell: &mut Cell) -> anyhow::Result<()> {
    WATCHED.we_restart(cell)
}

pub(super) fn they_restart_watched(cell: &mut Cell) -> anyhow::Result<()> {
    WATCHED.they_restart(cell)
}

/// RFC 8538: a hold timer that expires, and the NOTIFICATION that says so, keep routes like a lost connection.
pub(super) fn notified(cell: &mut Cell) -> anyhow::Result<()> {
    let (us, them) = PLAIN.begin(cell, Restart::Both)?;
    let said = us.peer.describe(address(2, V4))?;
    ensure!(said.contains("\"notification\": true"), "the N bit is not agreed: {said}");
    let watch = us.watch_kernel()?;
    cell.capture(&us)?;
    // First they hear nothing of us and say so; then the other way round. TCP goes on, only messages are lost.
    for (deaf, speaks) in [(&them, 2), (&us, 1)] {
        deaf.host.space.sh(
            "nft add table ip cut; nft add chain ip cut way '{ type filter hook input priority 0; }'; \
             nft 'add rule ip cut way tcp sport 179 ip length >= 71 drop'; \
             nft 'add rule ip cut way tcp dport 179 ip length >= 71 drop'",
        )?;
        down(deaf, 3 - speaks)?;
        wait(SOON, || {
            let packets = cell.captured("-v").map_err(|e| e.to_string())?;
            let (mut from, mut told) = ("", false);
            for line in packets.lines() {
                if line.contains(" > 10.99.0.") {
                    from = line.trim_start();
                }
                told |= line.contains("Hold Timer Expired")
                    && from.starts_with(&format!("{}.", address(speaks, V4)));
            }
            if told { Ok(()) } else { Err(format!("no NOTIFICATION of host {speaks}: {packets}")) }
        })?;
        down(&us, 2)?;
        down(&them, 1)?;
        keeps(&us, 2, &[V4], true)?;
        keeps(&them, 1, &[V4], true)?;
        deaf.host.space.sh("nft delete table ip cut")?;
        PLAIN.fresh(&us, &them)?;
        PLAIN.fresh(&them, &us)?;
    }
    if cell.kind == Kind::Gobgp {
        cell.partly = Some(
            "is back with the F bit unset, so that what we kept for it goes in that moment (RFC 4724 §4.2); both kept all \
             until then",
        );
        return Ok(());
    }
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
