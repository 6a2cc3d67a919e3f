//! Writing attributes: the canonical form, and the form a session needs.

use std::net::Ipv4Addr;

use smallvec::SmallVec;

use crate::attr::as_path::{RawSegment, RawSegments, segment_octets};
use crate::attr::scan::{AttrView, Opaque, Raw};
use crate::attr::set::{Attr, AttrSet};
use crate::attr::{SegmentKind, code, flag};
use crate::open::AS_TRANS;

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const OPTIONAL: u8 = flag::OPTIONAL;
const OPTIONAL_TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

/// Appends one attribute; a value no attribute can hold (above 65535 octets) is left out.
#[inline]
pub(crate) fn put_attr(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    put_head(out, flags, code, value.len());
    if u16::try_from(value.len()).is_ok() {
        out.extend_from_slice(value);
    }
}

#[inline]
fn put_head(out: &mut Vec<u8>, flags: u8, code: u8, len: usize) {
    if let Ok(len) = u8::try_from(len) {
        out.extend_from_slice(&[flags, code, len]);
    } else if let Ok(len) = u16::try_from(len) {
        let [hi, lo] = len.to_be_bytes();
        out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code, hi, lo]);
    }
}

/// Appends the canonical form of received attributes.
pub(crate) fn write(view: &AttrView<'_>, out: &mut Vec<u8>) {
    out.reserve(view.raw.len().saturating_add(64));
    if let Some(origin) = view.origin {
        out.extend_from_slice(&[WELL_KNOWN, code::ORIGIN, 1, origin]);
    }
    if let Some(path) = view.as_path {
        if view.as4 {
            put_attr(out, WELL_KNOWN, code::AS_PATH, path);
        } else {
            put_widened(out, path, merge(view));
        }
    }
    if let Some([a, b, c, d]) = view.med {
        out.extend_from_slice(&[OPTIONAL, code::MED, 4, a, b, c, d]);
    }
    if let Some([a, b, c, d]) = view.local_pref {
        out.extend_from_slice(&[WELL_KNOWN, code::LOCAL_PREF, 4, a, b, c, d]);
    }
    if view.atomic_aggregate {
        out.extend_from_slice(&[WELL_KNOWN, code::ATOMIC_AGGREGATE, 0]);
    }
    if let Some(aggregator) = view.aggregator {
        put_aggregator(out, view, aggregator);
    }
    put_kept(out, code::COMMUNITIES, view.communities);
    if let Some([a, b, c, d]) = view.originator_id {
        out.extend_from_slice(&[OPTIONAL, code::ORIGINATOR_ID, 4, a, b, c, d]);
    }
    if let Some(list) = view.cluster_list {
        put_attr(out, OPTIONAL, code::CLUSTER_LIST, list);
    }
    if view.opaque.is_empty() {
        put_kept(out, code::EXTENDED_COMMUNITIES, view.ext_communities);
        put_large(out, view.large_communities);
    } else {
        let mut opaque = view.opaque.clone();
        opaque.sort_unstable_by_key(|o| o.code);
        let (low, rest) = opaque.split_at(opaque.partition_point(|o| o.code < code::EXTENDED_COMMUNITIES));
        let (mid, high) = rest.split_at(rest.partition_point(|o| o.code < code::LARGE_COMMUNITIES));
        put_opaque(out, low);
        put_kept(out, code::EXTENDED_COMMUNITIES, view.ext_communities);
        put_opaque(out, mid);
        put_large(out, view.large_communities);
        put_opaque(out, high);
    }
}

/// The longest the AS_PATH of a 2-octet peer can get with 4-octet numbers.
pub(crate) fn widened_len(view: &AttrView<'_>) -> usize {
    let path = view.as_path.map_or(0, <[u8]>::len);
    path.saturating_mul(2).saturating_add(view.as4_path.map_or(0, <[u8]>::len))
}

/// The first AS of the path as it will be written, when it starts with a sequence.
pub(crate) fn first_as(view: &AttrView<'_>) -> Option<u32> {
    let first = match merge(view) {
        Some(Merge { as4, kept: 0 }) => RawSegments::new(as4, true).find(|s| !s.kind.is_confed()),
        _ => RawSegments::new(view.as_path?, view.as4).next(),
    };
    first.filter(|s| s.kind == SegmentKind::Sequence)?.asns().next()
}

/// An AS4_PATH that stands.
#[derive(Clone, Copy)]
struct Merge<'a> {
    as4: &'a [u8],
    /// How much of AS_PATH goes before it, as the path length counts.
    kept: usize,
}

/// Whether AS4_PATH counts, and where it begins (RFC 6793 §4.2.3).
fn merge<'a>(view: &AttrView<'a>) -> Option<Merge<'a>> {
    let weight = |bytes, wide| {
        RawSegments::new(bytes, wide).map(|s: RawSegment<'_>| s.weight()).fold(0usize, usize::saturating_add)
    };
    if view.as4 || as4_is_void(view) {
        return None;
    }
    let as4 = view.as4_path?;
    let known = weight(as4, true);
    let kept = weight(view.as_path?, false).checked_sub(known)?;
    (known > 0).then_some(Merge { as4, kept })
}

