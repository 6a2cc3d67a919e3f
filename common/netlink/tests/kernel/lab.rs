//! Namespaces that go away with the test, and the `ip` command in them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use caracal_netlink::{Netlink, NewVeth, Request, SetLink, netns};
use ipnet::IpNet;
use serde_json::Value;

/// A network namespace named after its test and this process, deleted on drop, also when the test fails.
pub(crate) struct Space {
    pub(crate) name: String,
}

impl Space {
    /// `None` without privileges, where the test has to be skipped; a failure under CI.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            assert!(std::env::var_os("CI").is_none(), "these tests need root");
            eprintln!("skipped: needs root");
            return None;
        }
        let name = format!("nl-{test}-{}", std::process::id());
        netns::delete_named(&name).unwrap();
        let space = Self { name };
        netns::create_named(&space.name).unwrap();
        space.ip("link set lo up");
        Some(space)
    }

    pub(crate) fn path(&self) -> PathBuf {
        netns::named_path(&self.name).unwrap()
    }

    pub(crate) fn netns(&self) -> caracal_netlink::Netns {
        caracal_netlink::Netns::named(&self.name).unwrap()
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.path()).unwrap()
    }

    /// Runs `ip` with these words and returns what it prints.
    pub(crate) fn ip(&self, words: &str) -> String {
        run("ip", &format!("-n {} {words}", self.name))
    }

    /// `ip -j`, decoded.
    pub(crate) fn ip_json(&self, words: &str) -> Value {
        let text = self.ip(&format!("-j {words}"));
        if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
    }

    /// Runs any command inside.
    pub(crate) fn exec(&self, words: &str) -> String {
        run("ip", &format!("netns exec {} {words}", self.name))
    }

    /// A veth pair within this namespace, both ends up, the near one with `address` if given.
    pub(crate) fn pair(&self, near: &str, far: &str, address: Option<&str>) -> u32 {
        let mut nl = self.netlink();
        let new = NewVeth { name: near.into(), peer_name: far.into(), up: true, ..NewVeth::default() };
        nl.apply_one(Request::AddLink(new)).unwrap();
        let peer = nl.link_by_name(far).unwrap().unwrap().index;
        nl.apply_one(Request::SetLink(SetLink::up(peer))).unwrap();
        if let Some(address) = address {
            self.ip(&format!("addr add {address} dev {near} nodad"));
        }
        nl.link_by_name(near).unwrap().unwrap().index
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Err(e) = netns::delete_named(&self.name) {
            eprintln!("left behind: {e}");
        }
    }
}

fn run(program: &str, words: &str) -> String {
    let out = Command::new(program).args(words.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
