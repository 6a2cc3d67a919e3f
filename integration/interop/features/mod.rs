//! The columns: what is tried with every daemon, and what a daemon is known to lack.

mod basic;
mod restart;
mod routes;
mod session;

use crate::cell::Cell;
use crate::peers::Kind;

/// One feature.
pub(crate) struct Feature {
    /// In file names, on the command line and in the results.
    pub(crate) name: &'static str,
    /// In the table.
    pub(crate) title: &'static str,
    /// What is tried and asserted.
    pub(crate) what: &'static str,
    /// Part of the quick run.
    pub(crate) quick: bool,
    pub(crate) run: fn(&mut Cell) -> anyhow::Result<()>,
    /// Why a daemon cannot take part.
    pub(crate) lacks: fn(Kind) -> Option<&'static str>,
}

fn nobody(_: Kind) -> Option<&'static str> {
    None
}

fn without_llgr(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Openbgpd => Some("does not have it"),
        Kind::Exabgp => Some("keeps no table"),
        _ => None,
    }
}

fn without_bfd(kind: Kind) -> Option<&'static str> {
    matches!(kind, Kind::Gobgp | Kind::Openbgpd | Kind::Exabgp).then_some("has no BFD in this version")
}

fn without_own_restart(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Openbgpd).then_some("announces End-of-RIB only, no restart of its own")
}

