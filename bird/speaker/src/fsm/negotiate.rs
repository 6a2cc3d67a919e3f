//! OPEN: what we offer, what we accept, and what two OPENs together mean.

use std::time::Duration;

use bird_packet::{
    AddPath, AfiSafi, Capability, ExtendedNextHop, Family, FamilyContext, GrFamily, GracefulRestart,
    LlgrFamily, MAX_LEN, MAX_LEN_EXTENDED, Notification, OpenMessage, PathsLimit, PeerKind, SessionContext,
};

use crate::config::{Local, PeerConfig};

/// What our OPEN says about our own restart.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Restarting {
    /// R bit: we have restarted.
    pub(crate) restarted: bool,
    /// F bit: the kernel kept our routes.
    pub(crate) forwarding_kept: bool,
}

/// A session's terms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terms {
    pub(crate) ctx: SessionContext,
    /// Longest message that we accept.
    pub(crate) max_receive: usize,
    pub(crate) hold: Option<Duration>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) refresh: bool,
    pub(crate) enhanced_refresh: bool,
    pub(crate) restart: Option<PeerRestart>,
    /// The peer knows long-lived stale routes.
    pub(crate) long_lived: Option<PeerLongLived>,
    /// Both sides say that they wait for BFD.
    pub(crate) bfd_strict: bool,
    /// Most paths of a prefix that the peer takes, by family.
    pub(crate) paths_limit: [Option<u16>; 2],
}

/// The peer's graceful restart capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerRestart {
    pub(crate) restarted: bool,
    /// Both sides have the N bit (RFC 8538).
    pub(crate) notification: bool,
    pub(crate) time: Duration,
    /// By family: is it in the capability, and were its routes kept.
    pub(crate) families: [Option<bool>; 2],
}

/// The peer's long-lived graceful restart capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerLongLived {
    /// By family that it asks to be kept: were its routes kept over this restart, and for how long it asks.
    pub(crate) families: [Option<(bool, Duration)>; 2],
}

fn wants(config: &PeerConfig, family: Family) -> bool {
    match family {
        Family::Ipv4Unicast => config.families.ipv4,
        Family::Ipv6Unicast => config.families.ipv6,
    }
}

/// The OPEN that we send.
pub(crate) fn our_open(config: &PeerConfig, local: &Local, restarting: Restarting) -> OpenMessage {
    let families: Vec<Family> = Family::ALL.into_iter().filter(|f| wants(config, *f)).collect();
    let asn = config.effective_local_as(local);
    let mut capabilities: Vec<Capability> =
        families.iter().map(|f| Capability::Multiprotocol((*f).into())).collect();
    capabilities.push(Capability::RouteRefresh);
    if config.extended_next_hop && config.families.ipv4 {
        let family = AfiSafi::from(Family::Ipv4Unicast);
        capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHop { family, next_hop_afi: 2 }]));
    }
    if config.extended_message {
        capabilities.push(Capability::ExtendedMessage);
    }
    let gr = &config.graceful_restart;
    if gr.enabled {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting: restarting.restarted,
            notification: gr.notification,
            restart_time: gr.restart_time.min(4095),
            families: families
                .iter()
                .map(|f| GrFamily { family: (*f).into(), forwarding_kept: restarting.forwarding_kept })
                .collect(),
        }));
    }
    if gr.enabled && gr.long_lived.aware {
        // Without families it says only that we know such routes (RFC 9494 §3).
        let asked = if gr.long_lived.stale_time > 0 { families.as_slice() } else { &[] };
        capabilities.push(Capability::LongLivedGracefulRestart(
            asked
                .iter()
                .map(|f| LlgrFamily {
                    family: (*f).into(),
                    forwarding_kept: restarting.forwarding_kept,
                    stale_time: gr.long_lived.stale_time,
                })
                .collect(),
        ));
    }
    capabilities.push(Capability::FourOctetAs(asn));
    let add_path = config.add_path;
    if add_path.receive || add_path.send {
        capabilities.push(Capability::AddPath(
            families
                .iter()
                .map(|f| AddPath { family: (*f).into(), receive: add_path.receive, send: add_path.send })
                .collect(),
        ));
    }
    if let Some(limit) = add_path.receive_limit.filter(|_| add_path.receive) {
        capabilities.push(Capability::PathsLimit(
            families.iter().map(|f| PathsLimit { family: (*f).into(), limit }).collect(),
        ));
    }
    capabilities.push(Capability::EnhancedRouteRefresh);
    if config.waits_for_bfd() {
        capabilities.push(Capability::BfdStrict);
    }
    OpenMessage { version: 4, asn, hold_time: config.hold_time, router_id: local.router_id, capabilities }
}

