use std::time::Instant;

use caracal_netlink::{Address, Errno, Mac, Neighbour, NewVeth, Request, SetLink, nud};
use serde_json::json;

use crate::lab::{Space, ip, net};

fn workload(n: usize, peer: &Space) -> NewVeth {
    NewVeth {
        name: format!("cali{n:011x}"),
        host_mac: Some(Mac::WORKLOAD_HOST),
        mtu: Some(1450),
        up: true,
        group: Some(77),
        peer_name: format!("eth{n}"),
        peer_mac: Some(Mac([2, 0, 0, 0, 0, n as u8])),
        peer_netns: Some(peer.netns()),
        ..NewVeth::default()
    }
}

#[test]
fn a_veth_pair_is_born_with_its_peer_in_another_namespace() {
    let Some(host) = Space::new("veth-host") else { return };
    let pod = Space::new("veth-pod").unwrap();
    let mut nl = host.netlink();
    assert_eq!(nl.apply(&[Request::AddLink(workload(1, &pod))]), []);
    let mut inside = pod.netlink();
    let eth = inside.link_by_name("eth1").unwrap().unwrap().index;
    inside.apply_one(Request::SetLink(SetLink::up(eth))).unwrap();

    let near = &host.ip_json("-d link show cali00000000001")[0];
    assert_eq!(near["address"], "ee:ee:ee:ee:ee:ee");
    assert_eq!(near["mtu"], 1450);
    assert_eq!(near["group"], "77");
    assert_eq!(near["linkinfo"]["info_kind"], "veth");
    assert!(near["flags"].as_array().unwrap().contains(&json!("UP")));
    let far = &pod.ip_json("link show eth1")[0];
    assert_eq!(far["address"], "02:00:00:00:00:01");
    assert_eq!(far["mtu"], 1450);
    assert!(far["flags"].as_array().unwrap().contains(&json!("LOWER_UP")));

    let link = nl.link_by_name("cali00000000001").unwrap().unwrap();
    assert_eq!(u64::from(link.index), near["ifindex"].as_u64().unwrap());
    assert_eq!(link.peer_index.map(u64::from), far["ifindex"].as_u64());
    assert!(link.peer_netns.is_some() && link.up && link.running);
    assert_eq!((link.mac, link.mtu, link.group), (Some(Mac::WORKLOAD_HOST), 1450, 77));
    assert_eq!(link.kind, "veth");
    assert_eq!(nl.link_by_index(link.index).unwrap(), Some(link.clone()));
    assert!(nl.links().unwrap().contains(&link));

    // The address and neighbour set-up of a workload, through a connection to its own namespace.
    let gateway = ip("169.254.1.1");
    let failures = inside.apply(&[
        Request::AddAddress(Address::new(eth, net("10.65.0.2/32"))),
        Request::AddAddress(Address::new(eth, net("fd00:65::2/128"))),
        Request::ReplaceNeighbour(Neighbour::permanent(eth, gateway, Mac::WORKLOAD_HOST)),
    ]);
    assert_eq!(failures, []);
    let shown = pod.ip_json("addr show eth1");
    let shown: Vec<_> =
        shown[0]["addr_info"].as_array().unwrap().iter().map(|a| a["local"].clone()).collect();
    assert!(shown.contains(&json!("10.65.0.2")) && shown.contains(&json!("fd00:65::2")), "{shown:?}");
    let v6 = inside.addresses().unwrap().into_iter().find(|a| a.net == net("fd00:65::2/128")).unwrap();
    assert!(v6.nodad && !v6.tentative && v6.index == eth);
    let shown = pod.ip_json("neigh show dev eth1 nud permanent");
    assert_eq!(shown[0]["dst"], "169.254.1.1");
    assert_eq!(shown[0]["lladdr"], "ee:ee:ee:ee:ee:ee");
    let known = inside.neighbours().unwrap();
    assert!(known.contains(&Neighbour::permanent(eth, gateway, Mac::WORKLOAD_HOST)), "{known:?}");

    assert_eq!(inside.apply(&[Request::DelAddress(Address::new(eth, net("10.65.0.2/32")))]), []);
    assert!(!pod.ip("addr show eth1").contains("10.65.0.2"));

    nl.apply_one(Request::DelLink { index: link.index }).unwrap();
    assert_eq!(nl.link_by_name("cali00000000001").unwrap(), None);
    assert_eq!(nl.link_by_index(link.index).unwrap(), None);
    assert!(!pod.ip("link").contains("eth1"), "the peer goes too");
}

