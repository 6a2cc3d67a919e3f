//! Bad input, a store that goes away, a namespace that vanishes, a prefix that is wiped.

use std::time::Duration;

use crate::lab::{
    BOTH, EMBEDDED, Kind, Space, eventually_true, heard, listen, on_node, status_key, wep, wep_name,
};

#[test]
fn bad_input_costs_its_own_object_only() {
    on_node(BOTH, |node| {
        let (web, db) = (Space::new("web"), Space::new("db"));
        node.put(&wep_name("web"), &wep("web", "caliweb", &["10.0.0.1"], Some(&web.path())));
        node.start_ready();
        node.becomes("web", "up");
        let before = node.host.routes();
        // A good object overwritten by damage: last good stays, the status says why.
        node.put(&wep_name("web"), "null");
        node.becomes("web", "error");
        assert!(
            node.status("web")["reason"].as_str().unwrap().contains("null where an object must be"),
            "{}",
            node.status("web")
        );
        for n in 0..200 {
            node.put_bytes(&wep_name(&format!("bad{n}")), format!("garbage {n} \u{0}").as_bytes());
        }
        let huge = format!("{{\"spec\":{{\"pod\":\"{}\"}}}}", "x".repeat(1_000_000));
        node.put(&wep_name("huge"), &huge);
        node.put_bytes(&wep_name("utf"), &[0xff, 0xfe, b'{']);
        node.put("workloadendpoints/default/nonsense", "{}");
        node.put("ippools/broken", "[1,2");
        node.put("felixconfigurations/default", r#"{"spec":"none"}"#);
        for (pod, iface, address, part) in [
            (
                "long",
                "cali0123456789abcdef",
                "10.0.0.2",
                "spec.interfaceName: \"cali0123456789abcdef\" has 20 characters",
            ),
            ("outside", "caliout", "172.16.0.1", "spec.ipNetworks[0]: 172.16.0.1 is in no IPPool"),
            ("prefix", "eth7", "10.0.0.3", "does not begin with cali"),
            ("twice", "calitwice", "10.0.0.1", "10.0.0.1 belongs to endpoint default/node--1-k8s-web-eth0"),
        ] {
            node.put(&wep_name(pod), &wep(pod, iface, &[address], None));
            node.becomes(pod, "error");
            let status = node.status(pod);
            assert!(status["reason"].as_str().unwrap().contains(part), "{status}");
        }
        node.put(&wep_name("db"), &wep("db", "calidb", &["10.0.0.9"], Some(&db.path())));
        node.becomes("db", "up");
        node.becomes("bad199", "error");
        node.becomes("huge", "error");
        assert!(node.host.ping("10.0.0.1") && web.ping("10.0.0.9"));
        assert_eq!(node.host.routes().len(), before.len() + 1);
        assert!(node.health.readiness().good && node.health.liveness().good);
        // Mended.
        node.put(&wep_name("web"), &wep("web", "caliweb", &["10.0.0.1"], Some(&web.path())));
        node.becomes("web", "up");
    });
}

#[test]
fn a_missing_namespace_is_said_and_awaited() {
    on_node(EMBEDDED, |node| {
        let mut web = Space::new("web");
        let path = web.path();
        web.remove();
        node.put(&wep_name("web"), &wep("web", "caliweb", &["10.0.0.1"], Some(&path)));
        node.start_ready();
        node.becomes("web", "error");
        assert!(
            node.status("web")["reason"].as_str().unwrap().contains("does not exist"),
            "{}",
            node.status("web")
        );
        web.netns = Some(caracal_netlink::netns::create_named(&web.name).unwrap());
        node.becomes("web", "up");
        assert!(node.host.ping("10.0.0.1"));
        web.remove();
        node.becomes("web", "error");
        eventually_true("its route is gone with its link", || node.host.routes().is_empty());
    });
}

#[test]
fn a_store_that_is_away_changes_nothing() {
    on_node(&[Kind::Etcd], |node| {
        let web = Space::new("web");
        node.put(&wep_name("web"), &wep("web", "caliweb", &["10.0.0.1"], Some(&web.path())));
        node.start_ready();
        node.becomes("web", "up");
        let mut monitor = listen();
        node.kill_etcd();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(node.health.readiness().good, "lost at run time: what is programmed stays in force");
        // Drift is repaired without a store.
        node.host.ip("route del 10.0.0.1");
        eventually_true("the route is back", || node.host.routes().len() == 1);
        // A restart without a store writes nothing and is not ready.
        node.stop();
        heard(&mut monitor);
        node.start();
        std::thread::sleep(Duration::from_secs(2));
        let report = node.health.readiness();
        assert!(!report.good && report.text.contains("datastore: "), "{}", report.text);
        assert_eq!(heard(&mut monitor), []);
        assert!(node.host.ping("10.0.0.1"));
        node.restart_etcd();
        let health = node.health.clone();
        eventually_true("felix is ready", || health.readiness().good);
        assert_eq!(heard(&mut monitor), []);
        assert_eq!(node.host.routes().len(), 1);
    });
}

#[test]
fn a_wiped_prefix_is_held_then_obeyed_and_single_deletions_are_not_held() {
    on_node(EMBEDDED, |node| {
        let web = Space::new("web");
        node.environment.insert("endpointlosshold".into(), "4".into());
        for n in 0..30 {
            node.host.ip(&format!(
                "link add cali{n} address ee:ee:ee:ee:ee:ee type veth peer name e{n} netns {}",
                web.name
            ));
            node.host.ip(&format!("link set cali{n} up"));
            web.ip(&format!("link set e{n} up"));
            node.put(
                &wep_name(&format!("w{n}")),
                &wep(&format!("w{n}"), &format!("cali{n}"), &[&format!("10.0.1.{n}")], None),
            );
        }
        node.start_ready();
        for n in 0..30 {
            node.becomes(&format!("w{n}"), "up");
        }
        // Events are obeyed at once, however many.
        for n in 0..5 {
            node.delete(&wep_name(&format!("w{n}")));
        }
        eventually_true("five routes go at once", || node.host.routes().len() == 25);
        // Found missing by a listing: the next felix.
        node.stop();
        for n in 5..28 {
            node.delete(&wep_name(&format!("w{n}")));
        }
        node.start_ready();
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(node.host.routes().len(), 25, "held");
        assert!(node.status("w29")["status"] == "up");
        // A deletion that somebody makes meanwhile is obeyed.
        node.delete(&wep_name("w28"));
        eventually_true("one route goes at once", || node.host.routes().len() == 24);
        eventually_true("the rest goes after the hold", || node.host.routes().len() == 1);
        eventually_true("and its status", || node.get(&status_key("w7")).is_none());
    });
}

#[test]
fn an_empty_store_in_the_place_of_the_old_one_is_not_believed_at_once() {
    on_node(&[Kind::Etcd], |node| {
        let web = Space::new("web");
        node.environment.insert("endpointlosshold".into(), "3".into());
        for n in 0..12 {
            node.host.ip(&format!(
                "link add cali{n} address ee:ee:ee:ee:ee:ee type veth peer name e{n} netns {}",
                web.name
            ));
            node.host.ip(&format!("link set cali{n} up"));
            web.ip(&format!("link set e{n} up"));
            node.put(
                &wep_name(&format!("w{n}")),
                &wep(&format!("w{n}"), &format!("cali{n}"), &[&format!("10.0.1.{n}")], None),
            );
        }
        node.start_ready();
        eventually_true("all are routed", || node.host.routes().len() == 12);
        node.kill_etcd();
        node.replace_etcd();
        let held = "caracal_felix_endpoints_held";
        eventually_true("the loss is seen and held", || node.metric(held) == 12);
        assert_eq!(node.host.routes().len(), 12);
        eventually_true("then obeyed", || node.host.routes().is_empty() && node.metric(held) == 0);
    });
}

#[test]
fn a_pool_deleted_under_its_workloads_is_said_and_takes_nothing() {
    on_node(EMBEDDED, |node| {
        let web = Space::new("web");
        node.put(&wep_name("web"), &wep("web", "caliweb", &["10.0.0.1"], Some(&web.path())));
        node.start_ready();
        node.becomes("web", "up");
        node.delete("ippools/p4");
        node.becomes("web", "error");
        assert!(node.status("web")["reason"].as_str().unwrap().contains("10.0.0.1 is in no IPPool"));
        node.stop();
        node.start_ready();
        assert!(node.host.ping("10.0.0.1"));
        assert_eq!(node.metric("caracal_felix_kernel_writes"), 0);
    });
}