/// Judges the peer's OPEN against the configuration.
pub(crate) fn judge(config: &PeerConfig, local: &Local, open: &OpenMessage) -> Result<(), Notification> {
    if config.remote_as != 0 && open.asn != config.remote_as {
        return Err(Notification::new(2, 2)); // Bad Peer AS
    }
    let internal = open.asn == config.effective_local_as(local);
    if internal && config.remote_external {
        return Err(Notification::new(2, 2));
    }
    if internal && open.router_id == local.router_id {
        return Err(Notification::with_data(2, 3, &open.router_id.octets())); // RFC 6286 §2.2
    }
    if !Family::ALL.into_iter().any(|f| wants(config, f) && open.has_family(f)) {
        // RFC 5492 §5: say what is missing.
        let mut data = Vec::new();
        for family in Family::ALL.into_iter().filter(|f| wants(config, *f)) {
            let AfiSafi { afi, safi } = family.into();
            data.extend_from_slice(&[1, 4]);
            data.extend_from_slice(&afi.to_be_bytes());
            data.extend_from_slice(&[0, safi]);
        }
        return Err(Notification::with_data(2, 7, &data));
    }
    Ok(())
}

/// The terms that follow from our configuration and the peer's OPEN, which [`judge`] found good.
pub(crate) fn terms(config: &PeerConfig, local: &Local, open: &OpenMessage) -> Terms {
    let has = |wanted: &Capability| open.capabilities.contains(wanted);
    let internal = open.asn == config.effective_local_as(local);
    let extended = config.extended_message && has(&Capability::ExtendedMessage);
    let mut ctx = SessionContext::new(if internal { PeerKind::Internal } else { PeerKind::External });
    ctx.as4 = open.has_four_octet_as();
    ctx.peer_as = open.asn;
    ctx.enforce_first_as = config.enforce_first_as;
    ctx.reject_as_sets = config.reject_as_sets;
    ctx.max_len = if extended { MAX_LEN_EXTENDED } else { MAX_LEN };
    for family in Family::ALL {
        let enabled = wants(config, family) && open.has_family(family);
        let their_add_path = open.capabilities.iter().find_map(|c| match c {
            Capability::AddPath(list) => list.iter().rev().find(|a| a.family == family.into()).copied(),
            _ => None,
        });
        let ext_nexthop = family == Family::Ipv4Unicast
            && config.extended_next_hop
            && open.capabilities.iter().any(|c| {
                matches!(c, Capability::ExtendedNextHop(list)
                    if list.iter().any(|e| e.family == family.into() && e.next_hop_afi == 2))
            });
        *ctx.family_mut(family) = FamilyContext {
            enabled,
            add_path_rx: enabled && config.add_path.receive && their_add_path.is_some_and(|a| a.send),
            add_path_tx: enabled && config.add_path.send && their_add_path.is_some_and(|a| a.receive),
            ext_nexthop: enabled && ext_nexthop,
        };
    }
    let hold = config.hold_time.min(open.hold_time);
    let restart = open.capabilities.iter().find_map(|c| match c {
        Capability::GracefulRestart(gr) if config.graceful_restart.enabled => Some(PeerRestart {
            restarted: gr.restarting,
            notification: gr.notification && config.graceful_restart.notification,
            time: Duration::from_secs(gr.restart_time.into()),
            families: Family::ALL.map(|family| {
                let listed = gr.families.iter().find(|g| g.family == family.into())?;
                ctx.family(family).enabled.then_some(listed.forwarding_kept)
            }),
        }),
        _ => None,
    });
    // RFC 9494 §3: worth nothing without the graceful restart capability.
    let long_lived = open.capabilities.iter().find_map(|c| match c {
        Capability::LongLivedGracefulRestart(list) if config.graceful_restart.long_lived.aware => {
            restart?;
            Some(PeerLongLived {
                families: Family::ALL.map(|family| {
                    let listed = list.iter().find(|l| l.family == family.into())?;
                    let time = Duration::from_secs(listed.stale_time.into());
                    ctx.family(family).enabled.then_some((listed.forwarding_kept, time))
                }),
            })
        }
        _ => None,
    });
    Terms {
        ctx,
        // A peer that offers extended messages may send them whether or not we do (RFC 8654 §4): only if we said so too.
        max_receive: if config.extended_message { MAX_LEN_EXTENDED } else { MAX_LEN },
        hold: (hold > 0).then(|| Duration::from_secs(hold.into())),
        keepalive: keepalive(config, hold),
        refresh: has(&Capability::RouteRefresh),
        enhanced_refresh: has(&Capability::EnhancedRouteRefresh),
        restart,
        long_lived,
        bfd_strict: config.waits_for_bfd() && has(&Capability::BfdStrict),
        paths_limit: Family::ALL.map(|family| {
            let lists = open.capabilities.iter().filter_map(|c| match c {
                Capability::PathsLimit(list) => Some(list),
                _ => None,
            });
            let said = lists.flatten().rfind(|l| l.family == family.into() && l.limit > 0);
            said.filter(|_| ctx.family(family).add_path_tx).map(|l| l.limit)
        }),
    }
}

