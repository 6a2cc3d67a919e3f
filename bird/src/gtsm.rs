//! TTL security on listening sockets (RFC 5082), as a classic socket filter.
//!
//! `IP_MINTTL` belongs to a socket and not to a peer, so a listener cannot have it for some callers only; and on the
//! accepted socket it comes too late for what arrived before: the handshake, and an OPEN right behind it. The filter
//! looks at each packet's source and drops it when it came from too far, the SYN first of all. Accepted sockets inherit
//! it and have `IP_MINTTL` of their own later.

use std::net::IpAddr;

use ipnet::IpNet;
use socket2::SockFilter;

use crate::plan::Plan;

/// Who may be how far away: the least TTL of what comes from here. Peers come before ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules(Vec<(IpNet, u8)>);

/// What the kernel takes as a program.
const MOST_INSTRUCTIONS: usize = 4096;

// linux/bpf_common.h and linux/filter.h.
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD: u16 = 0x20;
const LOAD_KEPT: u16 = 0x60;
const KEEP: u16 = 0x02;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Offsets from here on count from the IP header.
const NETWORK: u32 = 0xfff0_0000;
const ALL: u32 = u32::MAX;

impl Rules {
    /// The rules of a plan.
    pub(crate) fn of(plan: &Plan) -> Self {
        let least = |hops: Option<u8>| Some(255 - hops?.saturating_sub(1));
        let peers = plan.config.peers.iter().map(|p| (IpNet::from(p.address), p.ttl_security));
        let ranges = plan.config.listen_ranges.iter().map(|r| (r.range, r.template.ttl_security));
        // A peer without TTL security inside a range that has it: taken from anywhere, so it must stand here too.
        let all: Vec<(IpNet, Option<u8>)> = peers.chain(ranges).collect();
        if all.iter().all(|(_, hops)| hops.is_none()) {
            return Self::default();
        }
        Self(all.into_iter().map(|(net, hops)| (net, least(hops).unwrap_or(0))).collect())
    }

    /// The program for listeners of one family; empty when nothing is to be dropped. What does not fit a program is left
    /// to the accepted sockets.
    pub(crate) fn program(&self, v4: bool) -> Vec<SockFilter> {
        let rules = self.0.iter().filter(|(net, _)| net.addr().is_ipv4() == v4);
        if rules.clone().all(|(_, least)| *least == 0) {
            return Vec::new();
        }
        let (ttl, source) = if v4 { (8, 12) } else { (7, 8) };
        let take = op(RETURN, ALL);
        // Nearly everything that is meant for us comes with the full TTL.
        let mut program = vec![op(LOAD_BYTE, NETWORK + ttl), unless(IF_AT_LEAST, 255, 1), take, op(KEEP, 0)];
        for (net, least) in rules {
            let words: Vec<(u32, u32)> = match (net.network(), net.netmask()) {
                (IpAddr::V4(net), IpAddr::V4(mask)) => vec![(net.to_bits(), mask.to_bits())],
                (IpAddr::V6(net), IpAddr::V6(mask)) => {
                    words(net.to_bits()).zip(words(mask.to_bits())).collect()
                }
                _ => continue,
            };
            let tests: Vec<_> = (0u32..)
                .zip(words)
                .filter(|(_, (_, mask))| *mask != 0)
                .map(|(at, (value, mask))| (at, value, mask))
                .collect();
            // Three instructions for each word of the source, four for the verdict.
            if program.len() + 3 * tests.len() + 4 >= MOST_INSTRUCTIONS {
                break;
            }
            let mut left =
                u8::try_from(3 * tests.len()).expect("invariant: an address has four words at most") + 4;
            for (at, value, mask) in tests {
                left -= 3;
                program.extend([
                    op(LOAD_WORD, NETWORK + source + 4 * at),
                    op(AND, mask),
                    // Not this one: past what is left of its tests and its verdict.
                    unless(IF_EQUAL, value, left),
                ]);
            }
            program.extend([
                op(LOAD_KEPT, 0),
                unless(IF_AT_LEAST, u32::from(*least), 1),
                take,
                op(RETURN, 0),
            ]);
        }
        program.push(take);
        program.into_iter().map(|(code, no, value)| SockFilter::new(code, 0, no, value)).collect()
    }
}

/// Code, instructions to leave out when a condition does not hold, operand.
type Instruction = (u16, u8, u32);

fn op(code: u16, value: u32) -> Instruction {
    (code, 0, value)
}

fn unless(condition: u16, value: u32, over: u8) -> Instruction {
    (condition, over, value)
}

/// The four words of an address.
fn words(bits: u128) -> impl Iterator<Item = u32> {
    let part = move |at: u32| u32::try_from((bits >> (96 - 32 * at)) & u128::from(u32::MAX));
    (0..4).map(move |at| part(at).expect("invariant: masked to 32 bits"))
}
