//! Evaluation of filter rules on one route.

use bird_packet::{AttrBuilder, AttrSet, Family, LargeCommunity, Prefix};

use super::{Action, Community, FilterSet, MatchOperator, Operation, PeerType, Rule, glob};
use crate::fib::METRIC_SUM;
use crate::rib::net::prefix_of;

/// What a rule may ask of a route.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) prefix: Prefix,
    /// From a BGP peer.
    pub(crate) learned: bool,
    /// Of the local route or of the resolved next hop; empty when unknown.
    pub(crate) interface: &'a str,
    /// The session is iBGP.
    pub(crate) internal: bool,
    pub(crate) local_pref: u32,
    pub(crate) attrs: AttrSet<'a>,
    /// On export to eBGP our AS is in front of the path already when filters look at it, as in BIRD.
    pub(crate) own_as: Option<u32>,
}

/// The rules of a chain of filters, one after the other: the first verdict of the first filter that has one is the first
/// verdict of all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Chain {
    rules: Vec<Compiled>,
    pub(crate) uses_interface: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Compiled {
    net: Option<NetMatch>,
    rule: Rule,
    /// For messages: which filter, which rule of it.
    filter: String,
    number: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NetMatch {
    cidr: Prefix,
    operator: MatchOperator,
    length: Option<(u8, u8)>,
}

/// Verdict of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict<'c> {
    /// No rule matched.
    None,
    /// Accepted, with these changes.
    Accept(&'c [Operation]),
    /// Rejected.
    Reject,
}

/// Which of the four lists of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Import,
    Export,
}

