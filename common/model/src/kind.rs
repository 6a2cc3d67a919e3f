//! Kinds of resources: names, plurals, scopes, aliases, and the typed value of each.

use std::fmt;

macro_rules! kinds {
    ($( $variant:ident, $name:literal, $plural:literal, $scope:ident, [$($alias:literal),*]; )*) => {
        /// A kind of resource.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $( #[doc = concat!("`", $name, "`.")] $variant, )* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant),*];

            /// The kind as it is written in objects, such as `IPPool`.
            pub const fn kind_name(self) -> &'static str {
                match self { $( Kind::$variant => $name, )* }
            }

            /// The kind's part of a key, such as `ippools`.
            pub const fn plural(self) -> &'static str {
                match self { $( Kind::$variant => $plural, )* }
            }

            /// Short names that calicoctl takes, beside kind name and plural.
            pub const fn aliases(self) -> &'static [&'static str] {
                match self { $( Kind::$variant => &[$($alias),*], )* }
            }

            /// Whether its objects live in namespaces.
            pub const fn namespaced(self) -> bool {
                match self { $( Kind::$variant => kinds!(@$scope), )* }
            }
        }
    };
    (@global) => { false };
    (@namespaced) => { true };
}

kinds! {
    Node, "Node", "nodes", global, ["no", "nos"];
    WorkloadEndpoint, "WorkloadEndpoint", "workloadendpoints", namespaced, ["wep", "weps"];
    HostEndpoint, "HostEndpoint", "hostendpoints", global, ["hep", "heps"];
    IpPool, "IPPool", "ippools", global, ["ipp", "ipps", "pool", "pools"];
    IpReservation, "IPReservation", "ipreservations", global, ["reservation", "reservations"];
    BgpPeer, "BGPPeer", "bgppeers", global, ["bgpp", "bgpps", "bp", "bps"];
    BgpConfiguration, "BGPConfiguration", "bgpconfigurations", global, ["bgpconfig", "bgpconfigs"];
    BgpFilter, "BGPFilter", "bgpfilters", global, ["bgpf", "bf", "bfs"];
    FelixConfiguration, "FelixConfiguration", "felixconfigurations", global, ["felixconfig", "felixconfigs"];
    ClusterInformation, "ClusterInformation", "clusterinformations", global, ["clusterinfo", "clusterinfos"];
    GlobalNetworkPolicy, "GlobalNetworkPolicy", "globalnetworkpolicies", global, ["gnp", "gnps"];
    NetworkPolicy, "NetworkPolicy", "networkpolicies", namespaced, ["np", "nps", "policy", "policies", "pol", "pols"];
    StagedGlobalNetworkPolicy, "StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", global, ["sgnp", "sgnps"];
    StagedNetworkPolicy, "StagedNetworkPolicy", "stagednetworkpolicies", namespaced, ["snp", "snps"];
    StagedKubernetesNetworkPolicy, "StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", namespaced, ["sknp", "sknps"];
    GlobalNetworkSet, "GlobalNetworkSet", "globalnetworksets", global, ["gnetset", "gnetsets"];
    NetworkSet, "NetworkSet", "networksets", namespaced, ["netset", "netsets"];
    Tier, "Tier", "tiers", global, [];
    Profile, "Profile", "profiles", global, ["pro", "pros"];
    CalicoNodeStatus, "CalicoNodeStatus", "caliconodestatuses", global, ["caliconodestatus", "nodestatus", "nodestatuses"];
    KubeControllersConfiguration, "KubeControllersConfiguration", "kubecontrollersconfigurations", global,
        ["kubecontrollersconfig", "kubecontrollersconfigs"];
    IpamConfiguration, "IPAMConfiguration", "ipamconfigurations", global, ["ipamconfig", "ipamconfigs"];
    BlockAffinity, "BlockAffinity", "blockaffinities", global, ["blockaffinity", "affinity", "affinities"];
}

impl Kind {
    /// The kind that a user means: kind name, plural or short name in any case.
    pub fn from_alias(word: &str) -> Option<Kind> {
        let same = |known: &&str| known.eq_ignore_ascii_case(word);
        Kind::ALL
            .iter()
            .copied()
            .find(|kind| same(&kind.kind_name()) || same(&kind.plural()) || kind.aliases().iter().any(same))
    }

    /// The kind with exactly this kind name.
    pub fn from_kind_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.kind_name() == name)
    }

    /// The kind with exactly this plural.
    pub fn from_plural(plural: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.plural() == plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_word_means_one_kind() {
        let mut words = BTreeSet::new();
        for kind in Kind::ALL {
            let own: BTreeSet<String> = [kind.kind_name(), kind.plural()]
                .iter()
                .chain(kind.aliases())
                .map(|word| word.to_ascii_lowercase())
                .collect();
            for word in own {
                assert_eq!(Kind::from_alias(&word.to_ascii_uppercase()), Some(*kind), "{word}");
                assert!(words.insert(word.clone()), "{word} means two kinds");
            }
            assert_eq!(Kind::from_plural(kind.plural()), Some(*kind));
            assert_eq!(Kind::from_kind_name(kind.kind_name()), Some(*kind));
        }
        assert_eq!(Kind::from_alias("livemigration"), None);
    }
}
