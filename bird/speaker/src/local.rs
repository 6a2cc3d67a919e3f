//! This node's own routes: what the configuration originates, and what the kernel has from others.

use std::collections::BTreeMap;

use bird_packet::{AttrBuilder, Origin, Prefix4, Prefix6};

use crate::config::{Config, ExportRules, OriginTarget, Originated};
use crate::fib::local_pref_of_metric;
use crate::io::{LocalRoute, LocalRouteKey, LocalSource, Time};
use crate::policy::glob;
use crate::rib::attrs::{AttrId, Standing};
use crate::rib::net::{Net, prefix_of};
use crate::rib::nexthop::{NextHopAddr, NhId};
use crate::rib::routes::{Core, Rib};
use crate::rib::table::{Path, source};
use crate::speaker::Speaker;

/// Metric of an ordinary route of a family, if this is a node.
fn normal_metric(rules: &ExportRules, v4: bool) -> Option<u32> {
    match rules {
        ExportRules::AcceptAll => None,
        ExportRules::Node(node) if v4 => Some(node.normal_metric_v4),
        ExportRules::Node(node) => Some(node.normal_metric_v6),
    }
}

impl Speaker {
    /// Brings the originated routes to what the configuration says.
    pub(crate) fn originate(&mut self, old: &Config, new: &Config) {
        let key = |o: &Originated| prefix_of(o.prefix);
        let before: BTreeMap<_, &Originated> = old.originated.iter().map(|o| (key(o), o)).collect();
        let after: BTreeMap<_, &Originated> = new.originated.iter().map(|o| (key(o), o)).collect();
        let rules_changed =
            [true, false].map(|v4| normal_metric(&old.export, v4) != normal_metric(&new.export, v4));
        // Targets are numbered by the path's identifier; the numbers are made anew, paths that stay keep theirs.
        for prefix in before.keys().filter(|p| !after.contains_key(p)) {
            if let Some(net) = Prefix4::from_prefix(*prefix) {
                self.v4.withdraw_origin(&mut self.core, net);
            } else if let Some(net) = Prefix6::from_prefix(*prefix) {
                self.v6.withdraw_origin(&mut self.core, net);
            }
        }
        for (prefix, origin) in &after {
            let v4 = Prefix4::from_prefix(*prefix).is_some();
            let same = before.get(prefix) == Some(origin) && !rules_changed[usize::from(!v4)];
            if same {
                continue;
            }
            let metric = origin.metric.unwrap_or(if v4 || matches!(origin.target, OriginTarget::Via(_)) {
                0
            } else {
                1024
            });
            let number = self.origin_number(origin.target, metric);
            let attr = self.local_attr(normal_metric(&new.export, v4), None, Standing::Static);
            let path = Path { attr, rx_id: number, slot: 0, peer: source::STATIC, epoch: 0, flags: 0 };
            if let Some(net) = Prefix4::from_prefix(*prefix) {
                self.v4.originate(&mut self.core, net, path);
            } else if let Some(net) = Prefix6::from_prefix(*prefix) {
                self.v6.originate(&mut self.core, net, path);
            }
        }
    }

    /// The number of a target with a metric: equal ones share it.
    pub(crate) fn origin_number(&mut self, target: OriginTarget, metric: u32) -> u32 {
        let origins = &mut self.core.kernel.origins;
        let at = origins.iter().position(|o| *o == (target, metric)).unwrap_or_else(|| {
            origins.push((target, metric));
            origins.len() - 1
        });
        crate::rib::index32(at)
    }

    /// Attributes of a local route: ORIGIN IGP, empty path, LOCAL_PREF by its metric.
    fn local_attr(
        &mut self,
        metric: Option<u32>,
        gateway: Option<std::net::IpAddr>,
        standing: Standing,
    ) -> AttrId {
        let mut builder = AttrBuilder::new();
        builder.origin(Origin::Igp).as_path(&[]);
        if let Some(metric) = metric {
            builder.local_pref(Some(local_pref_of_metric(metric)));
        }
        let next_hop = match gateway {
            Some(address) => self.core.store.next_hops.intern(NextHopAddr { local: true, ..address.into() }),
            None => NhId::NONE,
        };
        self.own_attr(&builder, next_hop, standing)
    }