impl Chain {
    /// The rules of the named filters for one direction and family; names that are missing are skipped.
    pub(crate) fn compile(
        filters: &std::collections::BTreeMap<String, FilterSet>,
        names: &[String],
        direction: Direction,
        family: Family,
    ) -> Chain {
        let mut rules = Vec::new();
        for name in names {
            let Some(set) = filters.get(name) else { continue };
            let list = match (direction, family) {
                (Direction::Import, Family::Ipv4Unicast) => &set.import_v4,
                (Direction::Import, Family::Ipv6Unicast) => &set.import_v6,
                (Direction::Export, Family::Ipv4Unicast) => &set.export_v4,
                (Direction::Export, Family::Ipv6Unicast) => &set.export_v6,
            };
            rules.extend(list.iter().enumerate().map(|(i, rule)| Compiled {
                net: rule.cidr.map(|cidr| NetMatch {
                    cidr: prefix_of(cidr),
                    operator: rule.match_operator.unwrap_or(MatchOperator::In),
                    length: rule.prefix_length.map(|l| (l.min, l.max)),
                }),
                rule: rule.clone(),
                filter: name.clone(),
                number: i + 1,
            }));
        }
        let uses_interface = rules.iter().any(|r| r.rule.interface.is_some());
        Chain { rules, uses_interface }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(crate) fn verdict(&self, facts: &Facts<'_>) -> Verdict<'_> {
        match self.rules.iter().find(|compiled| compiled.matches(facts)) {
            None => Verdict::None,
            Some(compiled) => match compiled.rule.action {
                Action::Accept => Verdict::Accept(&compiled.rule.operations),
                Action::Reject => Verdict::Reject,
            },
        }
    }

    /// The rule that gives the verdict: its filter, and its number there, from 1.
    pub(crate) fn deciding(&self, facts: &Facts<'_>) -> Option<(&str, usize)> {
        let compiled = self.rules.iter().find(|compiled| compiled.matches(facts))?;
        Some((&compiled.filter, compiled.number))
    }
}

impl NetMatch {
    fn matches(self, prefix: Prefix) -> bool {
        let inside = self.cidr.contains(prefix)
            && self.length.is_none_or(|(min, max)| (min..=max).contains(&prefix.len()));
        match (self.operator, self.length) {
            (MatchOperator::In, _) => inside,
            (MatchOperator::NotIn, _) => !inside,
            (MatchOperator::Equal, None) => self.cidr == prefix,
            (MatchOperator::NotEqual, None) => self.cidr != prefix,
            (MatchOperator::Equal, Some(_)) => inside && self.cidr == prefix,
            (MatchOperator::NotEqual, Some(_)) => !(inside && self.cidr == prefix),
        }
    }
}

impl Compiled {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let rule = &self.rule;
        self.net.is_none_or(|net| net.matches(facts.prefix))
            && (rule.source.is_none() || facts.learned)
            && rule.interface.as_ref().is_none_or(|pattern| glob(pattern, facts.interface))
            && rule.peer_type.is_none_or(|kind| (kind == PeerType::Internal) == facts.internal)
            && rule.community.is_none_or(|community| has_community(facts.attrs, community))
            && rule.as_path_prefix.as_ref().is_none_or(|path| begins_with(facts, path))
            && rule.priority.is_none_or(|priority| facts.local_pref == METRIC_SUM.saturating_sub(priority))
    }
}

fn has_community(attrs: AttrSet<'_>, community: Community) -> bool {
    match community {
        Community::Standard(..) => attrs.has_community(standard(community)),
        Community::Large(global, local1, local2) => {
            let wanted = LargeCommunity { global, local1, local2 };
            attrs.large_communities().any(|c| c == wanted)
        }
    }
}

fn standard(community: Community) -> u32 {
    match community {
        Community::Standard(a, b) => (u32::from(a) << 16) | u32::from(b),
        Community::Large(..) => 0,
    }
}

fn begins_with(facts: &Facts<'_>, wanted: &[u32]) -> bool {
    let mut path = facts.own_as.into_iter().chain(facts.attrs.as_path().asns());
    wanted.iter().all(|asn| path.next() == Some(*asn))
}

/// Adds a community of either kind.
pub(crate) fn add_community(builder: &mut AttrBuilder<'_>, community: Community) {
    match community {
        Community::Standard(..) => builder.add_community(standard(community)),
        Community::Large(global, local1, local2) => {
            builder.add_large_community(LargeCommunity { global, local1, local2 })
        }
    };
}

/// Applies what an accepting rule changes, in order. `own_as` is put in front of the path before the first prepend of
/// another, because that is where BIRD's filters find it; returns whether that happened.
pub(crate) fn apply(builder: &mut AttrBuilder<'_>, operations: &[Operation], own_as: Option<u32>) -> bool {
    let mut own_done = false;
    for operation in operations {
        match operation {
            Operation::AddCommunity(community) => add_community(builder, *community),
            Operation::PrependAsPath(path) => {
                if let Some(own_as) = own_as
                    && !own_done
                {
                    builder.prepend(own_as, 1);
                    own_done = true;
                }
                for asn in path.iter().rev() {
                    builder.prepend(*asn, 1);
                }
            }
            Operation::SetPriority(priority) => {
                builder.local_pref(Some(METRIC_SUM.saturating_sub(*priority)));
            }
        }
    }
    own_done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PrefixLength, Source};

