//! AS_PATH: reading, judging and widening.

use crate::attr::Fault;
use crate::context::{PeerKind, SessionContext};
use crate::cursor::Cursor;

/// The four segment types (RFC 4271 §4.3, RFC 5065 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// AS_SET: unordered, counts as one.
    Set,
    /// AS_SEQUENCE.
    Sequence,
    /// AS_CONFED_SEQUENCE: does not count.
    ConfedSequence,
    /// AS_CONFED_SET: does not count.
    ConfedSet,
}

impl SegmentKind {
    /// The segment type octet.
    pub fn code(self) -> u8 {
        match self {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => 2,
            SegmentKind::ConfedSequence => 3,
            SegmentKind::ConfedSet => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 => SegmentKind::ConfedSequence,
            4 => SegmentKind::ConfedSet,
            _ => return None,
        })
    }

    /// Whether it is one of the confederation types.
    pub fn is_confed(self) -> bool {
        matches!(self, SegmentKind::ConfedSequence | SegmentKind::ConfedSet)
    }
}

/// An AS_PATH with 4-octet AS numbers, leftmost (nearest) first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsPath<'a> {
    bytes: &'a [u8],
}

impl<'a> AsPath<'a> {
    /// Wraps the value of a canonical AS_PATH; reading stops at the first byte that makes no sense.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The attribute value.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The segments, nearest first.
    pub fn segments(self) -> AsPathIter<'a> {
        AsPathIter { raw: RawSegments::new(self.bytes, true) }
    }

    /// Every AS number of every segment.
    pub fn asns(self) -> impl Iterator<Item = u32> + 'a {
        self.segments().flat_map(Segment::asns)
    }

    /// The length the decision process compares: a set counts one, confederation segments nothing
    /// (RFC 4271 §9.1.2.2, RFC 5065 §5.3).
    pub fn length(self) -> usize {
        RawSegments::new(self.bytes, true).map(|s| s.weight()).fold(0, usize::saturating_add)
    }

    /// The neighbouring AS: the first of the first non-confederation segment, when that is a sequence.
    pub fn first_as(self) -> Option<u32> {
        let segment = self.segments().find(|s| !s.kind.is_confed())?;
        (segment.kind == SegmentKind::Sequence).then(|| segment.asns().next()).flatten()
    }

    /// The AS that originated the route: the last of the last sequence, when the path ends with one.
    pub fn origin_as(self) -> Option<u32> {
        let segment = self.segments().last()?;
        (segment.kind == SegmentKind::Sequence).then(|| segment.asns().last()).flatten()
    }

    /// How often an AS is in the path.
    pub fn count(self, asn: u32) -> usize {
        self.asns().filter(|a| *a == asn).count()
    }

    /// Whether any segment is a set.
    pub fn has_set(self) -> bool {
        self.segments().any(|s| matches!(s.kind, SegmentKind::Set | SegmentKind::ConfedSet))
    }

    /// Whether there is no segment at all.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }
}

/// One segment of an [`AsPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Its type.
    pub kind: SegmentKind,
    bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Its AS numbers, nearest first.
    pub fn asns(self) -> impl Iterator<Item = u32> + 'a {
        self.bytes.as_chunks::<4>().0.iter().map(|a| u32::from_be_bytes(*a))
    }

    /// How many AS numbers it has.
    #[expect(clippy::len_without_is_empty, reason = "a valid segment is never empty")]
    pub fn len(self) -> usize {
        self.bytes.len() / 4
    }
}

/// See [`AsPath::segments`].
#[derive(Clone, Debug)]
pub struct AsPathIter<'a> {
    raw: RawSegments<'a>,
}

impl<'a> Iterator for AsPathIter<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        self.raw.next().map(|raw| Segment { kind: raw.kind, bytes: raw.bytes })
    }
}

/// Segments of a path with AS numbers of either width.
#[derive(Clone, Debug)]
pub(crate) struct RawSegments<'a> {
    c: Cursor<'a>,
    wide: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RawSegment<'a> {
    pub(crate) kind: SegmentKind,
    pub(crate) count: u8,
    pub(crate) bytes: &'a [u8],
    pub(crate) wide: bool,
}

