//! Jitter and discriminators from a seed: SplitMix64, small, fast, and the same everywhere.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 75 to 100 % of `interval`; to 90 % where one lost packet ends the session (RFC 5880 §6.8.7).
    pub(crate) fn jitter(&mut self, interval: Duration, multiplier: u8) -> Duration {
        let span: u128 = if multiplier == 1 { 150_000 } else { 250_000 };
        let millionths = 750_000 + u128::from(self.next()) % (span + 1);
        let nanos = interval.as_nanos() * millionths / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// A discriminator; the caller checks that nobody has it yet.
    pub(crate) fn discriminator(&mut self) -> u32 {
        loop {
            let [a, b, c, d, ..] = self.next().to_be_bytes();
            let value = u32::from_be_bytes([a, b, c, d]);
            if value != 0 {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_range_and_fills_it() {
        let mut random = Random::new(1);
        for (multiplier, most) in [(1, 90), (2, 100), (3, 100), (255, 100)] {
            let samples: Vec<u128> = (0..2_000)
                .map(|_| random.jitter(Duration::from_millis(100), multiplier).as_micros())
                .collect();
            let (low, high) = (*samples.iter().min().unwrap(), *samples.iter().max().unwrap());
            assert!((75_000..75_500).contains(&low), "{multiplier}: {low}");
            assert!(high <= most * 1_000 && high > most * 1_000 - 500, "{multiplier}: {high}");
        }
    }
}
