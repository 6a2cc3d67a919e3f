//! Values that Calico stores as a number or as a string: AS numbers, ports, protocols.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::never_blank;

/// Why a text is no AS number, port or protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnionError(String);

/// A BGP AS number; written as a JSON number, read from `64512`, `"64512"` or `"1.10"` (high.low, RFC 5396 asdot+).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AsNumber(pub u32);

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u32> for AsNumber {
    fn from(number: u32) -> Self {
        AsNumber(number)
    }
}

impl FromStr for AsNumber {
    type Err = UnionError;
    fn from_str(text: &str) -> Result<Self, UnionError> {
        let whole =
            || UnionError("an AS number is 0 to 4294967295, or high.low with both below 65536".to_owned());
        match text.split_once('.') {
            None => digits(text).map(AsNumber).ok_or_else(whole),
            Some((high, low)) => {
                let high: u16 = digits(high).ok_or_else(whole)?;
                let low: u16 = digits(low).ok_or_else(whole)?;
                Ok(AsNumber(u32::from(high) << 16 | u32::from(low)))
            }
        }
    }
}

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an AS number, 0 to 4294967295 or \"high.low\"";
        deserializer.deserialize_any(Union { expected, number: |n| u32::try_from(n).ok().map(AsNumber) })
    }
}

/// A port, a range of ports, or the name of an endpoint's port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// One port, stored as a number.
    Number(u16),
    /// Both ends belong to it; stored as `"min:max"`.
    Range(u16, u16),
    /// A port that the endpoint names.
    Named(String),
}

impl Port {
    /// First and last port; none for a named port.
    pub fn range(&self) -> Option<(u16, u16)> {
        match self {
            Port::Number(port) => Some((*port, *port)),
            Port::Range(min, max) => Some((*min, *max)),
            Port::Named(_) => None,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Number(port) => port.fmt(f),
            Port::Range(min, max) => write!(f, "{min}:{max}"),
            Port::Named(name) => f.write_str(name),
        }
    }
}

impl From<u16> for Port {
    fn from(port: u16) -> Self {
        Port::Number(port)
    }
}

impl FromStr for Port {
    type Err = UnionError;
    fn from_str(text: &str) -> Result<Self, UnionError> {
        let error = |text: &str| Err(UnionError(text.to_owned()));
        if let Some((min, max)) = text.split_once(':') {
            let (Some(min), Some(max)) = (digits(min), digits(max)) else {
                return error("a port range is min:max, both 0 to 65535");
            };
            return match u16::cmp(&min, &max) {
                std::cmp::Ordering::Less => Ok(Port::Range(min, max)),
                std::cmp::Ordering::Equal => Ok(Port::Number(min)),
                std::cmp::Ordering::Greater => error("a port range begins with its smaller port"),
            };
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return match digits(text) {
                Some(port) => Ok(Port::Number(port)),
                None => error("a port is 0 to 65535"),
            };
        }
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if text.is_empty() || text.len() > 128 || !text.bytes().all(letter) {
            return error(
                "a port is a number, min:max, or a name of 1 to 128 letters, digits, '_', '.', '-'",
            );
        }
        Ok(Port::Named(text.to_owned()))
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Port::Number(port) => serializer.serialize_u16(*port),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a port: 0 to 65535, \"min:max\" or a port's name";
        deserializer.deserialize_any(Union { expected, number: |n| u16::try_from(n).ok().map(Port::Number) })
    }
}

/// An IP protocol, by name as it is stored or by number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// `TCP`, `UDP`, `ICMP`, `ICMPv6`, `SCTP`, `UDPLite`; other names are kept but mean nothing.
    Name(String),
    /// The IP protocol number.
    Number(u8),
}

/// The names Calico knows, with their IANA numbers.
const PROTOCOLS: [(&str, u8); 6] =
    [("TCP", 6), ("UDP", 17), ("ICMP", 1), ("ICMPv6", 58), ("SCTP", 132), ("UDPLite", 136)];

impl Protocol {
    /// The protocol number, also of a name in any case; none for a name nobody knows.
    pub fn number(&self) -> Option<u8> {
        match self {
            Protocol::Number(number) => Some(*number),
            Protocol::Name(name) => PROTOCOLS
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, number)| *number),
        }
    }

    /// Whether packets of it carry ports: TCP, UDP, SCTP, UDPLite.
    pub fn has_ports(&self) -> bool {
        matches!(self.number(), Some(6 | 17 | 132 | 136))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::Name(name) => f.write_str(name),
            Protocol::Number(number) => number.fmt(f),
        }
    }
}

impl From<&str> for Protocol {
    fn from(text: &str) -> Self {
        digits(text).map_or_else(|| Protocol::Name(text.to_owned()), Protocol::Number)
    }
}

impl FromStr for Protocol {
    type Err = UnionError;
    fn from_str(text: &str) -> Result<Self, UnionError> {
        Ok(text.into())
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Protocol::Number(number) => serializer.serialize_u8(*number),
            Protocol::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a protocol: a name such as \"TCP\", or 0 to 255";
        deserializer
            .deserialize_any(Union { expected, number: |n| u8::try_from(n).ok().map(Protocol::Number) })
    }
}

never_blank!(AsNumber, Port, Protocol);

/// Reads a number through `number`, a string through `FromStr`.
struct Union<T> {
    expected: &'static str,
    number: fn(u64) -> Option<T>,
}

impl<T: FromStr<Err = UnionError>> Visitor<'_> for Union<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// A plain decimal number: digits only, no sign.
fn digits<N: FromStr>(text: &str) -> Option<N> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers_are_read_in_every_spelling() {
        for (json, number) in
            [("64512", 64512), ("\"64512\"", 64512), ("\"1.10\"", 65546), ("4294967295", u32::MAX)]
        {
            assert_eq!(serde_json::from_str::<AsNumber>(json).unwrap(), AsNumber(number), "{json}");
        }
        for json in ["-1", "4294967296", "\"\"", "\"1.65536\"", "\"1.2.3\"", "\"+1\"", "true", "1.5"] {
            assert!(serde_json::from_str::<AsNumber>(json).is_err(), "{json}");
        }
        assert_eq!(serde_json::to_string(&AsNumber(65546)).unwrap(), "65546");
    }

    #[test]
    fn ports_are_numbers_ranges_or_names() {
        for (json, port) in [
            ("80", Port::Number(80)),
            ("\"80\"", Port::Number(80)),
            ("\"80:80\"", Port::Number(80)),
            ("\"1024:65535\"", Port::Range(1024, 65535)),
            ("\"http\"", Port::Named("http".into())),
        ] {
            assert_eq!(serde_json::from_str::<Port>(json).unwrap(), port, "{json}");
        }
        for json in ["65536", "\"65536\"", "\"9:8\"", "\"1:\"", "\"\"", "\"a b\"", "null", "[]"] {
            assert!(serde_json::from_str::<Port>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn protocols_have_numbers() {
        let read = |json| serde_json::from_str::<Protocol>(json).unwrap();
        assert_eq!(read("\"TCP\"").number(), Some(6));
        assert_eq!(read("\"icmpv6\"").number(), Some(58));
        assert_eq!(read("47"), Protocol::Number(47));
        assert_eq!(read("\"47\""), Protocol::Number(47));
        assert_eq!(read("\"ipx\"").number(), None);
        assert!(read("\"SCTP\"").has_ports() && !read("1").has_ports());
        assert!(serde_json::from_str::<Protocol>("256").is_err());
    }
}
