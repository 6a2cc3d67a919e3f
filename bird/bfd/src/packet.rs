//! Bytes to BFD control packets and back (RFC 5880 §4.1), and every reason why one is thrown away (§6.8.6).

use std::fmt;

use thiserror::Error;

/// Length of a control packet without authentication section.
pub const LEN: usize = 24;

/// State of a session, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum State {
    /// Held down by an operator, or being removed.
    AdminDown,
    /// Nothing usable heard from the peer.
    #[default]
    Down,
    /// The peer is heard; it does not hear us yet as far as we know.
    Init,
    /// Both directions work.
    Up,
}

impl State {
    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// Diagnostic code: why the sender's session last changed state (RFC 5880 §4.1). Five bits; codes without a
/// name are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Diag(u8);

impl Diag {
    /// Nothing to report.
    pub const NONE: Self = Self(0);
    /// Nothing was heard for a detection time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The peer said that its session is down.
    pub const NEIGHBOR_SIGNALED_DOWN: Self = Self(3);
    /// The forwarding plane was reset.
    pub const FORWARDING_PLANE_RESET: Self = Self(4);
    /// An operator holds the session down.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);

    /// A code; only its low five bits exist on the wire.
    pub fn new(code: u8) -> Self {
        Self(code & 0x1f)
    }

    /// The number.
    pub fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "none",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            9 => "mis-connectivity defect",
            other => return write!(f, "diagnostic {other}"),
        };
        f.write_str(name)
    }
}

/// Why a received packet was thrown away. All but [`Discard::Ttl`], [`Discard::Source`] are rules of RFC 5880
/// §6.8.6; those two are RFC 5881 §5 and our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
pub enum Discard {
    /// Fewer bytes than a control packet has.
    #[error("shorter than a control packet")]
    Short,
    /// The version is not 1.
    #[error("version is not 1")]
    Version,
    /// The length field is under the minimum, or over what arrived.
    #[error("length field does not fit")]
    Length,
    /// Detect Mult is zero.
    #[error("detect multiplier is zero")]
    Multiplier,
    /// The multipoint bit is set.
    #[error("multipoint bit is set")]
    Multipoint,
    /// My Discriminator is zero.
    #[error("my discriminator is zero")]
    MyDiscriminator,
    /// Your Discriminator names no session of ours.
    #[error("your discriminator is not ours")]
    YourDiscriminator,
    /// Your Discriminator is zero in a state in which the peer must know ours.
    #[error("your discriminator is zero in state init or up")]
    NoDiscriminator,
    /// No session is configured for where the packet came from.
    #[error("no session with this sender")]
    NoSession,
    /// It carries authentication; we use none.
    #[error("authentication is not in use")]
    Authentication,
    /// The session is administratively down here.
    #[error("session is administratively down")]
    AdminDown,
    /// TTL or hop limit is not 255 on a single hop, or under the configured minimum on a multihop session.
    #[error("ttl is too low")]
    Ttl,
    /// The discriminator is right, but address, interface or port belong to another session.
    #[error("sender is not the session's peer")]
    Source,
}

impl Discard {
    /// Every reason, in the order of [`Discard::index`].
    pub const ALL: [Self; 13] = [
        Self::Short,
        Self::Version,
        Self::Length,
        Self::Multiplier,
        Self::Multipoint,
        Self::MyDiscriminator,
        Self::YourDiscriminator,
        Self::NoDiscriminator,
        Self::NoSession,
        Self::Authentication,
        Self::AdminDown,
        Self::Ttl,
        Self::Source,
    ];

    /// Place in tables by reason.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A control packet without authentication section. Intervals are microseconds, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPacket {
    /// Why the sender's session last changed state.
    pub diag: Diag,
    /// State of the sender's session.
    pub state: State,
    /// P: the sender asks for an answer with F.
    pub poll: bool,
    /// F: the answer to P.
    pub final_: bool,
    /// C: the sender's BFD does not share fate with its control plane (RFC 5882 §4.3).
    pub control_plane_independent: bool,
    /// D: demand mode is active at the sender.
    pub demand: bool,
    /// Detect Mult: how many intervals the receiver may miss.
    pub multiplier: u8,
    /// The sender's discriminator, never zero.
    pub my_discriminator: u32,
    /// The receiver's discriminator, zero if the sender does not know it.
    pub your_discriminator: u32,
    /// Least interval at which the sender would like to send.
    pub desired_min_tx: u32,
    /// Least interval at which the sender can receive; zero: send me nothing periodic.
    pub required_min_rx: u32,
    /// Least interval between echo packets that the sender would loop; zero: none.
    pub required_min_echo_rx: u32,
}

impl ControlPacket {
    /// Reads one datagram: the rules of RFC 5880 §6.8.6 that need no session.
    pub fn decode(bytes: &[u8]) -> Result<Self, Discard> {
        let fixed: &[u8; LEN] = bytes.first_chunk().ok_or(Discard::Short)?;
        let [first, flags, multiplier, length, m0, m1, m2, m3, y0, y1, y2, y3, rest @ ..] = *fixed;
        let [t0, t1, t2, t3, r0, r1, r2, r3, e0, e1, e2, e3] = rest;
        let authenticated = flags & 0x04 != 0;
        if first >> 5 != 1 {
            return Err(Discard::Version);
        }
        let least = if authenticated { LEN + 2 } else { LEN };
        if usize::from(length) < least || usize::from(length) > bytes.len() {
            return Err(Discard::Length);
        }
        if multiplier == 0 {
            return Err(Discard::Multiplier);
        }
        if flags & 0x01 != 0 {
            return Err(Discard::Multipoint);
        }
        let packet = Self {
            diag: Diag::new(first),
            state: State::from_bits(flags >> 6),
            poll: flags & 0x20 != 0,
            final_: flags & 0x10 != 0,
            control_plane_independent: flags & 0x08 != 0,
            demand: flags & 0x02 != 0,
            multiplier,
            my_discriminator: u32::from_be_bytes([m0, m1, m2, m3]),
            your_discriminator: u32::from_be_bytes([y0, y1, y2, y3]),
            desired_min_tx: u32::from_be_bytes([t0, t1, t2, t3]),
            required_min_rx: u32::from_be_bytes([r0, r1, r2, r3]),
            required_min_echo_rx: u32::from_be_bytes([e0, e1, e2, e3]),
        };
        if packet.my_discriminator == 0 {
            return Err(Discard::MyDiscriminator);
        }
        if packet.your_discriminator == 0 && matches!(packet.state, State::Init | State::Up) {
            return Err(Discard::NoDiscriminator);
        }
        // "If the A bit is set and no authentication is in use, the packet MUST be discarded."
        if authenticated {
            return Err(Discard::Authentication);
        }
        Ok(packet)
    }

