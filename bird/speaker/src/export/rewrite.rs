//! What a route looks like when it leaves: AS path, LOCAL_PREF, reflection attributes, next hop.

use std::net::{IpAddr, Ipv4Addr};

use bird_packet::attr::community;
use bird_packet::{AttrBuilder, Family, NextHop};

use super::verdict::{GroupKey, LongLivedTo, View};
use crate::config::NextHopMode;
use crate::rib::attrs::{AttrId, DecisionKey, flag};
use crate::rib::net::Net;
use crate::rib::nexthop::NhId;
use crate::rib::table::{PeerIndex, source};

impl<N: Net> View<'_, N> {
    /// The next hop that the peers of a group are told; `None`: there is none that the session can carry.
    #[inline]
    pub(crate) fn next_hop(&self, group: &GroupKey, key: &DecisionKey) -> Option<NextHop> {
        let keep = match group.next_hop {
            NextHopMode::Auto => group.internal,
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
        };
        if keep && key.next_hop != NhId::NONE {
            // RFC 2545 §3: the link-local address is only for neighbours on that link; those are not told second-hand.
            let kept = self.store.next_hops.addr(key.next_hop).address;
            if Self::can_carry(group, kept) {
                return Some(kept.into());
            }
        }
        let own = match N::FAMILY {
            Family::Ipv4Unicast => group.self_v4.map(IpAddr::V4).or(group
                .self_v6
                .filter(|_| group.ctx.family(Family::Ipv4Unicast).ext_nexthop)
                .map(IpAddr::V6)),
            Family::Ipv6Unicast => group.self_v6.map(IpAddr::V6),
        };
        own.map(NextHop::from)
    }

    fn can_carry(group: &GroupKey, next_hop: IpAddr) -> bool {
        match (N::FAMILY, next_hop) {
            (Family::Ipv4Unicast, IpAddr::V4(_)) => true,
            (Family::Ipv4Unicast, IpAddr::V6(a)) => {
                group.ctx.family(Family::Ipv4Unicast).ext_nexthop && !a.is_unicast_link_local()
            }
            (Family::Ipv6Unicast, IpAddr::V6(a)) => !a.is_unicast_link_local(),
            (Family::Ipv6Unicast, IpAddr::V4(_)) => false,
        }
    }

    /// Writes the canonical attributes that leave, and says the next hop. `own_as_done`: policy put our AS in front already.
    pub(crate) fn rewrite(
        &self,
        group: &GroupKey,
        attr: AttrId,
        from: PeerIndex,
        own_as_done: bool,
        out: &mut Vec<u8>,
    ) -> Option<NextHop> {
        let key = self.store.attrs.key(attr);
        let next_hop = self.next_hop(group, key)?;
        let mut builder = AttrBuilder::from_set(self.store.attrs.attrs(attr));
        let learned = from >= source::FIRST_PEER;
        if group.internal {
            builder.local_pref(Some(key.local_pref));
            let peer = self.source(from);
            if learned && peer.internal && peer.local_as == group.local_as {
                // RFC 4456 §8.
                builder.originator_id_if_absent(Ipv4Addr::from_bits(peer.router_id));
                builder.prepend_cluster_id(Ipv4Addr::from_bits(group.cluster_id));
            }
        } else {
            builder.for_external();
            if learned {
                // RFC 4271 §5.1.4: MED of one neighbouring AS is not for others.
                builder.med(None);
            }
            if let Some(peer_as) = group.as_override {
                builder.replace_as(peer_as, group.local_as);
            }
            if group.remove_private_as {
                builder.remove_private_as(own_as_done.then_some(group.local_as));
            }
            if !own_as_done {
                builder.prepend(group.local_as, 1);
            }
        }
        if group.long_lived == LongLivedTo::Lowered && key.has(flag::LLGR_STALE) {
            builder.local_pref(Some(0)).add_community(community::NO_EXPORT);
        }
        if group.graceful_shutdown {
            builder.add_community(community::GRACEFUL_SHUTDOWN);
        }
        builder.write(out).ok()?;
        Some(next_hop)
    }
}
