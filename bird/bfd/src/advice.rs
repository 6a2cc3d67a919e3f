//! What a routing protocol does when its BFD session goes down (RFC 5882).

use crate::event::{Cause, Down};

/// Where the routing protocol's own graceful restart with this peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GracefulRestart {
    /// Not negotiated, or not wanted on BFD failures.
    None,
    /// Negotiated, and the session is up.
    Negotiated,
    /// As [`GracefulRestart::Negotiated`], and the operator wants a BFD failure that a restart of the peer may
    /// explain to be taken for one: longer black holes when it was the host, none when it was the program.
    Preferred,
    /// The session is down, and we keep the peer's routes until it is back.
    InProgress,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Go on: this is no failure of the path, or cannot be told from the restart that is under way.
    Ignore,
    /// Close the session and drop the peer's routes; end a graceful restart that is under way.
    CloseAndDrop,
    /// Close the session and keep the peer's routes as a graceful restart does.
    CloseAndKeep,
}

/// RFC 5882 as a table.
///
/// ```text
///  cause                        no GR    negotiated   preferred     restart under way
///  either end AdminDown         ignore   ignore       ignore        ignore              §3.2
///  failure, C bit both ways     drop     drop         drop          drop                §4.3.1
///  failure, C clear somewhere   drop     drop         keep          ignore              §4.3.2
/// ```
pub fn react(down: &Down, restart: GracefulRestart) -> Reaction {
    use GracefulRestart::{InProgress, Preferred};
    match (down.cause, down.control_plane_independent, restart) {
        // "SHOULD NOT indicate a connectivity failure" where the client has a liveness check of its own.
        (Cause::LocalAdminDown | Cause::NeighborAdminDown, _, _) => Reaction::Ignore,
        (_, true, _) => Reaction::CloseAndDrop,
        // "It would be best to avoid aborting any Graceful Restart taking place."
        (_, false, InProgress) => Reaction::Ignore,
        (_, false, Preferred) => Reaction::CloseAndKeep,
        // BFD times out before a restart shows: "a topology change SHOULD be signaled" (§4.3.2.2).
        (_, false, _) => Reaction::CloseAndDrop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Diag;

    #[test]
    fn follows_rfc_5882() {
        use Cause::{DetectionTimeExpired, LocalAdminDown, NeighborAdminDown, NeighborSignaled};
        use GracefulRestart::{InProgress, Negotiated, None, Preferred};
        use Reaction::{CloseAndDrop as Drop, CloseAndKeep as Keep, Ignore};
        let columns = [None, Negotiated, Preferred, InProgress];
        let table = [
            (LocalAdminDown, false, [Ignore, Ignore, Ignore, Ignore]),
            (NeighborAdminDown, false, [Ignore, Ignore, Ignore, Ignore]),
            (NeighborAdminDown, true, [Ignore, Ignore, Ignore, Ignore]),
            (DetectionTimeExpired, true, [Drop, Drop, Drop, Drop]),
            (NeighborSignaled, true, [Drop, Drop, Drop, Drop]),
            (DetectionTimeExpired, false, [Drop, Drop, Keep, Ignore]),
            (NeighborSignaled, false, [Drop, Drop, Keep, Ignore]),
        ];
        for (cause, control_plane_independent, want) in table {
            let silent_for = std::time::Duration::ZERO;
            let down = Down { cause, remote_diag: Diag::NONE, control_plane_independent, silent_for };
            assert_eq!(columns.map(|column| react(&down, column)), want, "{down:?}");
        }
    }
}
