//! Reasons in words: what a person reads where a program reads the variant.

use std::fmt;

use crate::export::verdict::ExportReason;
use crate::fib::NotProgrammed;
use crate::import::ImportReason;
use crate::restart::WaitReason;
use crate::rib::decide::Step;

impl fmt::Display for ImportReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::FilterRejects => "an import filter rejects it",
            Self::OwnAs => "our AS is in its path",
            Self::OwnOriginator => "we originated it",
            Self::OwnCluster => "it passed through our cluster",
            Self::OwnNextHop => "its next hop is our own address",
            Self::NoPolicy => "the peer is external and has no import filter (RFC 8212)",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "long-lived stale",
            Self::LocalPref => "lower LOCAL_PREF",
            Self::PathLength => "longer AS path",
            Self::Origin => "worse ORIGIN",
            Self::Med => "higher MED",
            Self::External => "internal, the best is external",
            Self::IgpMetric => "higher cost to the next hop",
            Self::RouterId => "higher router id",
            Self::ClusterList => "longer CLUSTER_LIST",
            Self::PeerAddress => "higher peer address",
            Self::PathId => "higher path identifier",
        })
    }
}

impl fmt::Display for NotProgrammed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "kernel routes are off",
            Self::KernelOwns => "the kernel has it from another program",
            Self::ExportOnly => "originated for announcing only",
            Self::NeverProgram => "inside a range that is never programmed",
            Self::PoolOfOthers => "inside a pool whose routes another program writes",
            Self::Wireguard => "its next hop is reached by WireGuard",
            Self::Unresolved => "its next hop is not reachable",
            Self::NoPath => "there is no usable path",
            Self::Waiting => "about to be written, or waiting for the end of a restart",
        })
    }
}

impl fmt::Display for ExportReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FilterAccepts => "an export filter accepts it",
            Self::FilterRejects => "an export filter rejects it",
            Self::Router => "a router tells what it knows",
            Self::OwnBlock => "a block of this node",
            Self::Elevated => "inside a block of this node, with a better than normal priority",
            Self::Service => "inside a service range",
            Self::Pool => "inside a pool",
            Self::NeverExport => "inside a pool that is not exported",
            Self::InternalInterface => "its interface is not told to internal peers",
            Self::Interface => "its interface is not told to anybody",
            Self::InsideOwnBlock => "inside a block of this node, which is told instead",
            Self::InsideAggregate => "inside an aggregate, which is told instead",
            Self::Default => "outside every pool, block and service range",
            Self::ScopeOwn => "this peer is told only what this node itself has",
            Self::ScopeNoTransit => "from another external peer, and this one is not given transit",
            Self::NoAdvertise => "it carries NO_ADVERTISE",
            Self::NoExport => "it carries NO_EXPORT, and the peer is external",
            Self::InternalToInternal => {
                "from an internal peer, and neither of the two is a reflector's client"
            }
            Self::LongLivedStale => "long-lived stale, which this peer does not know",
            Self::NextHop => "no next hop that this session can carry",
            Self::Restarting => "waits for the end of our restart",
            Self::PathLimit => "enough better paths are told",
            Self::SplitHorizon => "this peer told it",
            Self::NoPath => "there is no usable path",
            Self::NoPolicy => "the peer is external and has no export filter (RFC 8212)",
            Self::FamilyOff => "the session does not carry this family",
        })
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "has no session yet",
            Self::EndOfRib => "has not sent End-of-RIB",
            Self::Quiet => "still sends routes",
        })
    }
}
