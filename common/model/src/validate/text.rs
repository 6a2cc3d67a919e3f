//! Tests of single texts: names, addresses, prefixes, communities. Each returns whether the text is acceptable; the
//! reason is told by whoever asks.

use std::net::IpAddr;

/// One DNS label: lower-case letters, digits, `-` inside (RFC 1123).
pub(crate) fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !bytes.is_empty()
        && bytes.iter().all(|b| plain(b) || *b == b'-')
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

/// A DNS subdomain: labels joined by dots.
pub(crate) fn is_name(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// A container id as the runtimes give them.
pub(crate) fn is_container_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn short(text: &str, also: &str) -> bool {
    (1..=15).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

/// A network interface name.
pub(crate) fn is_interface(text: &str) -> bool {
    short(text, "_.-")
}

/// `*` or a network interface name.
pub(crate) fn is_interface_or_all(text: &str) -> bool {
    text == "*" || is_interface(text)
}

/// An interface pattern of a BGP filter: `*` stands for any characters, `?` is refused as Calico does.
pub(crate) fn is_bgp_interface(text: &str) -> bool {
    short(text, "_.*-")
}

/// An iptables interface match, `+` at the end for any.
pub(crate) fn is_interface_pattern_list(text: &str) -> bool {
    short(text, ":._+-")
}

/// A MAC address of six octets.
pub(crate) fn is_mac(text: &str) -> bool {
    let separator = if text.contains(':') { ':' } else { '-' };
    let octets: Vec<&str> = text.split(separator).collect();
    octets.len() == 6 && octets.iter().all(|o| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A port name: letters, digits, `_`, `.`, `-`.
pub(crate) fn is_port_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Splits `address[/length]` and checks the length; an address without length gets all its bits.
pub(crate) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    match text.split_once('/') {
        None => address(text).map(|ip| (ip, if ip.is_ipv4() { 32 } else { 128 })),
        Some((ip, length)) => {
            let ip = address(ip)?;
            if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let length: u8 = length.parse().ok()?;
            (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
        }
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// The network of an address and a length, host bits cleared.
pub(crate) fn network_of(ip: IpAddr, length: u8) -> IpAddr {
    ipnet::IpNet::new(ip, length).map_or(ip, |net| net.network())
}

fn strict(text: &str) -> Option<(IpAddr, u8)> {
    cidr(text).filter(|(ip, length)| network_of(*ip, *length) == *ip)
}

/// An address or a CIDR, host bits allowed. Calico also takes an empty text in a list.
pub(crate) fn is_cidr(text: &str) -> bool {
    text.is_empty() || cidr(text).is_some()
}
/// The same, never empty.
pub(crate) fn is_cidrs_item(text: &str) -> bool {
    cidr(text).is_some()
}
/// IPv4 only.
pub(crate) fn is_cidr4(text: &str) -> bool {
    cidr(text).is_some_and(|(ip, _)| ip.is_ipv4())
}
/// IPv6 only.
pub(crate) fn is_cidr6(text: &str) -> bool {
    cidr(text).is_some_and(|(ip, _)| ip.is_ipv6())
}
/// A CIDR with its length, host bits allowed.
pub(crate) fn is_strict_cidr(text: &str) -> bool {
    text.contains('/') && cidr(text).is_some()
}
/// A CIDR with its length and without host bits.
pub(crate) fn is_network(text: &str) -> bool {
    text.contains('/') && strict(text).is_some()
}
/// A CIDR without host bits, or an address.
pub(crate) fn is_any_network(text: &str) -> bool {
    strict(text).is_some()
}
/// An IPv4 CIDR with its length, without host bits.
pub(crate) fn is_network4(text: &str) -> bool {
    is_network(text) && is_cidr4(text)
}
/// An IPv6 CIDR with its length, without host bits.
pub(crate) fn is_network6(text: &str) -> bool {
    is_network(text) && is_cidr6(text)
}
/// An address.
pub(crate) fn is_ip(text: &str) -> bool {
    address(text).is_some()
}
/// An IPv4 address.
pub(crate) fn is_ip4(text: &str) -> bool {
    address(text).is_some_and(|ip| ip.is_ipv4())
}
/// An IPv6 address.
pub(crate) fn is_ip6(text: &str) -> bool {
    address(text).is_some_and(|ip| ip.is_ipv6())
}

/// The address of a BGP peer without its port; None if the text is not `<IP>`, `<IPv4>:<port>` or `[<IPv6>]:<port>`.
pub(crate) fn peer_address(text: &str) -> Option<IpAddr> {
    let port = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0);
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, p) = rest.split_once("]:")?;
        return address(ip).filter(|ip| ip.is_ipv6() && port(p));
    }
    if let Some((ip, p)) = text.split_once(':')
        && let Some(ip) = address(ip).filter(IpAddr::is_ipv4)
    {
        return port(p).then_some(ip);
    }
    address(text)
}
/// [`peer_address`] finds one.
pub(crate) fn is_peer_ip(text: &str) -> bool {
    peer_address(text).is_some()
}

/// `aa:nn` with 16-bit or `aa:nn:mm` with 32-bit decimal numbers.
pub(crate) fn is_community(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let limit = match parts.len() {
        2 => u64::from(u16::MAX),
        3 => u64::from(u32::MAX),
        _ => return false,
    };
    parts.iter().all(|p| {
        !p.is_empty()
            && p.len() <= 10
            && p.bytes().all(|b| b.is_ascii_digit())
            && p.parse::<u64>().is_ok_and(|n| n <= limit)
    })
}

/// A label selector that parses.
pub(crate) fn is_selector(text: &str) -> bool {
    crate::selector::Selector::parse(text).is_ok()
}

/// A regular expression whose brackets close. Calico compiles Go's RE2; this crate carries no engine, so the shape alone
/// is checked here, and whoever compiles the pattern reports the rest.
pub(crate) fn is_regex(text: &str) -> bool {
    let (mut depth, mut class, mut escaped, mut first) = (0_i32, false, false, true);
    let mut class_start = false;
    for c in text.chars() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if class {
            if c == ']' && !class_start {
                class = false;
            }
            class_start = c == '^' && class_start;
        } else {
            match c {
                '[' => (class, class_start) = (true, true),
                '(' => depth += 1,
                ')' => depth -= 1,
                '*' | '+' | '?' if first => return false,
                _ => {}
            }
            if depth < 0 {
                return false;
            }
            first = matches!(c, '(' | '|');
            continue;
        }
        first = false;
    }
    depth == 0 && !class && !escaped
}

/// `name=true,name=false,name=`.
pub(crate) fn is_feature_list(text: &str) -> bool {
    pairs(text, |value| matches!(value, "" | "true" | "false"))
}
/// `name=value,…`.
pub(crate) fn is_key_value_list(text: &str) -> bool {
    pairs(text, |value| !value.is_empty() && !value.contains('='))
}
fn pairs(text: &str, good: impl Fn(&str) -> bool) -> bool {
    text.split(',').filter(|item| !item.is_empty()).all(|item| {
        item.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                && good(value)
        })
    })
}

