//! The columns: what is tried with every daemon, and what a daemon is known to lack.

mod basic;
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
        name: "refresh",
        title: "Route refresh (RFC 2918), theirs",
        what: "they ask for our routes again and get them: in the packets",
        quick: false,
        run: session::refresh,
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
];

/// The feature of a name.
pub(crate) fn find(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|f| f.name == name)
}