pub(crate) const FEATURES: &[Feature] = &[
    Feature {
        name: "ebgp",
        title: "eBGP",
        what: "routes both ways with AS paths and next hops, our kernel route, withdrawals both ways",
        quick: true,
        run: basic::ebgp,
        lacks: nobody,
    },
    Feature {
        name: "ibgp",
        title: "iBGP",
        what: "routes both ways, LOCAL_PREF 100, empty AS path; a route learned by iBGP is not passed on by iBGP",
        quick: true,
        run: basic::ibgp,
        lacks: nobody,
    },
    Feature {
        name: "md5",
        title: "TCP MD5 (RFC 2385)",
        what: "a session with a password, routes both ways, the option is in the packets",
        quick: true,
        run: session::md5,
        lacks: nobody,
    },
    Feature {
        name: "md5-wrong",
        title: "TCP MD5, passwords differ",
        what: "calls are made, no session comes up at either end",
        quick: false,
        run: session::md5_wrong,
        lacks: nobody,
    },
    Feature {
        name: "gtsm",
        title: "GTSM (RFC 5082)",
        what: "everything of a session is sent with TTL 255 by both; what arrives with 254 is not taken and the session ends",
        quick: false,
        run: session::gtsm,
        lacks: nobody,
    },
    Feature {
        name: "v6",
        title: "IPv6",
        what: "a session over IPv6 with IPv6 routes both ways, AS path and next hop, our kernel route",
        quick: true,
        run: session::v6,
        lacks: nobody,
    },
    Feature {
        name: "dual",
        title: "IPv4 and IPv6 on one session",
        what: "routes of both families both ways over one IPv4 session, each with a next hop of its family",
        quick: true,
        run: session::dual,
        lacks: nobody,
    },
    Feature {
        name: "refresh-ours",
        title: "Route refresh (RFC 2918), ours",
        what: "we ask for their routes again (`birdc reload in`) and get them: in the packets, by our count, and by theirs where they count; our kernel loses no route",
        quick: false,
        run: session::we_refresh,
        lacks: |kind| (kind == Kind::Exabgp).then_some("hangs up when it is asked"),
    },
    Feature {
        name: "refresh-theirs",
        title: "Route refresh, theirs",
        what: "they ask for our routes again and get them: in the packets, by our count, and by theirs where they count",
        quick: false,
        run: session::they_refresh,
        lacks: |kind| {
            (kind == Kind::Gobgp)
                .then_some("keeps what it heard and never asks: `softresetin` only applies its policy again")
        },
    },
    Feature {
        name: "as4",
        title: "4-octet AS (RFC 6793)",
        what: "AS 4200000001, 4200000002 and, behind theirs, 4200000003: AS paths at both ends and through them",
        quick: false,
        run: session::as4,
        lacks: nobody,
    },
    Feature {
        name: "communities",
        title: "Communities, large and extended (RFC 1997, 8092, 4360)",
        what: "all three kinds from one of theirs through ours to another of theirs; communities and large ones set by ours",
        quick: false,
        run: routes::communities,
        lacks: nobody,
    },
    Feature {
        name: "rr-ours",
        title: "Route reflection (RFC 4456), we reflect",
        what: "two of theirs are clients of ours: ORIGINATOR_ID, CLUSTER_LIST, next hop untouched, LOCAL_PREF at both",
        quick: false,
        run: routes::we_reflect,
        lacks: nobody,
    },
    Feature {
        name: "rr-theirs",
        title: "Route reflection, they reflect",
        what: "two of ours are clients of theirs: ORIGINATOR_ID, CLUSTER_LIST, next hop untouched, our kernel route",
        quick: false,
        run: routes::they_reflect,
        lacks: |kind| (!kind.is_router()).then_some("keeps no table and passes nothing on"),
    },
    Feature {
        name: "8950",
        title: "IPv4 over IPv6 next hops (RFC 8950)",
        what: "IPv4 routes both ways on an IPv6 session, IPv6 next hops at both ends, our kernel route `via inet6`",
        quick: false,
        run: routes::next_hop_6,
        lacks: |kind| (kind == Kind::Openbgpd).then_some("does not have it in this version"),
    },
    Feature {
        name: "add-path-out",
        title: "ADD-PATH (RFC 7911), we send",
        what: "two paths of a prefix from two neighbours of ours arrive at theirs; one goes, the other stays",
        quick: false,
        run: routes::add_path_out,
        lacks: nobody,
    },
    Feature {
        name: "add-path-in",
        title: "ADD-PATH, they send",
        what: "two paths of a prefix arrive at ours (from two neighbours of theirs; ExaBGP tells two of its own); one goes, the other stays",
        quick: false,
        run: routes::add_path_in,
        lacks: nobody,
    },
    Feature {
        name: "gr-ours",
        title: "Graceful restart (RFC 4724), we restart",
        what: "ours is killed and back after more than 1.5 s: their route of ours stays, marked as stale where they show it (BIRD does not), then fresh; our kernel loses no route",
        quick: false,
        run: restart::we_restart,
        lacks: |kind| (!kind.is_router()).then_some("keeps no table"),
    },
    Feature {
        name: "gr-theirs",
        title: "Graceful restart, they restart",
        what: "theirs is killed and back after more than 1.5 s: our route of theirs stays, stale, then fresh; our kernel loses no route",
        quick: false,
        run: restart::they_restart,
        lacks: without_own_restart,
    },
    Feature {
        name: "gr-ours-ibgp",
        title: "Graceful restart on iBGP, we restart",
        what: "as on eBGP, inside one AS",
        quick: false,
        run: restart::we_restart_internal,
        lacks: |kind| (!kind.is_router()).then_some("keeps no table"),
    },
    Feature {
        name: "gr-theirs-ibgp",
        title: "Graceful restart on iBGP, they restart",
        what: "as on eBGP, inside one AS",
        quick: false,
        run: restart::they_restart_internal,
        lacks: without_own_restart,
    },
    Feature {
        name: "gr-ours-dual",
        title: "Graceful restart of both families, we restart",
        what: "as with IPv4 alone, with routes of both families on one session",
        quick: false,
        run: restart::we_restart_dual,
        lacks: |kind| (!kind.is_router()).then_some("keeps no table"),
    },
    Feature {
        name: "gr-theirs-dual",
        title: "Graceful restart of both families, they restart",
        what: "as with IPv4 alone, with routes of both families on one session",
        quick: false,
        run: restart::they_restart_dual,
        lacks: without_own_restart,
    },
    Feature {
        name: "gr-bfd-ours",
        title: "Graceful restart with BFD (RFC 5882 §4.3), we restart",
        what: "ours is killed, and our BFD with it, and is back after more than 1.5 s: their route of ours stays, then is fresh; our kernel loses no route",
        quick: false,
        run: restart::we_restart_watched,
        lacks: without_bfd,
    },
    Feature {
        name: "gr-bfd-theirs",
        title: "Graceful restart with BFD, they restart",
        what: "theirs is killed (in BIRD its BFD too, bfdd stays) and back after more than 1.5 s: with `keepRoutes` our route of theirs stays, stale, then fresh; our kernel loses no route",
        quick: false,
        run: restart::they_restart_watched,
        lacks: without_bfd,
    },
    Feature {
        name: "gr-notified",
        title: "Graceful restart after a NOTIFICATION (RFC 8538)",
        what: "the N bit is agreed; they hear nothing for the hold time of 9 s and tell us so, then we them: each time both keep the other's route, stale, then fresh; our kernel loses no route",
        quick: false,
        run: restart::notified,
        lacks: |kind| {
            matches!(kind, Kind::Bird | Kind::Openbgpd | Kind::Exabgp)
                .then_some("does not have it in this version")
        },
    },
    Feature {
        name: "llgr-ours",
        title: "Long-lived graceful restart (RFC 9494), we stay away",
        what: "ours is killed and stays away longer than its restart time of 2 s: their route of ours stays with LLGR_STALE, then is fresh; our kernel loses no route",
        quick: false,
        run: restart::we_stay_away,
        lacks: without_llgr,
    },
    Feature {
        name: "llgr-theirs",
        title: "Long-lived graceful restart, they stay away",
        what: "theirs is killed and stays away longer than its restart time of 2 s: our route of theirs stays as the last resort, \
               another of ours hears it with LLGR_STALE, then both are fresh; our kernel loses no route",
        quick: false,
        run: restart::they_stay_away,
        lacks: without_llgr,
    },
    Feature {
        name: "bfd",
        title: "BFD (RFC 5880, 5881, 5882)",
        what: "100 ms x 3, up at both ends; the path falls silent: no session at either end within 3 s of a hold time of 9 s, no route; it heals: all is back",
        quick: false,
        run: restart::bfd,
        lacks: without_bfd,
    },
    Feature {
        name: "limit-ours",
        title: "Prefix limit, ours",
        what: "five prefixes against a limit of two: our Cease / Maximum Number of Prefixes Reached in the packets, said by ours, no session at theirs",
        quick: false,
        run: routes::our_limit,
        lacks: nobody,
    },
    Feature {
        name: "limit-theirs",
        title: "Prefix limit, theirs",
        what: "five prefixes against their limit of two: their Cease in the packets, its reason said by ours",
        quick: false,
        run: routes::their_limit,
        lacks: |kind| (kind == Kind::Exabgp).then_some("has no limit"),
    },
    Feature {
        name: "ext-message",
        title: "Extended messages (RFC 8654)",
        what: "a route with 1,000 large communities, 12,000 octets of attributes, both ways, and ours through theirs to another of ours",
        quick: false,
        run: routes::extended_message,
        lacks: |kind| {
            matches!(kind, Kind::Gobgp | Kind::Openbgpd)
                .then_some("does not offer the capability in this version")
        },
    },
];

/// The feature of a name.
pub(crate) fn find(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|f| f.name == name)
}