impl<'a> RawSegments<'a> {
    pub(crate) fn new(bytes: &'a [u8], wide: bool) -> Self {
        Self { c: Cursor::new(bytes), wide }
    }
}

impl<'a> Iterator for RawSegments<'a> {
    type Item = RawSegment<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawSegment<'a>> {
        let kind = SegmentKind::from_code(self.c.u8().ok()?)?;
        let count = self.c.u8().ok()?;
        let bytes = self.c.take(segment_octets(count, self.wide)).ok()?;
        Some(RawSegment { kind, count, bytes, wide: self.wide })
    }
}

impl RawSegment<'_> {
    /// What the segment adds to the path length.
    pub(crate) fn weight(&self) -> usize {
        match self.kind {
            SegmentKind::Sequence => usize::from(self.count),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        }
    }

    pub(crate) fn asns(&self) -> impl Iterator<Item = u32> {
        let wide = self.wide;
        let narrow = if wide { &[][..] } else { self.bytes.as_chunks::<2>().0 };
        let full = if wide { self.bytes.as_chunks::<4>().0 } else { &[][..] };
        narrow
            .iter()
            .map(|a| u32::from(u16::from_be_bytes(*a)))
            .chain(full.iter().map(|a| u32::from_be_bytes(*a)))
    }
}

#[inline]
pub(crate) fn segment_octets(count: u8, wide: bool) -> usize {
    usize::from(count) << if wide { 2 } else { 1 }
}

/// Judges a received AS_PATH (RFC 7606 §7.2, RFC 7607, RFC 5065 §5).
#[inline]
pub(crate) fn check(value: &[u8], ctx: &SessionContext) -> Result<(), Fault> {
    check_segments(value, ctx.as4, |kind| {
        if kind.is_confed() && ctx.is_external() {
            return Err(Fault::ConfedSegment);
        }
        if ctx.reject_as_sets && matches!(kind, SegmentKind::Set | SegmentKind::ConfedSet) {
            return Err(Fault::AsSet);
        }
        Ok(())
    })?;
    // With 2-octet numbers AS4_PATH has the last word: judged when both are known.
    if ctx.enforce_first_as && ctx.kind == PeerKind::External && ctx.as4 {
        let first = RawSegments::new(value, ctx.as4).next();
        let first = first.filter(|s| s.kind == SegmentKind::Sequence).and_then(|s| s.asns().next());
        if first != Some(ctx.peer_as) {
            return Err(Fault::FirstAs);
        }
    }
    Ok(())
}

/// Judges a received AS4_PATH (RFC 6793 §6); confederation segments are legal to receive and dropped later.
/// Only [`Fault::AsSet`] makes its routes withdrawn (RFC 9774 §3), the others discard the attribute.
pub(crate) fn check_as4(value: &[u8], ctx: &SessionContext) -> Result<(), Fault> {
    if value.is_empty() {
        return Err(Fault::Length);
    }
    check_segments(value, true, |_| Ok(()))?;
    let is_set = |kind| matches!(kind, SegmentKind::Set | SegmentKind::ConfedSet);
    if ctx.reject_as_sets && RawSegments::new(value, true).any(|s| is_set(s.kind)) {
        return Err(Fault::AsSet);
    }
    Ok(())
}

#[inline]
fn check_segments(
    value: &[u8],
    wide: bool,
    judge: impl Fn(SegmentKind) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut c = Cursor::new(value);
    while !c.is_empty() {
        let (Ok(kind), Ok(count)) = (c.u8(), c.u8()) else {
            return Err(Fault::AsPath);
        };
        let kind = SegmentKind::from_code(kind).ok_or(Fault::AsPath)?;
        if count == 0 {
            return Err(Fault::AsPath);
        }
        let bytes = c.take(segment_octets(count, wide)).map_err(|_| Fault::AsPath)?;
        judge(kind)?;
        let zero = if wide {
            bytes.as_chunks::<4>().0.contains(&[0; 4])
        } else {
            bytes.as_chunks::<2>().0.contains(&[0; 2])
        };
        if zero {
            return Err(Fault::AsZero);
        }
    }
    Ok(())
}
