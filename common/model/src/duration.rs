//! Durations as Go writes them: `2m0s`, `1h30m0s`, `1.5s`, `50ms`, `0s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::never_blank;

/// A signed number of nanoseconds, read and written as Go's `time.Duration`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoDuration {
    nanos: i64,
}

/// Why a text is no Go duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a duration is numbers with units, such as \"90s\", \"2m0s\" or \"1.5h\"")]
pub struct DurationError;

impl GoDuration {
    /// From nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        GoDuration { nanos }
    }

    /// From whole seconds.
    pub const fn from_secs(secs: u32) -> Self {
        GoDuration { nanos: secs as i64 * 1_000_000_000 }
    }

    /// In nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.nanos
    }

    /// As a standard duration; a negative one becomes zero.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }
}

impl From<GoDuration> for Duration {
    fn from(duration: GoDuration) -> Self {
        duration.to_std()
    }
}

impl From<Duration> for GoDuration {
    /// Longer than 292 years becomes 292 years.
    fn from(duration: Duration) -> Self {
        GoDuration { nanos: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) }
    }
}

/// Units in nanoseconds, as Go names them.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl FromStr for GoDuration {
    type Err = DurationError;
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(GoDuration::default());
        }
        if rest.is_empty() {
            return Err(DurationError);
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (whole, after) = split_digits(rest);
            let (fraction, after) = after.strip_prefix('.').map_or(("", after), split_digits);
            if whole.is_empty() && fraction.is_empty() {
                return Err(DurationError);
            }
            let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            let unit = UNITS.iter().find(|(known, _)| *known == name).ok_or(DurationError)?.1;
            let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError)? };
            let part = whole.checked_mul(unit).ok_or(DurationError)?;
            let part = part.checked_add(fraction_of(unit, fraction)).ok_or(DurationError)?;
            total = total.checked_add(part).ok_or(DurationError)?;
            rest = after;
        }
        let nanos = if negative { 0_i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() };
        nanos.map(GoDuration::from_nanos).ok_or(DurationError)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        let nanos = self.nanos.unsigned_abs();
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", Decimal { value: nanos, unit: 1_000 }),
            1_000_000..1_000_000_000 => write!(f, "{}ms", Decimal { value: nanos, unit: 1_000_000 }),
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", Decimal { value: nanos % 60_000_000_000, unit: 1_000_000_000 })
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

never_blank!(GoDuration);

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.fraction` of a unit; digits too small to matter are dropped.
fn fraction_of(unit: u64, fraction: &str) -> u64 {
    let mut scale = u128::from(unit);
    let mut sum: u128 = 0;
    let mut divisor: u128 = 1;
    for digit in fraction.bytes().take(18) {
        divisor *= 10;
        sum = sum * 10 + u128::from(digit - b'0');
    }
    scale *= sum;
    u64::try_from(scale / divisor).unwrap_or(0)
}

/// `value / unit` with its fraction, trailing zeros cut; `unit` is a power of ten.
struct Decimal {
    value: u64,
    unit: u64,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decimal { value, unit } = *self;
        write!(f, "{}", value / unit)?;
        let (mut fraction, mut width) = (value % unit, unit.ilog10() as usize);
        if fraction == 0 {
            return Ok(());
        }
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        write!(f, ".{fraction:0width$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_go_prints() {
        for (input, output) in [
            ("0", "0s"),
            ("15m", "15m0s"),
            ("120s", "2m0s"),
            ("90m", "1h30m0s"),
            ("50ms", "50ms"),
            ("1.5s", "1.5s"),
            ("1500us", "1.5ms"),
            ("1h0.001s", "1h0m0.001s"),
            ("-2m", "-2m0s"),
            (".5h", "30m0s"),
            ("7ns", "7ns"),
        ] {
            assert_eq!(input.parse::<GoDuration>().unwrap().to_string(), output, "{input}");
        }
        for bad in ["", "-", "5", "s", ".s", "1x", "1s2", "9999999999h", "1 s", "1..5s"] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
        }
    }
}
