//! What a shell asks beside the flow of inputs and outputs: kernel routes as given out, and a nudge when the world
//! became better.

use std::sync::Arc;

use bird_packet::{Prefix4, Prefix6};
use ipnet::IpNet;

use crate::io::{FibRoute, Time};
use crate::rib::index32;
use crate::rib::net::Net;
use crate::rib::routes::Rib;
use crate::rib::table::PeerIndex;
use crate::speaker::Speaker;

/// Where [`Speaker::fib_slice`] goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FibCursor {
    v6: bool,
    next: usize,
}

impl Speaker {
    /// Shows some of the kernel routes that were given out and not taken back, from the cursor on, looking at up to `max`
    /// destinations; false when that were the last. Nothing may be given out between two calls of one walk.
    pub fn fib_slice(&self, at: &mut FibCursor, max: usize, mut each: impl FnMut(IpNet, &FibRoute)) -> bool {
        let done = if at.v6 {
            slice_of(self, &self.v6, &mut at.next, max, &mut each)
        } else {
            slice_of(self, &self.v4, &mut at.next, max, &mut each)
        };
        if done && !at.v6 {
            *at = FibCursor { v6: true, next: 0 };
            return true;
        }
        !done
    }

    /// The kernel route that was given out last for a prefix.
    pub fn fib_route(&self, prefix: IpNet) -> Option<Arc<FibRoute>> {
        match (Prefix4::from_ipnet(prefix), Prefix6::from_ipnet(prefix)) {
            (Some(net), _) => fib_of(self, &self.v4, net),
            (_, Some(net)) => fib_of(self, &self.v6, net),
            _ => None,
        }
    }

    /// Every kernel route that was given out and not taken back.
    pub fn fib_routes(&self) -> impl Iterator<Item = (IpNet, Arc<FibRoute>)> + '_ {
        all_fib(self, &self.v4).chain(all_fib(self, &self.v6))
    }

    /// A link or an address came up: peers that wait between two attempts are called now.
    pub fn wake(&mut self, now: Time) {
        self.now = self.now.max(now);
        let now = self.now;
        let waiting: Vec<PeerIndex> = self
            .peers
            .iter()
            .flatten()
            .filter(|p| p.is_called() && p.conns.is_empty() && !p.held_down)
            .map(|p| p.index)
            .collect();
        for index in waiting {
            if let Some(peer) = self.peer_mut(index) {
                peer.idle_until = None;
                peer.failures = 0;
                peer.error_wait = peer.config.error_wait.0;
            }
            self.dial(now, index);
        }
        self.settle(now);
    }
}

fn slice_of<N: Net>(
    speaker: &Speaker,
    rib: &Rib<N>,
    next: &mut usize,
    max: usize,
    each: &mut impl FnMut(IpNet, &FibRoute),
) -> bool {
    let bound = rib.table.dest_bound();
    let stop = bound.min(next.saturating_add(max));
    for id in *next..stop {
        let id = index32(id);
        if let Some(route) = speaker.core.fib_routes.get(rib.table.fib(id)) {
            each(rib.table.net(id).to_ipnet(), route);
        }
    }
    *next = stop;
    stop == bound
}

fn fib_of<N: Net>(speaker: &Speaker, rib: &Rib<N>, net: N) -> Option<Arc<FibRoute>> {
    speaker.core.fib_routes.route(rib.table.fib(rib.table.find(net)?))
}

fn all_fib<'a, N: Net>(
    speaker: &'a Speaker,
    rib: &'a Rib<N>,
) -> impl Iterator<Item = (IpNet, Arc<FibRoute>)> + 'a {
    rib.table.dest_ids().filter_map(move |id| {
        let route = speaker.core.fib_routes.route(rib.table.fib(id))?;
        Some((rib.table.net(id).to_ipnet(), route))
    })
}
