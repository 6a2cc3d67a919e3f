//! Editing canonical attributes, as export and import rules need it.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use smallvec::SmallVec;

use crate::attr::as_path::SegmentKind;
use crate::attr::set::{Attr, AttrSet, LargeCommunity, Origin};
use crate::attr::{AsPath, code, flag, put_attr};

/// An edited attribute exceeds 65535 octets; the route cannot be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute {code} is {len} octets long, above 65535")]
pub struct AttrTooLong {
    /// The attribute type.
    pub code: u8,
    /// Its length after the edit.
    pub len: usize,
}

#[derive(Clone, Debug)]
struct Entry<'a> {
    flags: u8,
    code: u8,
    value: Cow<'a, [u8]>,
}

/// A set of attributes to be changed; what is not touched is borrowed.
///
/// Keeps the canonical order whatever the order of edits. A value that is set twice has the last one.
#[derive(Clone, Debug, Default)]
pub struct AttrBuilder<'a> {
    entries: SmallVec<[Entry<'a>; 12]>,
}

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const OPTIONAL: u8 = flag::OPTIONAL;
const OPTIONAL_TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

impl<'a> AttrBuilder<'a> {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of canonical attributes.
    pub fn from_set(set: AttrSet<'a>) -> Self {
        let entry = |Attr { flags, code, value }| Entry { flags, code, value: Cow::Borrowed(value) };
        Self { entries: set.iter().map(entry).collect() }
    }

    /// Sets ORIGIN.
    pub fn origin(&mut self, origin: Origin) -> &mut Self {
        self.set(WELL_KNOWN, code::ORIGIN, vec![origin.code()])
    }

    /// Replaces AS_PATH with one sequence; none at all makes it empty, as for a route of our own.
    pub fn as_path(&mut self, asns: &[u32]) -> &mut Self {
        let mut value = Vec::with_capacity(asns.len().saturating_mul(4).saturating_add(2));
        for chunk in asns.chunks(255) {
            value.extend_from_slice(&[
                SegmentKind::Sequence.code(),
                u8::try_from(chunk.len()).unwrap_or(u8::MAX),
            ]);
            value.extend(chunk.iter().flat_map(|asn| asn.to_be_bytes()));
        }
        self.set(WELL_KNOWN, code::AS_PATH, value)
    }

    /// Puts an AS in front of the path, `times` times (RFC 4271 §5.1.2).
    pub fn prepend(&mut self, asn: u32, times: usize) -> &mut Self {
        self.prepend_as(SegmentKind::Sequence, asn, times)
    }

    /// The same for a member AS inside a confederation (RFC 5065 §4.1).
    pub fn prepend_confed(&mut self, asn: u32, times: usize) -> &mut Self {
        self.prepend_as(SegmentKind::ConfedSequence, asn, times)
    }

    fn prepend_as(&mut self, kind: SegmentKind, asn: u32, times: usize) -> &mut Self {
        if times == 0 {
            return self;
        }
        let old = self.value(code::AS_PATH);
        // The numbers of a first segment of the same kind join the new ones, as far as a segment holds them.
        let (joined, rest) = match old {
            [first, count, tail @ ..] if *first == kind.code() => {
                let octets = usize::from(*count).saturating_mul(4);
                tail.split_at_checked(octets).unwrap_or((&[], old))
            }
            _ => (&[][..], old),
        };
        let mut value =
            Vec::with_capacity(old.len().saturating_add(times.saturating_mul(4)).saturating_add(4));
        let mut left = times;
        let room = 255usize.saturating_sub(joined.len() / 4);
        let with_joined = left.min(room);
        left = left.saturating_sub(with_joined);
        let mut full = left;
        while full > 0 {
            let now =
                if full.checked_rem(255) == Some(0) { 255 } else { full.checked_rem(255).unwrap_or(255) };
            put_segment(&mut value, kind, asn, now, &[]);
            full = full.saturating_sub(now);
        }
        put_segment(&mut value, kind, asn, with_joined, joined);
        value.extend_from_slice(rest);
        self.set(WELL_KNOWN, code::AS_PATH, value)
    }

    /// Replaces every occurrence of an AS in the path (as-override).
    pub fn replace_as(&mut self, from: u32, to: u32) -> &mut Self {
        self.map_asns(|_, asn| Some(if asn == from { to } else { asn }))
    }

