//! The listening sockets: opened, closed and given their keys as the plan changes.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::engine::Tokens;
use crate::plan::{Plan, Secret};
use crate::{gtsm, sock};

/// Every socket that takes calls.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: Vec<Listener>,
    /// Addresses that could not be opened, with the last reason.
    failed: BTreeMap<SocketAddr, String>,
    wanted: Vec<SocketAddr>,
    keys: BTreeMap<IpNet, Secret>,
    ttl: gtsm::Rules,
}

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    token: Token,
    socket: TcpListener,
    keys: BTreeMap<IpNet, Secret>,
    ttl: gtsm::Rules,
}

impl Listeners {
    /// Follows a plan: opens what is new, closes what is gone, changes keys.
    pub(crate) fn follow(&mut self, plan: &Plan, registry: &Registry, tokens: &mut Tokens) {
        self.wanted.clone_from(&plan.listen);
        self.keys = keys_of(plan);
        self.ttl = gtsm::Rules::of(plan);
        self.open.retain(|l| plan.listen.contains(&l.address));
        self.failed.retain(|address, _| plan.listen.contains(address));
        self.retry(registry, tokens);
    }

    /// Closes everything.
    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }

    /// Opens what is wanted and not open, for example an address that came just now.
    pub(crate) fn retry(&mut self, registry: &Registry, tokens: &mut Tokens) {
        for address in self.wanted.clone() {
            if self.open.iter().any(|l| l.address == address) {
                continue;
            }
            match open(address, registry, tokens.next()) {
                Ok(listener) => {
                    self.failed.remove(&address);
                    self.open.push(listener);
                    tracing::info!(%address, "listening for BGP");
                }
                Err(err) => {
                    let text = err.to_string();
                    if self.failed.get(&address) != Some(&text) {
                        tracing::warn!(%address, err = text, fix = fix(&err), "cannot listen for BGP");
                        self.failed.insert(address, text);
                    }
                }
            }
        }
        for listener in &mut self.open {
            listener.set_keys(&self.keys);
            listener.set_ttl(&self.ttl);
        }
    }

    /// Whether something is wanted that could not be opened.
    pub(crate) fn incomplete(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Takes one call from the listener with this token: the connection, who calls, and whom.
    pub(crate) fn accept(&self, token: Token) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        let listener = self.open.iter().find(|l| l.token == token)?;
        match listener.socket.accept() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            other => Some(other),
        }
    }
}

impl Listener {
    fn set_ttl(&mut self, wanted: &gtsm::Rules) {
        if self.ttl == *wanted {
            return;
        }
        match sock::set_filter(&self.socket, &wanted.program(self.address.is_ipv4())) {
            Ok(()) => self.ttl = wanted.clone(),
            Err(err) => tracing::warn!(
                address = %self.address, %err,
                fix = "nothing to do: accepted sessions have it, only a caller's first packets are not judged",
                "TTL security cannot be set on a listening socket"
            ),
        }
    }

    fn set_keys(&mut self, wanted: &BTreeMap<IpNet, Secret>) {
        let mine = |net: &IpNet| net.addr().is_ipv4() == self.address.is_ipv4();
        let gone: Vec<IpNet> = self.keys.keys().filter(|net| !wanted.contains_key(*net)).copied().collect();
        for net in gone {
            if let Err(err) = sock::set_md5(&self.socket, net, None) {
                tracing::debug!(%net, %err, "a TCP MD5 key stays on the listener");
            }
            self.keys.remove(&net);
        }
        for (net, key) in wanted.iter().filter(|(net, _)| mine(net)) {
            if self.keys.get(net) == Some(key) {
                continue;
            }
            match sock::set_md5(&self.socket, *net, Some(&key.0)) {
                Ok(()) => {
                    self.keys.insert(*net, key.clone());
                }
                Err(err) => tracing::warn!(
                    peer = %net, %err,
                    fix = "the kernel needs CONFIG_TCP_MD5SIG; without it, remove the password on both sides",
                    "a TCP MD5 key cannot be set"
                ),
            }
        }
    }
}

fn open(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<Listener> {
    let mut socket = sock::listen(address)?;
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(Listener { address, token, socket, keys: BTreeMap::new(), ttl: gtsm::Rules::default() })
}

fn keys_of(plan: &Plan) -> BTreeMap<IpNet, Secret> {
    let peers = plan
        .config
        .peers
        .iter()
        .filter(|p| !p.address.is_unspecified())
        .filter_map(|p| Some((IpNet::from(p.address), plan.passwords.get(&p.name)?.clone())));
    peers.chain(plan.range_passwords.iter().map(|(net, key)| (*net, key.clone()))).collect()
}

fn fix(err: &io::Error) -> &'static str {
    match err.kind() {
        io::ErrorKind::AddrInUse => {
            "another BGP speaker runs on this host: stop it, or set listenPort to another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is not on this host yet; it is tried again when it comes"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        _ => "it is tried again",
    }
}