    /// Interns attributes that are made here.
    pub(crate) fn own_attr(
        &mut self,
        builder: &AttrBuilder<'_>,
        next_hop: NhId,
        standing: Standing,
    ) -> AttrId {
        self.scratch.clear();
        builder.write(&mut self.scratch).expect("invariant: a few short attributes fit");
        self.core.store.intern(&self.scratch, next_hop, standing)
    }

    pub(crate) fn on_local_route(&mut self, route: LocalRoute) {
        let Some(number) = self.core.locals.put(route.clone()) else { return };
        let ignored = route.key.source == LocalSource::Connected
            && self.config.ignored_interfaces.iter().any(|p| glob(p, &route.key.interface));
        if !ignored {
            self.put_local(number, &route);
        }
    }

    /// (Re)makes the path of a local route.
    pub(crate) fn put_local(&mut self, number: u32, route: &LocalRoute) {
        let prefix = prefix_of(route.key.prefix);
        let v4 = Prefix4::from_prefix(prefix).is_some();
        // A route without a metric of its own is an ordinary one.
        let normal = normal_metric(&self.config.export, v4);
        let metric = normal.map(|normal| match (route.key.source, route.key.metric) {
            (LocalSource::Connected, _) | (_, 0) => normal,
            (LocalSource::Kernel, metric) => metric,
        });
        let standing = match route.key.source {
            LocalSource::Connected => Standing::Connected,
            LocalSource::Kernel => Standing::Kernel { normal: normal.map_or(0, local_pref_of_metric) },
        };
        let attr = self.local_attr(metric, route.gateway, standing);
        let path = Path { attr, rx_id: number, slot: 0, peer: source::LOCAL, epoch: 0, flags: 0 };
        if let Some(net) = Prefix4::from_prefix(prefix) {
            self.v4.announce(&mut self.core, net, path, None);
        } else if let Some(net) = Prefix6::from_prefix(prefix) {
            self.v6.announce(&mut self.core, net, path, None);
        }
    }

    pub(crate) fn on_local_route_gone(&mut self, key: &LocalRouteKey) {
        let Some(number) = self.core.locals.take(key) else { return };
        let prefix = prefix_of(key.prefix);
        if let Some(net) = Prefix4::from_prefix(prefix) {
            self.v4.withdraw(&mut self.core, net, source::LOCAL, number);
        } else if let Some(net) = Prefix6::from_prefix(prefix) {
            self.v6.withdraw(&mut self.core, net, source::LOCAL, number);
        }
        self.core.locals.free(number);
    }

    pub(crate) fn on_local_routes_complete(&mut self, now: Time) {
        self.core.hold_eor = false;
        self.v4.wake_all();
        self.v6.wake_all();
        self.check_restart(now);
    }
}

impl<N: Net> Rib<N> {
    pub(crate) fn originate(&mut self, core: &mut Core, net: N, path: Path) {
        self.withdraw_origin_unless(core, net, Some(path.rx_id));
        self.announce(core, net, path, None);
    }

    pub(crate) fn withdraw_origin(&mut self, core: &mut Core, net: N) {
        self.withdraw_origin_unless(core, net, None);
    }

    /// There is at most one originated path for a prefix; its number says what the kernel shall do.
    fn withdraw_origin_unless(&mut self, core: &mut Core, net: N, keep: Option<u32>) {
        let Some(id) = self.table.find(net) else { return };
        let old = self.table.paths(id).iter().find(|p| p.peer == source::STATIC).map(|p| p.rx_id);
        if let Some(number) = old.filter(|n| Some(*n) != keep) {
            self.withdraw(core, net, source::STATIC, number);
        }
    }
}
