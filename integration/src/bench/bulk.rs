//! Many endpoints on one node of the picture: their namespaces or links, their blocks, their objects.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use ipnet::IpNet;

use crate::lab::Namespace;
use crate::picture::Picture;
use crate::seed::{self, Workload};

/// Who makes the links of the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The agent: each endpoint names a network namespace of its own.
    Agent,
    /// This program, beforehand, as a CNI plugin does: the far ends lie in one namespace.
    Plugin,
}

/// First address of the endpoints.
const BASE: u32 = u32::from_be_bytes([10, 100, 0, 0]);
/// Usable addresses taken from each block of 64.
const PER_BLOCK: u32 = 62;

/// Makes `count` endpoints of `node`, without putting them into the datastore; their blocks are put.
pub fn endpoints(
    picture: &mut Picture,
    node: &str,
    count: u32,
    links: Links,
) -> anyhow::Result<Vec<Workload>> {
    let mut blocks = Vec::new();
    for block in 0..count.div_ceil(PER_BLOCK) {
        let network: IpNet = format!("{}/26", Ipv4Addr::from(BASE + 64 * block)).parse()?;
        blocks.extend(seed::block(node, network, &[]));
    }
    picture
        .store
        .put_many(blocks.into_iter().map(|(key, value)| (key, value.to_string().into_bytes())).collect())?;
    let mut workloads = Vec::new();
    for index in 0..count {
        let address = BASE + 64 * (index / PER_BLOCK) + 1 + index % PER_BLOCK;
        let netns = match links {
            Links::Agent => {
                let space = picture.lab.host(&format!("w{index}"))?;
                Some(space.path().to_string_lossy().into_owned())
            }
            Links::Plugin => None,
        };
        workloads.push(Workload {
            pod: format!("bulk-{index}"),
            node: node.into(),
            addresses: vec![Ipv4Addr::from(address).into()],
            interface: format!("cali{:011x}", 0xb0_0000_0000_u64 + u64::from(index)),
            number: 5000 + index,
            netns,
        });
    }
    if links == Links::Plugin {
        let far = picture.lab.host("bulk")?;
        let host = picture.node(node).space.clone();
        run_batch(&host, &picture.lab.file("links.batch"), &link_batch(&workloads, Some(far.name())))?;
    }
    Ok(workloads)
}

/// Lines for `ip -batch` that make the host ends of these workloads' links; the far ends go to `far`, or each to its own
/// namespace.
pub fn link_batch(workloads: &[Workload], far: Option<&str>) -> String {
    let mut text = String::new();
    for (index, workload) in workloads.iter().enumerate() {
        let own = workload.netns.as_deref().and_then(|path| path.rsplit('/').next());
        let (peer, space) = match far {
            Some(space) => (format!("e{index}"), space),
            None => ("eth0".into(), own.unwrap_or_default()),
        };
        let _ = writeln!(
            text,
            "link add {} address ee:ee:ee:ee:ee:ee type veth peer name {peer} netns {space} address {}\nlink set {} up",
            workload.interface,
            workload.mac(),
            workload.interface
        );
    }
    text
}

/// Lines for `ip -batch` that route these workloads as felix does.
pub fn route_batch(workloads: &[Workload]) -> String {
    let mut text = String::new();
    for workload in workloads {
        for address in &workload.addresses {
            let _ = writeln!(
                text,
                "route add {address}/32 dev {} scope link proto 80 metric 1024",
                workload.interface
            );
        }
    }
    text
}

/// A script that sets up the inside of these workloads as felix does, one `ip -batch` for each namespace.
pub fn inside_script(workloads: &[Workload]) -> anyhow::Result<String> {
    let mut text = String::new();
    for workload in workloads {
        let space = workload.netns.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        writeln!(text, "ip -n {space} -batch - <<'END'\nlink set eth0 up")?;
        for address in &workload.addresses {
            writeln!(text, "address add {address}/32 dev eth0")?;
        }
        writeln!(
            text,
            "route add 169.254.1.1 dev eth0 scope link\nroute add default via 169.254.1.1\n\
             neighbour add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent\nEND"
        )?;
    }
    Ok(text)
}

/// Runs `ip -batch` in a namespace.
pub fn run_batch(space: &Namespace, file: &std::path::Path, lines: &str) -> anyhow::Result<()> {
    std::fs::write(file, lines)?;
    space.sh(&format!("ip -batch {}", file.display())).map(drop).context("bench: ip -batch")
}

/// The host routes that these workloads get.
pub fn host_routes(workloads: &[Workload]) -> Vec<IpNet> {
    workloads.iter().flat_map(|w| w.addresses.iter().map(|&a| IpNet::from(a))).collect()
}

/// Key and value of each workload's endpoint.
pub fn objects(workloads: &[Workload]) -> Vec<(String, Vec<u8>)> {
    workloads
        .iter()
        .map(|workload| {
            let (key, value) = workload.endpoint();
            (key, value.to_string().into_bytes())
        })
        .collect()
}