    /// Takes private AS numbers (RFC 6996) out of the path, except `keep`.
    pub fn remove_private_as(&mut self, keep: Option<u32>) -> &mut Self {
        self.map_asns(|_, asn| (Some(asn) == keep || !is_private_as(asn)).then_some(asn))
    }

    /// Takes confederation segments out of the path (RFC 5065 §5.1), for a peer outside.
    pub fn strip_confed(&mut self) -> &mut Self {
        self.map_asns(|kind, asn| (!kind.is_confed()).then_some(asn))
    }

    fn map_asns(&mut self, map: impl Fn(SegmentKind, u32) -> Option<u32>) -> &mut Self {
        let old = AsPath::new(self.value(code::AS_PATH));
        if old.segments().all(|s| s.asns().all(|asn| map(s.kind, asn) == Some(asn))) {
            return self;
        }
        let mut value = Vec::with_capacity(old.as_bytes().len());
        for segment in old.segments() {
            let asns: SmallVec<[u32; 64]> = segment.asns().filter_map(|asn| map(segment.kind, asn)).collect();
            if let Some(count) = u8::try_from(asns.len()).ok().filter(|count| *count > 0) {
                value.extend_from_slice(&[segment.kind.code(), count]);
                value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
            }
        }
        self.set(WELL_KNOWN, code::AS_PATH, value)
    }

    /// Sets or removes MULTI_EXIT_DISC.
    pub fn med(&mut self, med: Option<u32>) -> &mut Self {
        self.set_number(OPTIONAL, code::MED, med)
    }

    /// Sets or removes LOCAL_PREF.
    pub fn local_pref(&mut self, pref: Option<u32>) -> &mut Self {
        self.set_number(WELL_KNOWN, code::LOCAL_PREF, pref)
    }

    /// Sets or removes ATOMIC_AGGREGATE.
    pub fn atomic_aggregate(&mut self, present: bool) -> &mut Self {
        if present {
            self.set(WELL_KNOWN, code::ATOMIC_AGGREGATE, Vec::new())
        } else {
            self.remove(code::ATOMIC_AGGREGATE)
        }
    }

    /// Sets AGGREGATOR.
    pub fn aggregator(&mut self, asn: u32, router: Ipv4Addr) -> &mut Self {
        let mut value = asn.to_be_bytes().to_vec();
        value.extend_from_slice(&router.octets());
        self.set(OPTIONAL_TRANSITIVE, code::AGGREGATOR, value)
    }

    /// Adds a community unless it is there.
    pub fn add_community(&mut self, community: u32) -> &mut Self {
        self.add(code::COMMUNITIES, community.to_be_bytes())
    }

    /// Adds an extended community unless it is there.
    pub fn add_ext_community(&mut self, community: [u8; 8]) -> &mut Self {
        self.add(code::EXTENDED_COMMUNITIES, community)
    }

    /// Adds a large community unless it is there.
    pub fn add_large_community(&mut self, community: LargeCommunity) -> &mut Self {
        self.add(code::LARGE_COMMUNITIES, community.to_bytes())
    }

    /// Keeps the communities that `keep` accepts.
    pub fn retain_communities(&mut self, keep: impl Fn(u32) -> bool) -> &mut Self {
        self.retain(code::COMMUNITIES, |c| keep(u32::from_be_bytes(c)))
    }

    /// Keeps the extended communities that `keep` accepts.
    pub fn retain_ext_communities(&mut self, keep: impl Fn([u8; 8]) -> bool) -> &mut Self {
        self.retain(code::EXTENDED_COMMUNITIES, keep)
    }

    /// Keeps the large communities that `keep` accepts.
    pub fn retain_large_communities(&mut self, keep: impl Fn(LargeCommunity) -> bool) -> &mut Self {
        self.retain(code::LARGE_COMMUNITIES, |c| keep(LargeCommunity::from_bytes(c)))
    }

    /// Sets ORIGINATOR_ID unless the route has one (RFC 4456 §8).
    pub fn originator_id_if_absent(&mut self, router_id: Ipv4Addr) -> &mut Self {
        if self.position(code::ORIGINATOR_ID).is_ok() {
            return self;
        }
        self.set_number(OPTIONAL, code::ORIGINATOR_ID, Some(router_id.to_bits()))
    }