/// The keepalive interval under a negotiated hold time.
pub(crate) fn keepalive(config: &PeerConfig, hold: u16) -> Option<Duration> {
    let third = Duration::from_secs(hold.into()) / 3;
    let wanted = config.keepalive.map_or(third, |k| Duration::from_secs(k.into()));
    (hold > 0).then(|| wanted.min(third).max(Duration::from_millis(333)))
}

/// Whether the peer says that it restarted (RFC 4724 §3, R bit).
pub(crate) fn says_restarted(open: &OpenMessage) -> bool {
    open.capabilities.iter().any(|c| matches!(c, Capability::GracefulRestart(gr) if gr.restarting))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Families;

    fn config() -> (PeerConfig, Local) {
        let families = Families { ipv4: true, ipv6: true };
        let config = PeerConfig { remote_as: 65001, families, ..PeerConfig::default() };
        (config, Local { asn: 64512, router_id: "10.0.0.1".parse().unwrap(), cluster_id: None })
    }

    fn their_open() -> OpenMessage {
        let (mut theirs, _) = config();
        theirs.remote_as = 64512;
        let local = Local { asn: 65001, router_id: "10.0.0.2".parse().unwrap(), cluster_id: None };
        our_open(&theirs, &local, Restarting::default())
    }

    #[test]
    fn two_of_us_agree_on_everything() {
        let (config, local) = config();
        let terms = terms(&config, &local, &their_open());
        assert_eq!(terms.ctx.max_len, MAX_LEN_EXTENDED);
        assert!(terms.ctx.families.iter().all(|f| f.enabled && f.add_path_rx && f.add_path_tx));
        assert_eq!(terms.hold, Some(Duration::from_mins(4)));
        assert_eq!(terms.keepalive, Some(Duration::from_secs(80)));
        assert!(terms.refresh && terms.enhanced_refresh);
        assert!(terms.restart.unwrap().notification);
    }

    #[test]
    fn opens_are_judged_by_the_rfc() {
        let (config, local) = config();
        let code = |open: &OpenMessage, config: &PeerConfig| {
            judge(config, &local, open).err().map(|n| (n.code, n.subcode))
        };
        assert_eq!(code(&their_open(), &config), None);
        assert_eq!(code(&OpenMessage { asn: 65002, ..their_open() }, &config), Some((2, 2)));
        // The same identifier is wrong only inside one AS.
        let twin = OpenMessage { router_id: local.router_id, ..their_open() };
        assert_eq!(code(&twin, &config), None);
        let inside = PeerConfig { remote_as: 64512, ..config.clone() };
        assert_eq!(code(&OpenMessage { asn: 64512, ..twin }, &inside), Some((2, 3)));
        let external = PeerConfig { remote_as: 0, remote_external: true, ..config.clone() };
        assert_eq!(code(&their_open(), &external), None);
        assert_eq!(code(&OpenMessage { asn: 64512, ..their_open() }, &external), Some((2, 2)), "our own AS");
        let shown = PeerConfig { local_as: Some(65001), ..external };
        assert_eq!(code(&their_open(), &shown), Some((2, 2)), "the AS that we show there");
        let only_v6 = PeerConfig { families: Families { ipv4: false, ipv6: true }, ..config };
        let only_v4 = OpenMessage { capabilities: Vec::new(), ..their_open() };
        assert_eq!(code(&only_v4, &only_v6), Some((2, 7)));
    }

    #[test]
    fn long_lived_stale_routes_need_both_capabilities() {
        let (mut config, local) = config();
        let of = |config: &PeerConfig, open: &OpenMessage| terms(config, &local, open).long_lived;
        assert_eq!(
            of(&config, &their_open()).unwrap().families,
            [None, None],
            "it knows them and asks for nothing"
        );
        let mut theirs = their_open();
        for capability in &mut theirs.capabilities {
            if let Capability::LongLivedGracefulRestart(list) = capability {
                let family = Family::Ipv6Unicast.into();
                list.push(LlgrFamily { family, forwarding_kept: true, stale_time: 90 });
            }
        }
        let asked = Some((true, Duration::from_secs(90)));
        assert_eq!(of(&config, &theirs).unwrap().families, [None, asked]);
        let mut without = theirs.clone();
        without.capabilities.retain(|c| !matches!(c, Capability::GracefulRestart(_)));
        assert_eq!(of(&config, &without), None, "RFC 9494 §3");
        config.graceful_restart.long_lived.aware = false;
        assert_eq!(of(&config, &theirs), None);
    }

    #[test]
    fn an_old_peer_gets_an_old_session() {
        let (config, local) = config();
        let old = OpenMessage { capabilities: Vec::new(), asn: 65001, hold_time: 3, ..their_open() };
        let terms = terms(&config, &local, &old);
        assert!(!terms.ctx.as4 && !terms.refresh && terms.restart.is_none());
        assert!(terms.ctx.families[0].enabled && !terms.ctx.families[1].enabled);
        assert_eq!(
            (terms.hold, terms.keepalive),
            (Some(Duration::from_secs(3)), Some(Duration::from_secs(1)))
        );
        assert_eq!(terms.ctx.max_len, MAX_LEN);
    }
}
