//! Router advertisements and solicitations (RFC 4861 §4.1, §4.2): read strictly, written in their shortest form.

/// ICMPv6 type of a router solicitation.
pub(super) const SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub(super) const ADVERTISEMENT: u8 = 134;

const SOLICITATION_LEN: usize = 8;
const ADVERTISEMENT_LEN: usize = 16;
/// Options count their length in units of this.
const UNIT: usize = 8;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// A message of which everything is right that a receiver must look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// Somebody asks who the routers are.
    Solicitation {
        /// It says its link-layer address, which who has no address yet must not.
        link_layer: bool,
    },
    /// Somebody says that it is a router.
    Advertisement,
}

/// Reads an ICMPv6 message; `None`: it is neither, or not as RFC 4861 §6.1.1 and §6.1.2 demand. The kernel checked its
/// checksum; hop limit and source are for who received it.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let (kind, code) = (*bytes.first()?, *bytes.get(1)?);
    if code != 0 {
        return None;
    }
    match kind {
        SOLICITATION => {
            let link_layer = options(bytes.get(SOLICITATION_LEN..)?)?;
            Some(Message::Solicitation { link_layer })
        }
        ADVERTISEMENT => {
            options(bytes.get(ADVERTISEMENT_LEN..)?)?;
            Some(Message::Advertisement)
        }
        _ => None,
    }
}

/// Walks over the options, which must fill the rest exactly and have a length; whether one is a source link-layer address.
fn options(mut rest: &[u8]) -> Option<bool> {
    let mut link_layer = false;
    while let Some(kind) = rest.first() {
        let length = usize::from(*rest.get(1)?) * UNIT;
        if length == 0 {
            return None;
        }
        link_layer |= *kind == SOURCE_LINK_LAYER_ADDRESS;
        rest = rest.get(length..)?;
    }
    Some(link_layer)
}

/// An advertisement that makes nobody's default route: router lifetime 0, nothing else said. The kernel adds the checksum.
pub(super) fn advertisement() -> [u8; ADVERTISEMENT_LEN] {
    let mut bytes = [0; ADVERTISEMENT_LEN];
    bytes[0] = ADVERTISEMENT;
    bytes
}

/// A solicitation. The kernel adds the checksum.
pub(super) fn solicitation() -> [u8; SOLICITATION_LEN] {
    let mut bytes = [0; SOLICITATION_LEN];
    bytes[0] = SOLICITATION;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(head: &[u8], options: &[&[u8]]) -> Vec<u8> {
        let mut bytes = head.to_vec();
        bytes.extend(options.iter().copied().flatten());
        bytes
    }

    #[test]
    fn what_we_write_we_read() {
        assert_eq!(parse(&advertisement()), Some(Message::Advertisement));
        assert_eq!(parse(&solicitation()), Some(Message::Solicitation { link_layer: false }));
        assert_eq!(advertisement()[6..8], [0, 0], "no default router");
    }

    #[test]
    fn options_fill_the_message_exactly() {
        let address = [1, 1, 2, 0, 0, 0, 0, 1];
        let prefix = [3, 4].iter().copied().chain([0; 30]).collect::<Vec<u8>>();
        let (advert, solicit) = (advertisement(), solicitation());
        assert_eq!(parse(&with(&advert, &[&address, &prefix])), Some(Message::Advertisement));
        assert_eq!(parse(&with(&solicit, &[&address])), Some(Message::Solicitation { link_layer: true }));
        for (what, bytes) in [
            ("no length", with(&advert, &[&[1, 0, 0, 0, 0, 0, 0, 0]])),
            ("cut in an option", with(&advert, &[&address, &prefix[..31]])),
            ("cut after its type", with(&advert, &[&[1]])),
            ("an option too long", with(&solicit, &[&[1, 2, 2, 0, 0, 0, 0, 1]])),
            ("cut in the head", advert[..15].to_vec()),
            ("an advertisement as short as a solicitation", advert[..8].to_vec()),
            ("a solicitation cut", solicit[..7].to_vec()),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(parse(&bytes), None, "{what}");
        }
        for (at, value) in [(0, 135), (0, 128), (1, 1)] {
            let mut other = advert;
            other[at] = value;
            assert_eq!(parse(&other), None, "octet {at} is {value}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

        /// Whatever comes is read without a panic, and what is taken is whole.
        #[test]
        fn no_octets_are_too_strange(kind in 130u8..138, code in 0u8..2, rest in proptest::collection::vec(0u8.., 0..96)) {
            let bytes: Vec<u8> = [kind, code].into_iter().chain(rest).collect();
            if let Some(message) = parse(&bytes) {
                let head = if message == Message::Advertisement { ADVERTISEMENT_LEN } else { SOLICITATION_LEN };
                proptest::prop_assert!(bytes.len() >= head && bytes.len().is_multiple_of(UNIT) && code == 0);
            }
        }
    }
}
