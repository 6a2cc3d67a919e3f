//! What a NOTIFICATION means for whoever reads the log or asks `ctl`: by its numbers, as its text may be the peer's.

use bird_speaker::io::Notice;

/// What is wrong, as far as there is something to say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    BadPeerAs,
    BadIdentifier,
    HoldTime,
    Authentication,
    Capability,
    /// The other side was silent for the hold time.
    Silent,
    /// It did not read for the send hold time.
    NotReading,
    TooManyPrefixes,
    Administrative,
    /// Not configured there, or not any more.
    Unwelcome,
    Collision,
    /// BFD with the peer is not up (RFC 9384).
    BfdDown,
    Other,
}

/// RFC 4271 §4.5, RFC 4486, RFC 9687.
pub(crate) fn meaning(notice: &Notice) -> Meaning {
    match (notice.code, notice.subcode) {
        (2, 2) => Meaning::BadPeerAs,
        (2, 3) => Meaning::BadIdentifier,
        (2, 5) => Meaning::Authentication,
        (2, 6) => Meaning::HoldTime,
        (2, 7) => Meaning::Capability,
        (4, _) => Meaning::Silent,
        (8, _) => Meaning::NotReading,
        (6, 1) => Meaning::TooManyPrefixes,
        (6, 2 | 4) => Meaning::Administrative,
        (6, 3 | 5) => Meaning::Unwelcome,
        (6, 7) => Meaning::Collision,
        (6, 10) => Meaning::BfdDown,
        _ => Meaning::Other,
    }
}
