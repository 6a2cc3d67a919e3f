use std::collections::BTreeSet;
use std::net::UdpSocket;

use caracal_netlink::conntrack::Conntrack;

use crate::lab::{Space, ip};

/// Sends a datagram from `from` to `to`, so that the tracker has an entry for it.
fn flow(space: &Space, from: &str, to: &str) {
    space
        .netns()
        .run(|| {
            let join = |a: &str, port: u16| std::net::SocketAddr::new(ip(a), port);
            UdpSocket::bind(join(from, 0)).unwrap().send_to(b"x", join(to, 9)).unwrap();
        })
        .unwrap();
}

#[test]
fn connections_of_an_address_are_forgotten_and_no_others() {
    let Some(space) = Space::new("conntrack") else { return };
    space.pair("a", "b", Some("10.0.0.1/24"));
    space.ip("addr add 10.0.0.2/24 dev a");
    space.ip("addr add fd00::1/64 dev a nodad");
    // The tracker is idle in a namespace until a rule asks for it.
    space.exec("nft add table inet t");
    space.exec("nft add chain inet t out { type filter hook output priority 0 ; }");
    space.exec("nft add rule inet t out ct state new counter");
    // Replies of this one come from elsewhere: it is found by its reply address only.
    space.exec("nft add table ip n");
    space.exec("nft add chain ip n out { type nat hook output priority -100 ; }");
    space.exec("nft add rule ip n out ip daddr 10.0.0.60 dnat to 10.0.0.61");

    flow(&space, "10.0.0.1", "10.0.0.50");
    flow(&space, "10.0.0.2", "10.0.0.51");
    flow(&space, "10.0.0.2", "10.0.0.60");
    flow(&space, "10.0.0.2", "10.0.0.52");
    flow(&space, "fd00::1", "fd00::50");
    let list = |family: &str| space.exec(&format!("conntrack -f {family} -L -p udp --dport 9"));
    assert_eq!(list("ipv4").lines().count(), 4);
    assert_eq!(list("ipv6").lines().count(), 1);

    let mut tracker = Conntrack::open_in(&space.path()).unwrap();
    let set = |all: &[&str]| all.iter().map(|a| ip(a)).collect::<BTreeSet<_>>();
    assert_eq!(tracker.delete(&set(&["10.0.0.99", "fd00::99"])).unwrap(), 0);
    assert_eq!(tracker.delete(&set(&["10.0.0.1", "10.0.0.51", "10.0.0.61", "fd00::50"])).unwrap(), 4);
    let left = list("ipv4");
    assert_eq!(left.lines().count(), 1);
    assert!(left.contains("dst=10.0.0.52"), "{left}");
    assert_eq!(list("ipv6").lines().count(), 0);
    assert_eq!(tracker.delete(&BTreeSet::new()).unwrap(), 0);
}
