//! What routes carry, and how many of them.

use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::basic::hold;
use super::session::{pair, start};
use crate::cell::{Cell, Running, SOON};
use crate::peers::{Kind, Route};
use crate::spec::{Announce, Family, Speaker, address, prefix, router_id, session};
use crate::wait::wait;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

fn shared() -> IpNet {
    prefix(50, V4)
}

pub(super) fn communities(cell: &mut Cell) -> anyhow::Result<()> {
    let marked = |number: u8, asn: u16, targets: &[&str]| {
        let mut announce = Announce::plain(prefix(number, V4));
        announce.communities = vec![format!("{asn}:7"), format!("{asn}:8")];
        announce.large = vec![format!("{asn}:1:2"), format!("{asn}:4294967295:0")];
        announce.targets = targets.iter().map(|t| (*t).to_owned()).collect();
        announce
    };
    let (mut us, mut them, mut source) =
        (Speaker::new(1, 65001), Speaker::new(2, 65002), Speaker::new(3, 65003));
    us.announces.push(marked(1, 65001, &[]));
    source.announces.push(marked(3, 65003, &["65003:9"]));
    session(&mut us, &mut them, |_| ());
    session(&mut us, &mut source, |_| ());
    let us = cell.ours(&us)?;
    let them = cell.theirs(&them)?;
    let _source = cell.theirs(&source)?;

    let carries = |r: &Route, asn: u16, extended: &[&str]| {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list
        };
        hold(sorted(&r.communities) == [format!("{asn}:7"), format!("{asn}:8")], "communities")?;
        hold(sorted(&r.large) == [format!("{asn}:1:2"), format!("{asn}:4294967295:0")], "large communities")?;
        hold(r.extended == extended, "extended communities")
    };
    us.has(prefix(3, V4), |r| carries(r, 65003, &["rt:65003:9"]))?;
    them.has(prefix(3, V4), |r| carries(r, 65003, &["rt:65003:9"]))?;
    them.has(prefix(1, V4), |r| carries(r, 65001, &[]))?;
    Ok(())
}

/// What a route looks like that `by` reflected from `from`.
fn reflected(route: &Route, from: u8, by: u8) -> Result<(), String> {
    hold(route.originator == Some(router_id(from)), "ORIGINATOR_ID")?;
    hold(route.clusters == [router_id(by)], "CLUSTER_LIST")?;
    hold(route.next_hop == Some(address(from, V4)), "next hop was touched")?;
    hold(route.local_pref == Some(100), "LOCAL_PREF")
}

pub(super) fn we_reflect(cell: &mut Cell) -> anyhow::Result<()> {
    let client = |number| Speaker::new(number, 65001).announces_own(V4);
    let (mut us, mut first, mut second) = (Speaker::new(1, 65001), client(2), client(3));
    for other in [&mut first, &mut second] {
        session(&mut us, other, |_| ());
    }
    us.neighbours.iter_mut().for_each(|n| n.client = true);
    let us = cell.ours(&us)?;
    let (first, second) = (cell.theirs(&first)?, cell.theirs(&second)?);
    first.has(prefix(3, V4), |r| reflected(r, 3, 1))?;
    second.has(prefix(2, V4), |r| reflected(r, 2, 1))?;
    us.kernel_has(prefix(3, V4), "via 10.99.0.3 dev eth0")
}

pub(super) fn they_reflect(cell: &mut Cell) -> anyhow::Result<()> {
    let client = |number| Speaker::new(number, 65001).announces_own(V4);
    let (mut us, mut them, mut third) = (client(1), Speaker::new(2, 65001), client(3));
    for other in [&mut us, &mut third] {
        session(&mut them, other, |_| ());
    }
    them.neighbours.iter_mut().for_each(|n| n.client = true);
    let us = cell.ours(&us)?;
    let _them = cell.theirs(&them)?;
    let third = cell.ours(&third)?;
    us.has(prefix(3, V4), |r| reflected(r, 3, 2))?;
    third.has(prefix(1, V4), |r| reflected(r, 1, 2))?;
    us.kernel_has(prefix(3, V4), "via 10.99.0.3 dev eth0")
}

pub(super) fn next_hop_6(cell: &mut Cell) -> anyhow::Result<()> {
    let pair = pair(&[V4], |n| (n.transport, n.extended_next_hop) = (V6, true));
    let (us, them) = start(cell, pair, V6)?;
    them.has(prefix(1, V4), |r| {
        hold(matches!(r.next_hop, Some(hop) if hop.is_ipv6()), "next hop is not our IPv6 address")
    })?;
    us.has(prefix(2, V4), |r| {
        hold(matches!(r.next_hop, Some(hop) if hop.is_ipv6()), "next hop is not their IPv6 address")
    })?;
    us.kernel_has(prefix(2, V4), "via inet6 ")
}

/// Hosts 3 and 4 announce the same prefix to host `to`; it tells both paths to the other of 1 and 2.
fn two_paths(cell: &mut Cell, to: u8) -> anyhow::Result<(Running, Running, Vec<Running>)> {
    let (mut us, mut them) = pair(&[], |n| n.add_path = true);
    let mut sources = Vec::new();
    for number in [3, 4] {
        let mut source = Speaker::new(number, 65000 + u32::from(number));
        source.announces.push(Announce::plain(shared()));
        session(if to == 1 { &mut us } else { &mut them }, &mut source, |_| ());
        sources.push(source);
    }
    let (us, them) = (cell.ours(&us)?, cell.theirs(&them)?);
    let sources = sources.iter().map(|s| cell.ours(s)).collect::<Result<_, _>>()?;
    Ok((us, them, sources))
}