    /// Puts a cluster id in front of CLUSTER_LIST (RFC 4456 §8).
    pub fn prepend_cluster_id(&mut self, cluster_id: Ipv4Addr) -> &mut Self {
        let mut value = cluster_id.octets().to_vec();
        value.extend_from_slice(self.value(code::CLUSTER_LIST));
        self.set(OPTIONAL, code::CLUSTER_LIST, value)
    }

    /// Leaves out what must not leave the AS: LOCAL_PREF, ORIGINATOR_ID, CLUSTER_LIST,
    /// and extended communities that are not transitive (RFC 4360 §6).
    pub fn for_external(&mut self) -> &mut Self {
        self.entries
            .retain(|e| !matches!(e.code, code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST));
        self.retain_ext_communities(|[kind, ..]| kind & 0x40 == 0)
    }

    /// Removes an attribute.
    pub fn remove(&mut self, code: u8) -> &mut Self {
        self.entries.retain(|e| e.code != code);
        self
    }

    /// The value of an attribute as it stands now, empty when it is not there.
    pub fn value(&self, code: u8) -> &[u8] {
        match self.position(code) {
            Ok(at) => self.entries.get(at).map_or(&[], |e| e.value.as_ref()),
            Err(_) => &[],
        }
    }

    /// Appends the canonical bytes.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), AttrTooLong> {
        let too_long = self.entries.iter().find(|e| e.value.len() > usize::from(u16::MAX));
        if let Some(entry) = too_long {
            return Err(AttrTooLong { code: entry.code, len: entry.value.len() });
        }
        for Entry { flags, code, value } in &self.entries {
            put_attr(out, *flags, *code, value);
        }
        Ok(())
    }

    fn position(&self, code: u8) -> Result<usize, usize> {
        // A dozen entries: a scan beats a binary search.
        match self.entries.iter().position(|e| e.code >= code) {
            Some(at) if self.entries.get(at).is_some_and(|e| e.code == code) => Ok(at),
            Some(at) => Err(at),
            None => Err(self.entries.len()),
        }
    }

    fn set(&mut self, flags: u8, code: u8, value: Vec<u8>) -> &mut Self {
        let value = Cow::Owned(value);
        match self.position(code) {
            Ok(at) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.value = value;
                }
            }
            Err(at) => self.entries.insert(at, Entry { flags, code, value }),
        }
        self
    }

    fn set_number(&mut self, flags: u8, code: u8, number: Option<u32>) -> &mut Self {
        match number {
            Some(number) => self.set(flags, code, number.to_be_bytes().to_vec()),
            None => self.remove(code),
        }
    }

    fn add<const N: usize>(&mut self, code: u8, item: [u8; N]) -> &mut Self {
        let old = self.value(code);
        if old.as_chunks::<N>().0.contains(&item) {
            return self;
        }
        let mut value = Vec::with_capacity(old.len().saturating_add(N));
        value.extend_from_slice(old);
        value.extend_from_slice(&item);
        self.set(OPTIONAL_TRANSITIVE, code, value)
    }

    fn retain<const N: usize>(&mut self, code: u8, keep: impl Fn([u8; N]) -> bool) -> &mut Self {
        let old = self.value(code).as_chunks::<N>().0;
        if old.iter().all(|item| keep(*item)) {
            return self;
        }
        let value: Vec<u8> = old.iter().filter(|item| keep(**item)).flatten().copied().collect();
        if value.is_empty() { self.remove(code) } else { self.set(OPTIONAL_TRANSITIVE, code, value) }
    }
}

/// Whether an AS number is for private use (RFC 6996).
fn is_private_as(asn: u32) -> bool {
    matches!(asn, 64512..=65534 | 4_200_000_000..=4_294_967_294)
}

fn put_segment(out: &mut Vec<u8>, kind: SegmentKind, asn: u32, times: usize, joined: &[u8]) {
    let count = times.saturating_add(joined.len() / 4);
    if count == 0 {
        return;
    }
    out.extend_from_slice(&[kind.code(), u8::try_from(count).unwrap_or(u8::MAX)]);
    for _ in 0..times {
        out.extend_from_slice(&asn.to_be_bytes());
    }
    out.extend_from_slice(joined);
}