#[test]
fn a_proxied_neighbour_is_written_listed_and_removed() {
    let Some(space) = Space::new("proxy") else { return };
    let index = space.pair("a", "b", None);
    let mut nl = space.netlink();
    let entries = [Neighbour::proxy(index, ip("169.254.1.1")), Neighbour::proxy(index, ip("fe80::1234"))];
    assert_eq!(nl.apply(&entries.clone().map(Request::ReplaceNeighbour)), []);
    assert!(space.ip("neigh show proxy").contains("169.254.1.1"));
    assert!(space.ip("-6 neigh show proxy").contains("fe80::1234"));
    let known = nl.neighbours().unwrap();
    assert!(
        entries.iter().all(|e| known.iter().any(|k| k.proxy && k.index == index && k.address == e.address))
    );
    assert_eq!(nl.apply(&entries.map(Request::DelNeighbour)), []);
    assert!(!space.ip("neigh show proxy").contains("169.254.1.1"));
    assert!(nl.neighbours().unwrap().iter().all(|n| !n.proxy));
}

#[test]
fn a_neighbour_changes_its_address_and_goes() {
    let Some(space) = Space::new("neigh") else { return };
    let index = space.pair("a", "b", None);
    let mut nl = space.netlink();
    let mut entry = Neighbour::permanent(index, ip("fe80::5"), Mac([2, 0, 0, 0, 0, 1]));
    nl.apply_one(Request::ReplaceNeighbour(entry.clone())).unwrap();
    entry.mac = Some(Mac([2, 0, 0, 0, 0, 2]));
    nl.apply_one(Request::ReplaceNeighbour(entry.clone())).unwrap();
    let shown = space.ip_json("-6 neigh show dev a nud permanent");
    assert_eq!(shown[0]["lladdr"], "02:00:00:00:00:02");
    nl.apply_one(Request::DelNeighbour(entry.clone())).unwrap();
    let left = nl.neighbours().unwrap();
    assert!(!left.iter().any(|n| n.address == entry.address && n.state == nud::PERMANENT));
}

#[test]
fn a_link_is_changed_in_place() {
    let Some(space) = Space::new("setlink") else { return };
    let other = Space::new("setlink-2").unwrap();
    let index = space.pair("a", "b", None);
    let mut nl = space.netlink();
    nl.apply_one(Request::SetLink(SetLink { up: Some(false), ..SetLink::new(index) })).unwrap();
    nl.apply_one(Request::SetLink(SetLink {
        name: Some("renamed".into()),
        mac: Some(Mac([2, 0, 0, 0, 0, 9])),
        mtu: Some(1400),
        group: Some(5),
        alias: Some("who made it".into()),
        ..SetLink::new(index)
    }))
    .unwrap();
    let shown = &space.ip_json("link show renamed")[0];
    assert_eq!((&shown["mtu"], &shown["group"]), (&json!(1400), &json!("5")));
    assert_eq!((&shown["address"], &shown["ifalias"]), (&json!("02:00:00:00:00:09"), &json!("who made it")));
    let link = nl.link_by_index(index).unwrap().unwrap();
    assert!(!link.up && !link.running);
    assert_eq!((link.name.as_str(), link.alias.as_deref()), ("renamed", Some("who made it")));

    nl.apply_one(Request::SetLink(SetLink { netns: Some(other.netns()), ..SetLink::new(index) })).unwrap();
    assert_eq!(nl.link_by_name("renamed").unwrap(), None);
    assert_eq!(other.ip_json("link show renamed")[0]["mtu"], 1400);
}

#[test]
fn a_link_gets_the_index_it_asks_for() {
    let Some(space) = Space::new("index") else { return };
    let mut nl = space.netlink();
    let new = NewVeth { name: "a".into(), peer_name: "b".into(), index: Some(4321), ..NewVeth::default() };
    nl.apply_one(Request::AddLink(new)).unwrap();
    assert_eq!(space.ip_json("link show a")[0]["ifindex"], 4321);
}