/// Both paths are held, by their AS paths.
fn both(at: &Running, paths: [&[u32]; 2]) -> anyhow::Result<()> {
    at.has_paths(shared(), 2)?;
    for path in paths {
        at.has(shared(), |r| hold(r.as_path == path, "not this path"))?;
    }
    Ok(())
}

pub(super) fn add_path_out(cell: &mut Cell) -> anyhow::Result<()> {
    let (us, them, mut sources) = two_paths(cell, 1)?;
    both(&them, [&[65001, 65003], &[65001, 65004]])?;
    sources[0].peer.kill();
    them.has_paths(shared(), 1)?;
    them.has(shared(), |r| hold(r.as_path == [65001, 65004], "the other path is left"))?;
    us.up(address(2, V4))
}

pub(super) fn add_path_in(cell: &mut Cell) -> anyhow::Result<()> {
    if cell.kind == Kind::Exabgp {
        return two_paths_of_one(cell);
    }
    let (us, them, mut sources) = two_paths(cell, 2)?;
    both(&us, [&[65002, 65003], &[65002, 65004]])?;
    sources[0].peer.kill();
    us.has_paths(shared(), 1)?;
    us.has(shared(), |r| hold(r.as_path == [65002, 65004], "the other path is left"))?;
    them.up(address(1, V4))
}

/// ExaBGP passes nothing on, but tells a prefix twice by itself.
fn two_paths_of_one(cell: &mut Cell) -> anyhow::Result<()> {
    let (us, mut them) = pair(&[], |n| n.add_path = true);
    for community in ["65002:1", "65002:2"] {
        let mut announce = Announce::plain(shared());
        announce.communities.push(community.to_owned());
        them.announces.push(announce);
    }
    let (us, _them) = start(cell, (us, them), V4)?;
    us.has_paths(shared(), 2)?;
    for community in ["65002:1", "65002:2"] {
        us.has(shared(), |r| hold(r.communities == [community], "not this path"))?;
    }
    Ok(())
}

/// More than `max` of them.
fn five(speaker: &mut Speaker) {
    // FRR counts a prefix only when the next one comes.
    for n in 60..65 {
        speaker.announces.push(Announce::plain(prefix(n, V4)));
    }
}

pub(super) fn our_limit(cell: &mut Cell) -> anyhow::Result<()> {
    let (mut us, mut them) = pair(&[], |_| ());
    five(&mut them);
    us.neighbours[0].max_prefixes = Some(2);
    let us = cell.ours(&us)?;
    cell.capture(&us)?;
    let them = cell.theirs(&them)?;
    ceased(cell, Ipv4Addr::new(10, 99, 0, 1))?;
    said(&us)?;
    wait(SOON, || match them.peer.established(address(1, V4)) {
        Ok(false) => Ok(()),
        other => Err(format!("they still have a session: {other:?}")),
    })
}

pub(super) fn their_limit(cell: &mut Cell) -> anyhow::Result<()> {
    let (mut us, mut them) = pair(&[], |_| ());
    five(&mut us);
    them.neighbours[0].max_prefixes = Some(2);
    let us = cell.ours(&us)?;
    cell.capture(&us)?;
    let _them = cell.theirs(&them)?;
    ceased(cell, Ipv4Addr::new(10, 99, 0, 2))?;
    said(&us)
}

/// A Cease / Maximum Number of Prefixes Reached went out of `from`.
fn ceased(cell: &Cell, from: Ipv4Addr) -> anyhow::Result<()> {
    let from = format!("{from}.");
    wait(SOON, || {
        let packets = cell.captured("-v").map_err(|e| e.to_string())?;
        let mut ours = false;
        for line in packets.lines() {
            if line.contains(" > 10.99.0.") {
                ours = line.trim_start().starts_with(&from);
            }
            if ours && line.contains("Cease (6)") && line.contains("Maximum Number of Prefixes Reached (1)") {
                return Ok(());
            }
        }
        Err(format!("no Cease 6/1 of {from}:\n{packets}"))
    })
}

/// Ours says what ended the session.
fn said(us: &Running) -> anyhow::Result<()> {
    wait(SOON, || {
        let text = us.peer.describe(address(2, V4)).map_err(|e| format!("{e:#}"))?.to_lowercase();
        let good = text.contains("maximum number of prefixes") || text.contains("prefix limit");
        if good { Ok(()) } else { Err(format!("we do not say so: {text}")) }
    })
}

pub(super) fn extended_message(cell: &mut Cell) -> anyhow::Result<()> {
    // 12 octets each: three times what a message of 4096 octets can hold.
    const MANY: u32 = 1000;
    let (mut us, mut them) = pair(&[], |n| n.extended_message = true);
    for (speaker, number) in [(&mut us, 1), (&mut them, 2)] {
        let mut announce = Announce::plain(prefix(number, V4));
        announce.large = (0..MANY).map(|n| format!("65000:{number}:{n}")).collect();
        speaker.announces.push(announce);
    }
    let mut third = Speaker::new(3, 65003);
    session(&mut them, &mut third, |n| n.extended_message = true);
    let third = cell.ours(&third)?;
    let (us, them) = start(cell, (us, them), V4)?;
    let all = |r: &Route| {
        let numbers = r.large.iter().filter_map(|c| c.rsplit(':').next()?.parse::<u32>().ok());
        hold(
            r.large.len() == MANY as usize && numbers.sum::<u32>() == MANY * (MANY - 1) / 2,
            "communities are missing",
        )
    };
    us.has(prefix(2, V4), all)?;
    if cell.kind.is_router() {
        // BIRD's client shows no more than thirty of them.
        them.has(prefix(1, V4), |r| hold(r.large.len() > 20, "communities are missing"))?;
        third.has(prefix(1, V4), all)?;
    } else {
        them.has(prefix(1, V4), all)?;
    }
    Ok(())
}
