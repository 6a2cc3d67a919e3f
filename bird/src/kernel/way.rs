//! The way to a next hop.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bird_speaker::io::{Resolution, ResolvedHop};
use caracal_netlink::RouteKind;
use ipnet::IpNet;

use super::{Effects, Kernel};

impl Kernel {
    /// Takes the routes by a gateway that the configuration makes. They are ours, but lead nowhere by BGP, so next hops
    /// may be reached by them: a peer behind a gateway (`reachableBy`) is the next hop of what it tells.
    pub(crate) fn follow_statics(&mut self, statics: BTreeMap<IpNet, IpAddr>) -> Effects {
        let mut effects = Effects::default();
        if self.statics != statics {
            self.statics = statics;
            let all = self.watched.keys().copied().collect();
            self.answer_again(all, &mut effects);
        }
        effects
    }

    /// Whether a static route of ours leads there.
    pub(super) fn by_gateway(&self, address: IpAddr) -> bool {
        self.statics.keys().any(|net| net.contains(&address))
    }

    /// How `address` is reached: the longest prefix whose best route is usable, among the routes of others and the
    /// static ones of ours.
    ///
    /// Our own learned routes do not count: a next hop that is reached by another BGP route only could lead in a
    /// circle.
    pub(crate) fn resolve(&self, address: IpAddr) -> Resolution {
        if self.has_address(address) {
            return Resolution::Unreachable;
        }
        let found = self.by_others(address);
        let by_gateway = self
            .statics
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len())
            .filter(|(net, _)| found.as_ref().is_none_or(|(length, _)| *length < net.prefix_len()))
            .and_then(|(_, gateway)| self.through(*gateway));
        by_gateway.or(found.map(|(_, resolution)| resolution)).unwrap_or(Resolution::Unreachable)
    }

    /// By way of a gateway, if others' routes lead to it.
    fn through(&self, gateway: IpAddr) -> Option<Resolution> {
        let Some((_, Resolution::Via { mut hops, metric })) = self.by_others(gateway) else { return None };
        for hop in &mut hops {
            hop.gateway.get_or_insert(gateway);
        }
        Some(Resolution::Via { hops, metric })
    }

    /// The way by the routes of others, and the length of the prefix.
    fn by_others(&self, address: IpAddr) -> Option<(u8, Resolution)> {
        let counts = &self.lengths[usize::from(address.is_ipv6())];
        let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
        for length in (0..=longest).rev() {
            if counts[usize::from(length)] == 0 {
                continue;
            }
            let Ok(prefix) = IpNet::new(address, length) else { continue };
            let Some(entries) = self.routes.get(&prefix.trunc()) else { continue };
            let Some(best) = entries.iter().find(|e| self.is_usable(e)) else { continue };
            if best.kind != RouteKind::Unicast {
                return Some((length, Resolution::Unreachable));
            }
            let mut hops: Vec<ResolvedHop> = best
                .hops
                .iter()
                .filter_map(|hop| {
                    let link = self.links.get(&hop.ifindex).filter(|l| l.usable())?;
                    Some(ResolvedHop {
                        gateway: hop.via,
                        ifindex: hop.ifindex,
                        interface: Arc::clone(&link.name),
                    })
                })
                .collect();
            hops.sort();
            return Some((length, Resolution::Via { hops, metric: best.metric }));
        }
        None
    }
}