/// Characters that a log prefix may hold.
pub(crate) fn is_log_prefix(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"%: /_-".contains(&b))
}
/// `10/second`.
pub(crate) fn is_rate(text: &str) -> bool {
    text.split_once('/').is_some_and(|(number, unit)| {
        (1..=4).contains(&number.len())
            && !number.starts_with('0')
            && number.bytes().all(|b| b.is_ascii_digit())
            && ["second", "minute", "hour", "day"].contains(&unit)
    })
}
/// A DNS label that still fits behind `openstack-region-`.
pub(crate) fn is_region(text: &str) -> bool {
    is_label(text) && text.len() <= 46
}
/// A host name or an address.
pub(crate) fn is_prometheus_host(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":._+-".contains(&b))
}
/// A subcomponent of felix.
pub(crate) fn is_timeout_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_ -".contains(&b))
}
/// A duration, or `Auto`.
pub(crate) fn is_auto_or_duration(text: &str) -> bool {
    text == "Auto" || go_duration(text).is_some()
}

/// A label or annotation key: an optional DNS prefix and `/`, then up to 63 letters, digits, `-`, `_`, `.`.
pub(crate) fn is_qualified_name(text: &str) -> bool {
    let name = match text.split_once('/') {
        Some((prefix, name)) if is_name(prefix) && prefix.len() <= 253 => name,
        Some(_) => return false,
        None => text,
    };
    !name.is_empty() && is_label_value(name)
}

