//! New passwords for connections that run: set on the socket, so that a session lives on when both ends change theirs
//! within its hold time. What TCP sent meanwhile it sends again.

use std::net::IpAddr;

use bird_speaker::Input;
use bird_speaker::io::{Command, ConnId};
use ipnet::IpNet;

use super::Engine;
use crate::plan::{Plan, Secret};
use crate::sock;

impl Engine {
    /// Gives every connection the key that the plan has for it now, where `old` had another. A session that had no key,
    /// or has none any more, is the speaker's to reset.
    pub(super) fn change_keys(&mut self, old: &Plan) {
        let Some(plan) = &self.plan else { return };
        let changed: Vec<(ConnId, IpAddr, Secret)> = self
            .conns
            .values()
            .filter_map(|conn| {
                let address = conn.remote.ip();
                let (was, is) = (key_of(old, address)?, key_of(plan, address)?);
                (was != is).then(|| (conn.id, address, is.clone()))
            })
            .collect();
        for (id, address, key) in changed {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if let Some(dialled) = &mut conn.dialled {
                dialled.md5 = Some(key.0.clone());
            }
            match sock::set_md5(&conn.stream, IpNet::from(address), Some(&key.0)) {
                Ok(()) => {
                    tracing::info!(peer = %address, "a session has its new password; the other end needs it within the hold time");
                }
                Err(err) => {
                    tracing::warn!(peer = %address, %err, "a session cannot take its new password; it is made anew");
                    self.reset_address(address);
                }
            }
        }
    }

    fn reset_address(&mut self, address: IpAddr) {
        let names = self.plan.iter().flat_map(|p| &p.config.peers).filter(|p| p.address == address);
        for peer in names.map(|p| p.name.clone()).collect::<Vec<_>>() {
            self.pass(Input::Command(Command::Reset { peer }));
        }
    }
}

/// The key for whoever is at this address: its own, else that of its range.
fn key_of(plan: &Plan, address: IpAddr) -> Option<&Secret> {
    if let Some(peer) = plan.config.peers.iter().find(|p| p.address == address) {
        return plan.passwords.get(&peer.name);
    }
    let ranges = plan.range_passwords.iter().filter(|(net, _)| net.contains(&address));
    ranges.max_by_key(|(net, _)| net.prefix_len()).map(|(_, key)| key)
}
