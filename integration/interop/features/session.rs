//! What is agreed in the session itself.

use anyhow::ensure;

use super::basic::hold;
use crate::cell::{Cell, Running};
use crate::peers::{Kind, Route};
use crate::spec::{Family, Neighbour, Restart, Speaker, address, prefix, session};
use crate::wait::wait;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

/// Ours in AS 65001 and theirs in AS 65002, each with its own prefix of `families`.
pub(super) fn pair(families: &[Family], set: impl Fn(&mut Neighbour)) -> (Speaker, Speaker) {
    pair_with(65002, families, set)
}

/// The same with theirs in any AS.
pub(super) fn pair_with(
    their_as: u32,
    families: &[Family],
    set: impl Fn(&mut Neighbour),
) -> (Speaker, Speaker) {
    let (mut us, mut them) = (Speaker::new(1, 65001), Speaker::new(2, their_as));
    for family in families {
        us = us.announces_own(*family);
        them = them.announces_own(*family);
    }
    session(&mut us, &mut them, set);
    (us, them)
}

/// Starts both and waits for the session at both ends.
pub(super) fn start(
    cell: &mut Cell,
    (us, them): (Speaker, Speaker),
    transport: Family,
) -> anyhow::Result<(Running, Running)> {
    let us = cell.ours(&us)?;
    let them = cell.theirs(&them)?;
    us.up(address(2, transport))?;
    them.up(address(1, transport))?;
    Ok((us, them))
}

/// Each has the other's prefix.
pub(super) fn exchanged(us: &Running, them: &Running, family: Family) -> anyhow::Result<()> {
    them.has(prefix(1, family), |_| Ok(()))?;
    us.has(prefix(2, family), |_| Ok(()))?;
    Ok(())
}

pub(super) fn md5(cell: &mut Cell) -> anyhow::Result<()> {
    let with = |password: &'static str| pair(&[V4], |n| n.password = Some(password));
    let us = cell.ours(&with("s3cret").0)?;
    cell.capture(&us)?;
    let them = cell.theirs(&with("s3cret").1)?;
    us.up(address(2, V4))?;
    them.up(address(1, V4))?;
    exchanged(&us, &them, V4)?;
    let packets = cell.captured("-v")?;
    ensure!(
        packets.contains("md5shared secret not supplied") || packets.contains("md5 "),
        "no MD5 option: {packets}"
    );
    Ok(())
}

pub(super) fn md5_wrong(cell: &mut Cell) -> anyhow::Result<()> {
    let with = |password: &'static str| pair(&[V4], |n| n.password = Some(password));
    let us = cell.ours(&with("s3cret").0)?;
    cell.capture(&us)?;
    let them = cell.theirs(&with("other").1)?;
    // Both have called by then, and neither was heard.
    wait(crate::cell::SOON, || {
        let packets = cell.captured("").map_err(|e| e.to_string())?;
        let calls = |from: &str| packets.lines().filter(|l| l.contains(from) && l.contains("[S]")).count();
        let (ours, theirs) = (calls("IP 10.99.0.1."), calls("IP 10.99.0.2."));
        if ours + theirs >= 3 { Ok(()) } else { Err(format!("{ours} and {theirs} calls seen")) }
    })?;
    ensure!(!us.peer.established(address(2, V4))?, "a session came up with different passwords");
    ensure!(!them.peer.established(address(1, V4)).unwrap_or_default(), "they say a session came up");
    Ok(())
}

pub(super) fn gtsm(cell: &mut Cell) -> anyhow::Result<()> {
    let (us, them) = pair(&[V4], |n| n.ttl_security = true);
    let us = cell.ours(&us)?;
    cell.capture(&us)?;
    let them = cell.theirs(&them)?;
    us.up(address(2, V4))?;
    them.up(address(1, V4))?;
    exchanged(&us, &them, V4)?;
    let packets = cell.captured("-v")?;
    // The kernel refuses a call, or takes one, before a program has set the TTL of that connection: only packets
    // with octets of BGP count.
    let mut last_ttl = "";
    for line in packets.lines() {
        if let Some((_, rest)) = line.split_once(" ttl ") {
            last_ttl = rest.split(',').next().unwrap_or_default();
        } else if line.contains(": Flags") && !line.contains("length 0") {
            ensure!(last_ttl == "255", "sent with TTL {last_ttl}: {line}");
        }
    }
    ensure!(!last_ttl.is_empty(), "nothing captured");
    // A packet that came over a router must not be taken: from now on theirs arrive with 254.
    us.host.space.sh(
        "nft add table ip far; nft add chain ip far in '{ type filter hook input priority 0; }'; \
         nft add rule ip far in tcp sport 179 ip ttl set 254; nft add rule ip far in tcp dport 179 ip ttl set 254",
    )?;
    wait(crate::cell::SOON, || match us.peer.established(address(2, V4)) {
        Ok(false) => Ok(()),
        other => Err(format!("packets with TTL 254 are taken: {other:?}")),
    })
}

pub(super) fn v6(cell: &mut Cell) -> anyhow::Result<()> {
    let pair = pair(&[V6], |n| (n.transport, n.families) = (V6, vec![V6]));
    let (us, them) = start(cell, pair, V6)?;
    them.has(prefix(1, V6), |r| {
        hold(r.as_path == [65001], "AS path is not 65001")?;
        hold(r.next_hop == Some(address(1, V6)) || link_local(r), "next hop is not ours")
    })?;
    us.has(prefix(2, V6), |r| {
        hold(r.next_hop == Some(address(2, V6)) || link_local(r), "next hop is not theirs")
    })?;
    us.kernel_has(prefix(2, V6), "dev eth0")
}