#[test]
fn failures_are_matched_to_their_requests_and_the_others_are_done() {
    let Some(space) = Space::new("errors") else { return };
    let index = space.pair("a", "b", None);
    let mut nl = space.netlink();
    let long = NewVeth { name: "sixteen-letters!".into(), peer_name: "x".into(), ..NewVeth::default() };
    // More than one batch, with failures at both ends of one and in the middle of another.
    let mut requests: Vec<Request> = (0..600u32)
        .map(|n| Request::AddAddress(Address::new(index, net(&format!("10.9.{}.{}/32", n / 200, n % 200)))))
        .collect();
    requests[0] = Request::DelLinkGroup(0);
    requests[255] = Request::AddAddress(Address::new(999_999, net("10.8.0.1/32")));
    requests[400] = requests[399].clone();
    requests[599] = Request::AddLink(long);
    let failures = nl.apply_explained(&requests);
    let got: Vec<_> = failures.iter().map(|f| (f.index, f.errno)).collect();
    assert_eq!(got, [(0, Errno::EINVAL), (255, Errno::ENODEV), (400, Errno::EEXIST), (599, Errno::EINVAL)]);
    assert_eq!(space.ip_json("-4 addr show a")[0]["addr_info"].as_array().unwrap().len(), 596);
    // The connection goes on working, and an empty batch is nothing.
    assert_eq!(nl.apply(&[]), []);
    assert_eq!(nl.apply_one(Request::DelLink { index: 999_999 }), Err(Errno::ENODEV));
    assert!(nl.link_by_index(index).unwrap().is_some());
}

#[test]
fn a_name_that_is_taken_fails_with_the_kernels_words() {
    let Some(space) = Space::new("taken") else { return };
    space.pair("a", "b", None);
    let again = NewVeth { name: "a".into(), peer_name: "c".into(), ..NewVeth::default() };
    let failures = space.netlink().apply_explained(&[Request::AddLink(again)]);
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].index, failures[0].errno), (0, Errno::EEXIST));
}

#[test]
fn a_group_of_links_goes_in_one_request_and_no_other_link_with_it() {
    let Some(host) = Space::new("group-host") else { return };
    let pod = Space::new("group-pod").unwrap();
    let mut nl = host.netlink();
    host.pair("keep", "keep2", None);
    let made: Vec<_> = (0..200).map(|n| Request::AddLink(workload(n, &pod))).collect();
    assert_eq!(nl.apply(&made), []);
    assert_eq!(host.ip("-o link show group 77").lines().count(), 200);
    let start = Instant::now();
    assert_eq!(nl.apply(&[Request::DelLinkGroup(77)]), []);
    eprintln!("200 pairs deleted in {:?}", start.elapsed());
    let left: Vec<_> = nl.links().unwrap().into_iter().map(|l| l.name).collect();
    assert_eq!(left, ["lo", "keep2", "keep"]);
    assert!(!pod.ip("link").contains("eth"));
}

#[test]
fn many_links_are_deleted_at_once_and_those_gone_before_are_told() {
    let Some(space) = Space::new("many") else { return };
    let mut nl = space.netlink();
    let mut indices: Vec<u32> =
        (0..60).map(|n| space.pair(&format!("a{n}"), &format!("b{n}"), None)).collect();
    indices[7] = 999_999;
    let start = Instant::now();
    assert_eq!(nl.delete_links(&indices).unwrap(), [(7, Errno::ENODEV)]);
    eprintln!("59 links deleted in {:?}", start.elapsed());
    let left: Vec<_> = nl.links().unwrap().into_iter().map(|l| l.name).collect();
    assert_eq!(left, ["lo", "b7", "a7"]);
    // Few, none, and none that exist.
    let last = nl.link_by_name("a7").unwrap().unwrap().index;
    assert_eq!(nl.delete_links(&[last]).unwrap(), []);
    assert_eq!(nl.delete_links(&[]).unwrap(), []);
    assert_eq!(nl.delete_links(&[7001, 7002, 7003]).unwrap().len(), 3);
    assert_eq!(nl.links().unwrap().len(), 1);
}