    fn facts<'a>(prefix: &str, attrs: &'a [u8]) -> Facts<'a> {
        Facts {
            prefix: prefix.parse().unwrap(),
            learned: true,
            interface: "eth0",
            internal: true,
            local_pref: 2_147_482_623,
            attrs: AttrSet::new(attrs),
            own_as: None,
        }
    }

    fn check(rule: Rule, facts: &Facts<'_>) -> bool {
        let mut set = FilterSet::default();
        match facts.prefix.family() {
            Family::Ipv4Unicast => set.import_v4.push(rule),
            Family::Ipv6Unicast => set.import_v6.push(rule),
        }
        let filters = [("f".to_owned(), set)].into();
        let names = ["missing".to_owned(), "f".to_owned()];
        let chain = Chain::compile(&filters, &names, Direction::Import, facts.prefix.family());
        chain.verdict(facts) != Verdict::None
    }

    #[test]
    fn prefixes_and_lengths() {
        use MatchOperator::{Equal, In, NotEqual, NotIn};
        for (operator, length, prefix, matches) in [
            (Equal, None, "10.1.0.0/16", true),
            (Equal, None, "10.1.1.0/24", false),
            (NotEqual, None, "10.1.1.0/24", true),
            (In, None, "10.1.0.0/16", true),
            (In, None, "10.1.2.3/32", true),
            (In, None, "10.0.0.0/8", false),
            (In, Some((26, 32)), "10.1.0.0/16", false),
            (In, Some((26, 32)), "10.1.0.0/26", true),
            (NotIn, None, "10.1.0.0/16", false),
            (NotIn, None, "10.2.0.0/16", true),
            (NotIn, Some((16, 28)), "10.1.0.0/29", true),
            (NotIn, Some((16, 28)), "10.1.0.0/28", false),
        ] {
            let rule = Rule {
                cidr: Some("10.1.0.0/16".parse().unwrap()),
                match_operator: Some(operator),
                prefix_length: length.map(|(min, max)| PrefixLength { min, max }),
                ..Rule::default()
            };
            assert_eq!(check(rule, &facts(prefix, &[])), matches, "{operator:?} {length:?} {prefix}");
        }
    }

    #[test]
    fn attributes_and_circumstances() {
        let mut bytes = Vec::new();
        let mut builder = AttrBuilder::new();
        builder.as_path(&[65500, 65501]).add_community(65000 << 16 | 7);
        builder.write(&mut bytes).unwrap();
        let f = facts("10.1.0.0/16", &bytes);
        let local = Facts { learned: false, interface: "cali1", internal: false, ..f };
        let own = Facts { own_as: Some(64512), ..f };
        let path = |asns: &[u32]| Rule { as_path_prefix: Some(asns.to_vec()), ..Rule::default() };
        let interface = |i: &str| Rule { interface: Some(i.into()), ..Rule::default() };
        let community = |c: &str| Rule { community: Some(c.parse().unwrap()), ..Rule::default() };
        let kind = |peer_type| Rule { peer_type: Some(peer_type), ..Rule::default() };
        let priority = |p| Rule { priority: Some(p), ..Rule::default() };
        let source = Rule { source: Some(Source::RemotePeers), ..Rule::default() };
        for (rule, facts, matches) in [
            (path(&[65500]), &f, true),
            (path(&[65500, 65501]), &f, true),
            (path(&[65501]), &f, false),
            (path(&[65500, 65501, 1]), &f, false),
            (path(&[65500]), &own, false),
            (path(&[64512, 65500]), &own, true),
            (community("65000:7"), &f, true),
            (community("65000:8"), &f, false),
            (community("65000:7:1"), &f, false),
            (interface("eth*"), &f, true),
            (interface("eth*"), &local, false),
            (source.clone(), &f, true),
            (source, &local, false),
            (kind(PeerType::Internal), &f, true),
            (kind(PeerType::External), &f, false),
            (priority(1024), &f, true),
            (priority(512), &f, false),
        ] {
            assert_eq!(check(rule.clone(), facts), matches, "{rule:?}");
        }
    }

    #[test]
    fn operations_keep_their_order_and_find_our_as_in_front() {
        let operations = [
            Operation::AddCommunity("65000:1".parse().unwrap()),
            Operation::PrependAsPath(vec![1, 2]),
            Operation::SetPriority(512),
        ];
        let mut builder = AttrBuilder::new();
        builder.as_path(&[65500]);
        assert!(apply(&mut builder, &operations, Some(64512)));
        let mut bytes = Vec::new();
        builder.write(&mut bytes).unwrap();
        let set = AttrSet::new(&bytes);
        assert_eq!(set.as_path().asns().collect::<Vec<_>>(), [1, 2, 64512, 65500]);
        assert_eq!(set.local_pref(), Some(2_147_483_135));
        assert!(set.has_community(65000 << 16 | 1));
    }
}
