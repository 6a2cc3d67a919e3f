use std::fs;
use std::path::Path;

use caracal_netlink::{Errno, Family, Netns, netns, sysctl};

use crate::lab::Space;

#[test]
fn a_named_namespace_is_made_compared_and_removed() {
    let Some(space) = Space::new("named") else { return };
    assert!(netns::list_named().unwrap().contains(&space.name));
    let ns = space.netns();
    assert_ne!(ns.id(), Netns::current().unwrap().id());
    assert_eq!(netns::id(&space.path()).unwrap(), ns.id());
    assert_eq!(ns.run(|| Netns::current().unwrap().id()).unwrap(), ns.id());
    assert_eq!(
        format!("net:[{}]\n", ns.id().ino),
        space.exec("readlink /proc/self/ns/net"),
        "the id is the inode that tools show"
    );
    assert!(netns::create_named(&space.name).is_err(), "the name is taken");

    let name = space.name.clone();
    drop(space);
    assert!(!netns::list_named().unwrap().contains(&name));
    netns::delete_named(&name).unwrap();
    // It lives while somebody holds it.
    assert_eq!(ns.run(|| Netns::current().unwrap().id()).unwrap(), ns.id());
}

#[test]
fn what_is_no_network_namespace_is_named_as_such() {
    let Some(_space) = Space::new("wrong") else { return };
    let reason = |path: &str| Netns::open(Path::new(path)).unwrap_err();
    assert!(reason("/proc/self/ns/mnt").to_string().ends_with("is not a network namespace"));
    assert!(reason("/proc/self/status").to_string().ends_with("is not a namespace"));
    assert_eq!(reason("/run/netns/no-such-namespace").errno(), Some(Errno::ENOENT));
    assert!(Netns::named("../escape").is_err());
    let dir = tempfile();
    nix::unistd::mkfifo(&dir, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(reason(dir.to_str().unwrap()).to_string().ends_with("is not a namespace"), "and does not block");
    fs::remove_file(dir).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("caracal-netns-{}", std::process::id()))
}

#[test]
fn a_thread_that_joined_a_namespace_opens_its_connections_there() {
    let Some(space) = Space::new("joined") else { return };
    space.pair("here", "there", None);
    let ns = space.netns();
    let names = std::thread::spawn(move || {
        netns::enter(&ns).unwrap();
        let mut nl = caracal_netlink::Netlink::open().unwrap();
        // It stays there when it is used from elsewhere.
        std::thread::spawn(move || nl.links().unwrap()).join().unwrap()
    })
    .join()
    .unwrap();
    assert!(names.iter().any(|l| l.name == "here"));
}

#[test]
fn a_sysctl_is_that_of_its_namespace_and_written_only_when_it_differs() {
    let Some(space) = Space::new("sysctl") else { return };
    space.pair("cali.dotted", "p", None);
    space
        .netns()
        .run(|| {
            assert!(sysctl::set_for_interface(Family::V4, "cali.dotted", "proxy_arp", "1").unwrap());
            assert!(!sysctl::set_for_interface(Family::V4, "cali.dotted", "proxy_arp", "1").unwrap());
            assert_eq!(
                sysctl::read_for_interface(Family::V4, "cali.dotted", "proxy_arp").unwrap().as_deref(),
                Some("1")
            );
            assert!(sysctl::set_for_neighbours(Family::V4, "cali.dotted", "proxy_delay", "0").unwrap());
            assert!(sysctl::set("ipv4/ip_forward", "1").unwrap());
            assert_eq!(sysctl::read_for_interface(Family::V4, "no-such", "proxy_arp").unwrap(), None);
            let e = sysctl::set_for_interface(Family::V4, "no-such", "proxy_arp", "1").unwrap_err();
            assert!(e.to_string().contains("/proc/sys/net/ipv4/conf/no-such/proxy_arp"), "{e}");
        })
        .unwrap();
    assert_eq!(space.exec("cat /proc/sys/net/ipv4/conf/cali.dotted/proxy_arp").trim(), "1");
    assert_eq!(space.exec("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
}