/// A label value: empty, or up to 63 letters, digits, `-`, `_`, `.` that begin and end with a letter or digit.
pub(crate) fn is_label_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && ends(text.chars().next())
        && ends(text.chars().next_back())
}

/// Nanoseconds of a Go duration (`1h30m`, `1.5s`, `-2ms`, `0`); None if it is none or does not fit.
pub(crate) fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let units = after.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (unit, after) = after.split_at(units);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if whole.len() > 19 || fraction.len() > 18 {
            return None;
        }
        total += whole.parse::<i128>().unwrap_or(0) * scale;
        if !fraction.is_empty() {
            let power = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
            total += fraction.parse::<i128>().ok()? * scale / power;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A Go duration in the form in which Go prints it: `1h0m0s`, `2m30s`, `1.5s`, `50ms`, `0s`.
pub(crate) fn go_duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let n = nanoseconds.unsigned_abs();
    let decimal = |n: u64, scale: u64| {
        let fraction = n % scale;
        if fraction == 0 {
            return (n / scale).to_string();
        }
        let width = scale.to_string().len() - 1;
        let digits = format!("{fraction:0width$}");
        format!("{}.{}", n / scale, digits.trim_end_matches('0'))
    };
    let text = match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(n, 1_000_000)),
        _ => {
            let (hours, minutes, rest) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60, n % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(test(text), "{text:?} should pass");
        }
        for text in bad {
            assert!(!test(text), "{text:?} should not pass");
        }
    }

    #[test]
    fn names() {
        check(is_name, &["a", "a-1.b", "0"], &["", "A", "a.", ".a", "a..b", "-a", "a_b", "a/b"]);
        check(is_container_id, &["0f1e", "A-b"], &["", "-a", "a_b", "a-"]);
        check(
            is_interface,
            &["eth0", "cali1b15813a0a8", "a.b-c_d"],
            &["", "an-interface-too-long", "a/b", "*"],
        );
        check(is_qualified_name, &["a", "a.b/c", "A_b.c"], &["", "a b", "/a", "a/", "a/b/c", "A/b"]);
        check(is_label_value, &["", "a", "A.b_c-d"], &["c d", "-a", "a-"]);
    }

    #[test]
    fn addresses() {
        check(
            is_cidr,
            &["10.0.0.0/8", "10.0.0.1/8", "::1", "fd00::/8"],
            &["10.0.0.0/33", "10", "x", "10.0.0.0/8/8", "10.0.0.0/"],
        );
        check(is_network, &["10.0.0.0/8"], &["10.0.0.1/8", "10.0.0.1", "fd00::1/8"]);
        check(is_any_network, &["10.0.0.1"], &["10.0.0.1/8"]);
        check(
            is_peer_ip,
            &["10.0.0.1", "10.0.0.1:1790", "[fd00::1]:179", "fd00::1"],
            &["10.0.0.1:0", "10.0.0.1:65536", "fd00::1:x", "[fd00::1]", "x"],
        );
        check(is_mac, &["ca:fe:1d:52:bb:e9"], &["ca:fe", "ca:fe:1d:52:bb:eg"]);
    }

    #[test]
    fn communities_and_rates() {
        check(
            is_community,
            &["65535:0", "4294967295:0:1"],
            &["65536:0", "1", "1:2:3:4", "a:b", "4294967296:0:0", ":1"],
        );
        check(is_rate, &["10/second"], &["0/second", "10/s", "10", "12345/day"]);
        check(is_feature_list, &["", "A=true,B=false,C=", "A=true,"], &["A", "A=x"]);
        check(is_regex, &["^eth.*$", "a(b|c)?[x)]"], &["a(b", "[", "*a", "a)", "\\"]);
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (text, printed) in [
            ("15m", "15m0s"),
            ("90s", "1m30s"),
            ("0", "0s"),
            ("1.5s", "1.5s"),
            ("1500ms", "1.5s"),
            ("50ms", "50ms"),
            ("2h", "2h0m0s"),
            ("1h0.5s", "1h0m0.5s"),
            ("-1m", "-1m0s"),
            ("3us", "3µs"),
            (".5s", "500ms"),
        ] {
            assert_eq!(go_duration(text).map(go_duration_text).as_deref(), Some(printed), "{text}");
        }
        for text in ["", "5", "5x", "s", "1s1", "-", "99999999999h"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
