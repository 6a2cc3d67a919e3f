//! Aggregate routes: announced while something inside them is there.
//!
//! Each family counts, for each aggregate, the destinations inside it that have a best path. A count that leaves or
//! reaches zero makes the route come or go when the input that moved it is done.

use bird_packet::{AttrBuilder, Origin};

use crate::config::{Config, OriginTarget};
use crate::rib::attrs::Standing;
use crate::rib::net::Net;
use crate::rib::nexthop::NhId;
use crate::rib::routes::Rib;
use crate::rib::table::{DestId, Path, source};
use crate::speaker::Speaker;

/// The aggregates of one family.
#[derive(Debug)]
pub(crate) struct Aggregates<N> {
    entries: Vec<Entry<N>>,
    moved: bool,
}

#[derive(Debug)]
struct Entry<N> {
    net: N,
    target: OriginTarget,
    /// Destinations inside that have a best path.
    inside: u32,
    announced: bool,
}

impl<N> Default for Aggregates<N> {
    fn default() -> Self {
        Self { entries: Vec::new(), moved: false }
    }
}

impl<N: Net> Aggregates<N> {
    /// A destination got its first best path, or lost its last.
    #[inline]
    pub(crate) fn count(&mut self, net: N, comes: bool) {
        for entry in &mut self.entries {
            if entry.net.bits() < net.bits() && entry.net.contains(net) {
                entry.inside = if comes { entry.inside + 1 } else { entry.inside - 1 };
                self.moved |= entry.announced != (entry.inside > 0);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Those that come and go now: prefix, target, whether it comes.
    fn turn(&mut self) -> Vec<(N, OriginTarget, bool)> {
        if !std::mem::take(&mut self.moved) {
            return Vec::new();
        }
        let due = self.entries.iter_mut().filter(|e| e.announced != (e.inside > 0));
        due.map(|e| {
            e.announced = !e.announced;
            (e.net, e.target, e.announced)
        })
        .collect()
    }
}

impl<N: Net> Rib<N> {
    /// Takes the aggregates of a configuration; returns those that are no more.
    fn configure_aggregates(&mut self, config: &Config) -> Vec<N> {
        let wanted: Vec<(N, OriginTarget)> = config
            .aggregates
            .iter()
            .filter_map(|a| Some((N::from_ipnet(a.prefix.trunc())?, a.target())))
            .collect();
        let announced = self.aggregates.entries.iter().filter(|e| e.announced).map(|e| e.net);
        let gone = announced.filter(|net| wanted.iter().all(|(w, _)| w != net)).collect();
        let entry = |(net, target): (N, OriginTarget)| Entry { net, target, inside: 0, announced: false };
        self.aggregates = Aggregates { entries: wanted.into_iter().map(entry).collect(), moved: false };
        if !self.aggregates.is_empty() {
            let counts = |id: &DestId| self.table.best(*id).is_some();
            let nets: Vec<N> = self.table.dest_ids().filter(counts).map(|id| self.table.net(id)).collect();
            for net in nets {
                self.aggregates.count(net, true);
            }
        }
        gone
    }
}

impl Speaker {
    /// Takes the aggregates of the configuration in force, and counts anew.
    pub(crate) fn configure_aggregates(&mut self) {
        let config = self.config.clone();
        for net in self.v4.configure_aggregates(&config) {
            self.v4.withdraw_origin(&mut self.core, net);
        }
        for net in self.v6.configure_aggregates(&config) {
            self.v6.withdraw_origin(&mut self.core, net);
        }
    }

    /// Announces and withdraws what the last input moved. One aggregate may be inside another.
    pub(crate) fn settle_aggregates(&mut self) {
        loop {
            let (v4, v6) = (self.v4.aggregates.turn(), self.v6.aggregates.turn());
            if v4.is_empty() && v6.is_empty() {
                return;
            }
            for (net, target, comes) in v4 {
                if comes {
                    let path = self.aggregate_path(target);
                    self.v4.originate(&mut self.core, net, path);
                } else {
                    self.v4.withdraw_origin(&mut self.core, net);
                }
            }
            for (net, target, comes) in v6 {
                if comes {
                    let path = self.aggregate_path(target);
                    self.v6.originate(&mut self.core, net, path);
                } else {
                    self.v6.withdraw_origin(&mut self.core, net);
                }
            }
        }
    }

    /// An aggregate hides the paths inside it, and says so (RFC 4271 §5.1.6, §5.1.7).
    fn aggregate_path(&mut self, target: OriginTarget) -> Path {
        let local = self.config.local;
        let mut builder = AttrBuilder::new();
        builder
            .origin(Origin::Igp)
            .as_path(&[])
            .atomic_aggregate(true)
            .aggregator(local.asn, local.router_id);
        let attr = self.own_attr(&builder, NhId::NONE, Standing::Static);
        let number = self.origin_number(target, 0);
        Path { attr, rx_id: number, slot: 0, peer: source::STATIC, epoch: 0, flags: 0 }
    }
}