    /// The 24 bytes to send.
    pub fn encode(&self) -> [u8; LEN] {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = self.state.bits() << 6
            | flag(self.poll, 0x20)
            | flag(self.final_, 0x10)
            | flag(self.control_plane_independent, 0x08)
            | flag(self.demand, 0x02);
        let [m0, m1, m2, m3] = self.my_discriminator.to_be_bytes();
        let [y0, y1, y2, y3] = self.your_discriminator.to_be_bytes();
        let [t0, t1, t2, t3] = self.desired_min_tx.to_be_bytes();
        let [r0, r1, r2, r3] = self.required_min_rx.to_be_bytes();
        let [e0, e1, e2, e3] = self.required_min_echo_rx.to_be_bytes();
        [
            1 << 5 | self.diag.code(),
            flags,
            self.multiplier,
            24,
            m0,
            m1,
            m2,
            m3,
            y0,
            y1,
            y2,
            y3,
            t0,
            t1,
            t2,
            t3,
            r0,
            r1,
            r2,
            r3,
            e0,
            e1,
            e2,
            e3,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet as a neighbour in state Up sends it, written down by hand.
    const UP: [u8; 24] =
        [0x20, 0xc0, 3, 24, 0, 0, 0, 7, 0, 0, 0, 9, 0, 4, 0x93, 0xe0, 0, 4, 0x93, 0xe0, 0, 0, 0, 0];

    fn with(changes: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = UP.to_vec();
        for &(at, value) in changes {
            bytes[at] = value;
        }
        bytes
    }

    #[test]
    fn reads_each_field() {
        let packet = ControlPacket::decode(&with(&[(0, 0x27), (1, 0xfa), (23, 5)])).unwrap();
        let expected = ControlPacket {
            diag: Diag::ADMINISTRATIVELY_DOWN,
            state: State::Up,
            poll: true,
            final_: true,
            control_plane_independent: true,
            demand: true,
            multiplier: 3,
            my_discriminator: 7,
            your_discriminator: 9,
            desired_min_tx: 300_000,
            required_min_rx: 300_000,
            required_min_echo_rx: 5,
        };
        assert_eq!(packet, expected);
        assert_eq!(packet.encode().to_vec(), with(&[(0, 0x27), (1, 0xfa), (23, 5)]));
    }

    #[test]
    fn bytes_after_the_length_are_not_ours() {
        let mut bytes = UP.to_vec();
        bytes.extend([1, 2, 3]);
        assert_eq!(ControlPacket::decode(&bytes), ControlPacket::decode(&UP));
    }

    #[test]
    fn discards_what_the_rfc_says() {
        let mut authenticated = with(&[(1, 0xc4), (3, 26)]);
        authenticated.extend([1, 2]);
        let zero_your = &[(8, 0), (9, 0), (10, 0), (11, 0)];
        let your = |state: u8| with(&[&zero_your[..], &[(1, state)]].concat());
        let cases: &[(&str, Vec<u8>, Option<Discard>)] = &[
            ("empty", vec![], Some(Discard::Short)),
            ("23 bytes", UP[..23].to_vec(), Some(Discard::Short)),
            ("version 0", with(&[(0, 0)]), Some(Discard::Version)),
            ("version 2", with(&[(0, 0x40)]), Some(Discard::Version)),
            ("length 23", with(&[(3, 23)]), Some(Discard::Length)),
            ("length over payload", with(&[(3, 25)]), Some(Discard::Length)),
            ("length 25 with A", [with(&[(1, 0xc4), (3, 25)]), vec![0; 4]].concat(), Some(Discard::Length)),
            ("multiplier 0", with(&[(2, 0)]), Some(Discard::Multiplier)),
            ("multipoint", with(&[(1, 0xc1)]), Some(Discard::Multipoint)),
            ("my discriminator 0", with(&[(7, 0)]), Some(Discard::MyDiscriminator)),
            ("your discriminator 0, up", your(0xc0), Some(Discard::NoDiscriminator)),
            ("your discriminator 0, init", your(0x80), Some(Discard::NoDiscriminator)),
            ("your discriminator 0, down", your(0x40), None),
            ("your discriminator 0, admin down", your(0x00), None),
            ("authenticated", authenticated, Some(Discard::Authentication)),
        ];
        for (name, bytes, want) in cases {
            assert_eq!(ControlPacket::decode(bytes).err(), *want, "{name}");
        }
    }

    #[test]
    fn names_of_diagnostics() {
        assert_eq!(Diag::DETECTION_TIME_EXPIRED.to_string(), "control detection time expired");
        assert_eq!(Diag::new(0xff).to_string(), "diagnostic 31");
        for reason in Discard::ALL {
            assert_eq!(Discard::ALL[reason.index()], reason);
        }
    }
}
