//! Counting addresses: how many of a network are there, used, reserved, free.

use std::net::IpAddr;

use ipnet::IpNet;

/// The figures of a pool or block. Floating point, as an IPv6 pool has more addresses than an integer counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) total: f64,
    pub(super) used: f64,
    pub(super) reserved: f64,
    pub(super) free: f64,
}

impl Figures {
    /// The figures of a network in which these addresses are used. A used address that is reserved too is not free just once.
    pub(super) fn of(network: IpNet, used: &[IpAddr], reservations: &[IpNet]) -> Figures {
        let inside = clip(network, reservations);
        let total = size(network);
        // An empty sum of floats is -0.
        let reserved = inside.iter().fold(0.0, |sum, net| sum + size(*net));
        let apart = used.iter().filter(|ip| !inside.iter().any(|net| net.contains(*ip))).count();
        let used = count(used.len());
        Figures { total, used, reserved, free: total - reserved - count(apart) }
    }

    /// The cells of a table: the total, and the rest with their parts of it.
    pub(super) fn cells(self) -> [String; 4] {
        let part = |n: f64| format!("{} ({:.0}%)", five(n), 100.0 * n / self.total);
        [five(self.total), part(self.used), part(self.reserved), part(self.free)]
    }
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

fn size(network: IpNet) -> f64 {
    2_f64.powi(i32::from(network.max_prefix_len() - network.prefix_len()))
}

/// The parts of the networks inside one, none twice.
fn clip(network: IpNet, others: &[IpNet]) -> Vec<IpNet> {
    let inside = others.iter().filter_map(|other| match () {
        () if network.contains(other) => Some(*other),
        () if other.contains(&network) => Some(network),
        () => None,
    });
    IpNet::aggregate(&inside.collect())
}

/// Five significant digits, `1.8447e+19` for what has more.
fn five(n: f64) -> String {
    let scientific = format!("{n:.4e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..5).contains(&exponent) {
        let places = usize::try_from(4 - exponent).unwrap_or_default();
        let plain = format!("{n:.places$}");
        return if plain.contains('.') {
            plain.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            plain
        };
    }
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_have_five_digits() {
        for (n, text) in [
            (0.0, "0"),
            (64.0, "64"),
            (65536.0, "65536"),
            (131_072.0, "1.3107e+05"),
            (1_048_576.0, "1.0486e+06"),
            (18_446_744_073_709_551_616.0, "1.8447e+19"),
            (100_000.0, "1e+05"),
        ] {
            assert_eq!(five(n), text);
        }
    }

    #[test]
    fn reservations_count_once_and_only_inside() {
        let pool = net("10.50.0.0/24");
        let reserved = [net("10.50.0.0/28"), net("10.50.0.0/29"), net("10.50.0.192/27"), net("192.0.2.0/24")];
        let used: Vec<IpAddr> = ["10.50.0.0", "10.50.0.1", "10.50.0.9", "10.50.0.69", "10.50.0.191"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        let figures = Figures::of(pool, &used, &reserved);
        assert_eq!(figures, Figures { total: 256.0, used: 5.0, reserved: 48.0, free: 206.0 });
        assert_eq!(figures.cells(), ["256", "5 (2%)", "48 (19%)", "206 (80%)"]);
        assert_eq!(Figures::of(pool, &used, &[net("10.0.0.0/8")]).cells()[2..], ["256 (100%)", "0 (0%)"]);
        assert_eq!(Figures::of(pool, &[], &[]).cells()[1..], ["0 (0%)", "0 (0%)", "256 (100%)"]);
    }
}