/// RFC 6793 §4.2.3: with both aggregators there and the short one not AS_TRANS, the peer behind
/// the AS4 attributes was not the last to aggregate, and both AS4 attributes are void.
fn as4_is_void(view: &AttrView<'_>) -> bool {
    let short = match view.aggregator {
        Some(Raw { value: [hi, lo, ..], .. }) if !view.as4 => u32::from(u16::from_be_bytes([*hi, *lo])),
        _ => return false,
    };
    view.as4_aggregator.is_some() && short != AS_TRANS
}

fn put_kept(out: &mut Vec<u8>, code: u8, raw: Option<Raw<'_>>) {
    if let Some(Raw { flags, value }) = raw {
        put_attr(out, OPTIONAL_TRANSITIVE | (flags & flag::PARTIAL), code, value);
    }
}

fn put_opaque(out: &mut Vec<u8>, list: &[Opaque<'_>]) {
    for Opaque { code, value } in list {
        put_attr(out, OPTIONAL_TRANSITIVE | flag::PARTIAL, *code, value);
    }
}

/// RFC 8092 §6: duplicates are removed; the order of the others stays.
fn put_large(out: &mut Vec<u8>, raw: Option<Raw<'_>>) {
    let Some(Raw { flags, value }) = raw else { return };
    let list = value.as_chunks::<12>().0;
    if list.len() < 2 {
        return put_kept(out, code::LARGE_COMMUNITIES, raw);
    }
    let mut sorted: SmallVec<[&[u8; 12]; 16]> = list.iter().collect();
    sorted.sort_unstable();
    if sorted.windows(2).all(|pair| !matches!(pair, [a, b] if a == b)) {
        return put_kept(out, code::LARGE_COMMUNITIES, raw);
    }
    sorted.dedup();
    let mut pending = sorted;
    let mut kept: SmallVec<[u8; 192]> = SmallVec::new();
    let mut used: SmallVec<[bool; 16]> = SmallVec::from_elem(false, pending.len());
    for community in list {
        if let Ok(at) = pending.binary_search(&community)
            && let Some(used) = used.get_mut(at)
            && !*used
        {
            *used = true;
            kept.extend_from_slice(community);
        }
    }
    pending.clear();
    put_attr(out, OPTIONAL_TRANSITIVE | (flags & flag::PARTIAL), code::LARGE_COMMUNITIES, &kept);
}

fn put_aggregator(out: &mut Vec<u8>, view: &AttrView<'_>, aggregator: Raw<'_>) {
    let flags = OPTIONAL_TRANSITIVE | (aggregator.flags & flag::PARTIAL);
    match (aggregator.value, view.as4_aggregator) {
        (_, Some(wide)) if !view.as4 && !as4_is_void(view) => put_attr(out, flags, code::AGGREGATOR, &wide),
        ([hi, lo, a, b, c, d], _) => {
            put_attr(out, flags, code::AGGREGATOR, &[0, 0, *hi, *lo, *a, *b, *c, *d]);
        }
        (wide, _) => put_attr(out, flags, code::AGGREGATOR, wide),
    }
}

/// Builds a path with 4-octet numbers, joining neighbouring sequences where they fit one segment.
struct PathWriter {
    bytes: SmallVec<[u8; 256]>,
    /// Where the count of the last sequence is.
    open: Option<usize>,
}

impl PathWriter {
    fn push(&mut self, kind: SegmentKind, asns: impl ExactSizeIterator<Item = u32>) {
        let Ok(count) = u8::try_from(asns.len()) else { return };
        if count == 0 {
            return;
        }
        let slot = self.open.filter(|_| kind == SegmentKind::Sequence).and_then(|at| self.bytes.get_mut(at));
        match slot.and_then(|slot| slot.checked_add(count).map(|sum| (slot, sum))) {
            Some((slot, sum)) => *slot = sum,
            None => {
                self.open = (kind == SegmentKind::Sequence).then(|| self.bytes.len().saturating_add(1));
                self.bytes.extend_from_slice(&[kind.code(), count]);
            }
        }
        for asn in asns {
            self.bytes.extend_from_slice(&asn.to_be_bytes());
        }
    }
}

/// Widens a 2-octet AS_PATH, with the numbers that AS4_PATH knows better.
fn put_widened(out: &mut Vec<u8>, path: &[u8], merge: Option<Merge<'_>>) {
    let Some(Merge { as4, mut kept }) = merge else {
        let len = widened_octets(path);
        if len > usize::from(u16::MAX) {
            return; // With routes that was a reason to withdraw them.
        }
        put_head(out, WELL_KNOWN, code::AS_PATH, len);
        for segment in RawSegments::new(path, false) {
            out.extend_from_slice(&[segment.kind.code(), segment.count]);
            for asn in segment.asns() {
                out.extend_from_slice(&asn.to_be_bytes());
            }
        }
        return;
    };
    let mut writer = PathWriter { bytes: SmallVec::new(), open: None };
    for segment in RawSegments::new(path, false) {
        let asns: SmallVec<[u32; 64]> = segment.asns().collect();
        match segment.kind {
            // In front, or beside a segment that is kept.
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => {}
            _ if kept == 0 => break,
            SegmentKind::Set => kept = kept.saturating_sub(1),
            SegmentKind::Sequence if kept < asns.len() => {
                writer.push(segment.kind, asns.into_iter().take(kept));
                break;
            }
            SegmentKind::Sequence => kept = kept.saturating_sub(asns.len()),
        }
        writer.push(segment.kind, asns.into_iter());
    }
    for segment in RawSegments::new(as4, true).filter(|s| !s.kind.is_confed()) {
        let asns: SmallVec<[u32; 64]> = segment.asns().collect();
        writer.push(segment.kind, asns.into_iter());
    }
    put_attr(out, WELL_KNOWN, code::AS_PATH, &writer.bytes);
}

fn widened_octets(path: &[u8]) -> usize {
    RawSegments::new(path, false)
        .map(|s| segment_octets(s.count, true).saturating_add(2))
        .fold(0, usize::saturating_add)
}

/// Appends canonical attributes as a session with or without 4-octet AS numbers writes them,
/// with NEXT_HOP in its place when there is one.
pub(crate) fn put_wire(canonical: &[u8], as4: bool, next_hop: Option<Ipv4Addr>, out: &mut Vec<u8>) {
    let mut attrs = AttrSet::new(canonical).iter();
    let mut next_hop = next_hop;
    if as4 {
        let mut rest = canonical;
        while let Some(attr) = attrs.next() {
            if attr.code > code::NEXT_HOP {
                break;
            }
            rest = attrs.rest();
        }
        let head = canonical.len().saturating_sub(rest.len());
        out.extend_from_slice(canonical.get(..head).unwrap_or_default());
        put_next_hop(out, &mut next_hop);
        out.extend_from_slice(rest);
        return;
    }
    let mut wide_path = None;
    let mut wide_aggregator = None;
    for attr in attrs {
        if attr.code > code::NEXT_HOP {
            put_next_hop(out, &mut next_hop);
        }
        if attr.code > code::AS4_PATH {
            put_as4(out, &mut wide_path, &mut wide_aggregator);
        }
        match (attr.code, attr.value) {
            (code::AS_PATH, path) => {
                put_narrowed(out, path);
                let too_wide = RawSegments::new(path, true)
                    .any(|s| !s.kind.is_confed() && s.asns().any(|asn| asn > u32::from(u16::MAX)));
                wide_path = too_wide.then_some(path);
            }
            (code::AGGREGATOR, [a, b, c, d, id @ ..]) => {
                if (*a, *b) != (0, 0) {
                    wide_aggregator = Some(attr);
                }
                let [hi, lo] = narrow(u32::from_be_bytes([*a, *b, *c, *d]));
                put_head(out, attr.flags, attr.code, id.len().saturating_add(2));
                out.extend_from_slice(&[hi, lo]);
                out.extend_from_slice(id);
            }
            (code, value) => put_attr(out, attr.flags, code, value),
        }
    }
    put_next_hop(out, &mut next_hop);
    put_as4(out, &mut wide_path, &mut wide_aggregator);
}

fn put_next_hop(out: &mut Vec<u8>, next_hop: &mut Option<Ipv4Addr>) {
    if let Some(addr) = next_hop.take() {
        let [a, b, c, d] = addr.octets();
        out.extend_from_slice(&[WELL_KNOWN, code::NEXT_HOP, 4, a, b, c, d]);
    }
}

fn narrow(asn: u32) -> [u8; 2] {
    u16::try_from(asn).unwrap_or(23456).to_be_bytes()
}

fn put_narrowed(out: &mut Vec<u8>, path: &[u8]) {
    let segments = || RawSegments::new(path, true);
    let len =
        segments().map(|s| segment_octets(s.count, false).saturating_add(2)).fold(0, usize::saturating_add);
    put_head(out, WELL_KNOWN, code::AS_PATH, len);
    for segment in segments() {
        out.extend_from_slice(&[segment.kind.code(), segment.count]);
        for asn in segment.asns() {
            out.extend_from_slice(&narrow(asn));
        }
    }
}

/// AS4_PATH and AS4_AGGREGATOR, where two octets were not enough (RFC 6793 §4.2.2).
fn put_as4(out: &mut Vec<u8>, path: &mut Option<&[u8]>, aggregator: &mut Option<Attr<'_>>) {
    if let Some(path) = path.take() {
        let segments = || RawSegments::new(path, true).filter(|s| !s.kind.is_confed());
        let len = segments()
            .map(|s| segment_octets(s.count, true).saturating_add(2))
            .fold(0, usize::saturating_add);
        put_head(out, OPTIONAL_TRANSITIVE, code::AS4_PATH, len);
        for segment in segments() {
            out.extend_from_slice(&[segment.kind.code(), segment.count]);
            out.extend_from_slice(segment.bytes);
        }
    }
    if let Some(attr) = aggregator.take() {
        put_attr(out, attr.flags, code::AS4_AGGREGATOR, attr.value);
    }
}
