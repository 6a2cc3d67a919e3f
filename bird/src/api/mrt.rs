//! MRT over the socket: the table in slices, and messages as they pass.
//!
//! The agent writes no file: bytes go to the client, which owns the file and the disk that it fills. A client that reads too
//! slowly loses messages of a recording, never time of the loop, and is told how many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bird_packet::mrt::{self, Entry, Peer, Session};
use bird_packet::{Family, Prefix};
use bird_speaker::Speaker;
use bird_speaker::view::{RawPath, RawPeer, RawWalk};

use super::job::{World, put};
use super::proto::{End, Line, Refusal};

/// Prefixes of a step: a fraction of a millisecond.
const PREFIXES: usize = 128;
/// A recording waits in memory up to this for its reader.
const WAITING: usize = 4 << 20;

fn line(records: &[u8]) -> Line {
    Line::Mrt(STANDARD.encode(records))
}

fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// A dump of the table under way.
#[derive(Debug)]
pub(super) struct Dump {
    walk: RawWalk,
    /// Number of a peer -> place in the index, time, path identifiers by family.
    peers: HashMap<u16, (u16, u32, [bool; 2])>,
    begun: u32,
    started: u32,
    sequence: u32,
}

impl Dump {
    /// Begins with the index of peers; place 0 is this speaker itself.
    pub(super) fn begin(world: &World<'_>, speaker: &Speaker, out: &mut Vec<u8>) -> Self {
        let now = SystemTime::now();
        let local = speaker.config().local;
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let mut index = vec![Peer { router_id: local.router_id, address: unknown, asn: local.asn }];
        let mut peers = HashMap::new();
        for raw in speaker.raw_peers() {
            let Ok(place) = u16::try_from(index.len()) else { break };
            let since = seconds(now - world.now.saturating_sub(raw.since));
            peers.insert(raw.number, (place, since, raw.add_path));
            let router_id = raw.router_id.unwrap_or(Ipv4Addr::UNSPECIFIED);
            index.push(Peer { router_id, address: raw.address, asn: raw.asn });
        }
        let mut records = Vec::new();
        let (begun, started) = (seconds(now), seconds(world.times.started));
        mrt::peer_index_table(&mut records, begun, local.router_id, "", &index);
        put(out, &line(&records));
        Self { walk: RawWalk::default(), peers, begun, started, sequence: 0 }
    }

    /// The next prefixes; true at the end.
    pub(super) fn step(&mut self, speaker: &Speaker, out: &mut Vec<u8>) -> bool {
        let mut records = Vec::new();
        let mut walk = self.walk;
        let done = speaker.walk_raw(&mut walk, PREFIXES, |prefix, paths| {
            self.prefix(prefix, paths, &mut records);
        });
        self.walk = walk;
        if !records.is_empty() {
            put(out, &line(&records));
        }
        done
    }

    fn prefix(&mut self, prefix: Prefix, paths: &[RawPath<'_>], records: &mut Vec<u8>) {
        let family = prefix.family();
        let nowhere = match family {
            Family::Ipv4Unicast => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::Ipv6Unicast => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let (mut plain, mut numbered) = (Vec::new(), Vec::new());
        for path in paths {
            let (peer, since, add_path) = match path.peer {
                None => (0, self.started, false),
                Some(number) => match self.peers.get(&number) {
                    Some((place, since, add_path)) => (*place, *since, add_path[family.index()]),
                    // It came after the index was written.
                    None => continue,
                },
            };
            let (next_hop, link_local) = path.next_hop.unwrap_or((nowhere, None));
            let attributes = path.attributes;
            let entry = Entry { peer, since, path_id: path.path_id, attributes, next_hop, link_local };
            if add_path { &mut numbered } else { &mut plain }.push(entry);
        }
        for (add_path, entries) in [(false, plain), (true, numbered)] {
            if !entries.is_empty() {
                mrt::rib(records, self.begun, self.sequence, prefix, add_path, &entries);
                self.sequence = self.sequence.wrapping_add(1);
            }
        }
    }
}

/// A client that takes messages as they pass.
#[derive(Debug)]
pub(super) struct Recording {
    /// Of this peer only.
    peer: Option<String>,
    /// What we send too.
    sent: bool,
    rows: u64,
    /// Messages that the client was too slow for.
    lost: u64,
}

/// A message that passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing<'a> {
    pub(crate) peer: &'a RawPeer,
    pub(crate) sent: bool,
    /// With its header.
    pub(crate) bytes: &'a [u8],
    pub(crate) at: SystemTime,
}

impl Recording {
    pub(super) fn new(world: &World<'_>, peer: Option<String>, sent: bool) -> Result<Self, Refusal> {
        let names = world.speaker.map(Speaker::peer_names).unwrap_or_default();
        let name = match &peer {
            None => None,
            Some(wanted) => {
                let found =
                    names.iter().find(|(name, address)| name == wanted || address.to_string() == *wanted);
                let Some((name, _)) = found else {
                    return Err(Refusal::new(
                        format!("there is no peer {wanted}"),
                        "caracal ctl bgp peers lists them",
                    ));
                };
                Some(name.clone())
            }
        };
        Ok(Self { peer: name, sent, rows: 0, lost: 0 })
    }

    /// Whether messages that we send are wanted.
    pub(super) fn wants_sent(&self) -> bool {
        self.sent
    }

    /// Takes a message; `waiting` octets have not been read yet. Whether there is something to write.
    pub(super) fn take(&mut self, passing: &Passing<'_>, waiting: usize, out: &mut Vec<u8>) -> bool {
        if self.peer.as_ref().is_some_and(|p| *p != passing.peer.name) || (passing.sent && !self.sent) {
            return false;
        }
        if waiting + passing.bytes.len() > WAITING {
            self.lost += 1;
            return false;
        }
        let mut record = Vec::with_capacity(passing.bytes.len() + 64);
        let since = passing.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let session = session(passing.peer);
        mrt::message(&mut record, seconds(passing.at), micros(since), &session, passing.sent, passing.bytes);
        put(out, &line(&record));
        self.rows += 1;
        true
    }

    /// The last line: `cut` if messages were lost.
    pub(super) fn end(&self, out: &mut Vec<u8>) {
        put(out, &Line::End(End { rows: self.rows, cut: self.lost > 0 }));
    }
}

fn micros(time: Duration) -> u32 {
    time.subsec_micros()
}

fn session(peer: &RawPeer) -> Session {
    let unknown = match peer.address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Session {
        peer_as: peer.asn,
        local_as: peer.local_as,
        peer: peer.address,
        local: peer.local_address.filter(|l| l.is_ipv4() == peer.address.is_ipv4()).unwrap_or(unknown),
        as4: peer.as4,
        add_path: peer.add_path.iter().any(|on| *on),
    }
}

/// The whole messages in `head` and `data`, one behind the other; what is left over comes again in the next `head`.
pub(crate) fn messages(head: &[u8], data: &[u8]) -> Vec<Vec<u8>> {
    let all = [head, data].concat();
    let mut rest: &[u8] = &all;
    let mut found = Vec::new();
    while let Some(&[high, low]) = rest.get(16..18) {
        let length = usize::from(u16::from_be_bytes([high, low]));
        match rest.get(..length) {
            Some(message) if length >= bird_packet::HEADER_LEN => {
                found.push(message.to_vec());
                rest = &rest[length..];
            }
            _ => break,
        }
    }
    found
}