fn link_local(route: &Route) -> bool {
    matches!(route.next_hop, Some(std::net::IpAddr::V6(a)) if a.is_unicast_link_local())
}

pub(super) fn dual(cell: &mut Cell) -> anyhow::Result<()> {
    let pair = pair(&[V4, V6], |n| n.families = vec![V4, V6]);
    let (us, them) = start(cell, pair, V4)?;
    exchanged(&us, &them, V4)?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;
    them.has(prefix(1, V6), |r| {
        hold(r.next_hop == Some(address(1, V6)) || link_local(r), "next hop is not our IPv6 address")
    })?;
    if cell.kind == Kind::Openbgpd {
        cell.partly = Some(
            "its portable version tells ::1 as the next hop of its own IPv6 routes on an IPv4 session, which we treat \
             as withdrawn (RFC 7606) while the session stays; the other directions hold",
        );
        us.has_paths(prefix(2, V6), 0)?;
        us.up(address(2, V4))?;
        return Ok(());
    }
    us.has(prefix(2, V6), |_| Ok(()))?;
    us.kernel_has(prefix(2, V6), "dev eth0")
}

pub(super) fn as4(cell: &mut Cell) -> anyhow::Result<()> {
    let mut us = Speaker::new(1, 4_200_000_001).announces_own(V4);
    let mut them = Speaker::new(2, 4_200_000_002).announces_own(V4);
    let mut third = Speaker::new(3, 4_200_000_003).announces_own(V4);
    session(&mut us, &mut them, |_| ());
    session(&mut them, &mut third, |_| ());
    let third = cell.ours(&third)?;
    let (us, them) = start(cell, (us, them), V4)?;
    them.has(prefix(1, V4), |r| hold(r.as_path == [4_200_000_001], "AS path"))?;
    us.has(prefix(2, V4), |_| Ok(()))?;
    if cell.kind.is_router() {
        third.has(prefix(1, V4), |_| Ok(()))?;
        us.has(prefix(3, V4), |_| Ok(()))?;
    }
    Ok(())
}

pub(super) fn they_refresh(cell: &mut Cell) -> anyhow::Result<()> {
    let (us, mut them) = start(cell, pair(&[V4], |_| ()), V4)?;
    exchanged(&us, &them, V4)?;
    cell.capture(&us)?;
    them.peer.refresh(address(1, V4))?;
    asked_and_answered(cell, 2, 1)?;
    counted(&them, &us)?;
    us.up(address(2, V4))?;
    them.has(prefix(1, V4), |_| Ok(()))?;
    Ok(())
}

pub(super) fn we_refresh(cell: &mut Cell) -> anyhow::Result<()> {
    // FRR answers only after an End-of-RIB of its own, which it sends where graceful restart is agreed.
    let (mut us, them) = start(cell, pair(&[V4], |n| n.graceful_restart = Restart::Helper), V4)?;
    exchanged(&us, &them, V4)?;
    us.kernel_has(prefix(2, V4), "via 10.99.0.2 dev eth0")?;
    let watch = us.watch_kernel()?;
    cell.capture(&us)?;
    // Both call at the start: one session may have ended there already.
    let before = lost(&us)?;
    us.peer.refresh(address(2, V4))?;
    if cell.kind == Kind::Openbgpd {
        cell.partly = Some("counts our request, and sends nothing in this version");
    } else {
        asked_and_answered(cell, 1, 2)?;
    }
    counted(&us, &them)?;
    them.up(address(1, V4))?;
    ensure!(lost(&us)? == before, "the session was lost");
    us.has(prefix(2, V4), |_| Ok(()))?;
    watch.nothing_deleted()
}

/// How many sessions with theirs were lost, as ours shows it.
fn lost(us: &Running) -> anyhow::Result<Option<String>> {
    let said = us.peer.describe(address(2, V4))?;
    Ok(said.lines().find(|l| l.contains("\"flaps\"")).map(str::to_owned))
}

/// In the packets: a ROUTE-REFRESH of one host, and after it the other's own prefix again.
fn asked_and_answered(cell: &Cell, asks: u8, answers: u8) -> anyhow::Result<()> {
    let (asks, answerer) = (format!("{}.", address(asks, V4)), format!("{}.", address(answers, V4)));
    wait(crate::cell::SOON, || {
        let packets = cell.captured("-v").map_err(|e| e.to_string())?;
        let (mut asked, mut from) = (false, "");
        for line in packets.lines() {
            if line.contains(" > 10.99.0.") {
                from = line.trim_start();
            }
            if line.contains("Route Refresh Message (5)") && from.starts_with(&asks) {
                asked = true;
            }
            let told = line.trim().starts_with(&prefix(answers, V4).to_string());
            if asked && from.starts_with(&answerer) && told {
                return Ok(());
            }
        }
        Err(format!("asked: {asked}, not answered: {packets}"))
    })
}

/// Both ends say that the one asked the other once.
fn counted(one: &Running, other: &Running) -> anyhow::Result<()> {
    let said =
        |at: &Running, of: &Running| at.peer.refreshes(address(of.number, V4)).map_err(|e| e.to_string());
    wait(crate::cell::SOON, || {
        let (sent, received) = (said(one, other)?, said(other, one)?);
        hold(sent.is_none_or(|(sent, _)| sent == 1), &format!("asked by its own count: {sent:?}"))?;
        hold(
            received.is_none_or(|(_, asked)| asked == 1),
            &format!("was asked by its own count: {received:?}"),
        )
    })
}
