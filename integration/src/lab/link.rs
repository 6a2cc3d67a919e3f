//! Wires of the lab: loopback, bridges, pairs, addresses. By rtnetlink, so that the demo needs no `ip`.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::Namespace;

/// Brings loopback up.
pub(super) fn loopback_up(space: &Namespace) -> anyhow::Result<()> {
    with(space, async |handle| up(&handle, "lo").await)
}

impl Namespace {
    /// Makes a bridge and brings it up.
    pub fn bridge(&self, name: &str) -> anyhow::Result<()> {
        let name = name.to_owned();
        with(self, async move |handle| {
            handle.link().add(LinkBridge::new(&name).up().build()).execute().await?;
            Ok(())
        })
        .with_context(|| format!("lab: bridge in {}", self.name()))
    }

    /// Makes a pair: `name` here, `peer_name` in `peer`; both up. `master` is a bridge here to plug into.
    pub fn wire(
        &self,
        name: &str,
        peer: &Namespace,
        peer_name: &str,
        master: Option<&str>,
    ) -> anyhow::Result<()> {
        let (name, far, master) = (name.to_owned(), peer_name.to_owned(), master.map(String::from));
        let there = File::open(peer.path())?;
        with(self, async move |handle| {
            let peer =
                LinkMessageBuilder::<LinkUnspec>::new().name(far).setns_by_fd(there.as_raw_fd()).build();
            let pair = LinkMessageBuilder::<LinkVeth>::new(&name, "unused")
                .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
                .build();
            handle.link().add(pair).execute().await?;
            if let Some(master) = master {
                let (port, bridge) = (index(&handle, &name).await?, index(&handle, &master).await?);
                handle
                    .link()
                    .set(LinkUnspec::new_with_index(port).controller(bridge).build())
                    .execute()
                    .await?;
            }
            up(&handle, &name).await
        })
        .with_context(|| format!("lab: wire from {}", self.name()))?;
        peer.set_up(peer_name)
    }

    /// Brings a link up.
    pub fn set_up(&self, link: &str) -> anyhow::Result<()> {
        let link = link.to_owned();
        with(self, async move |handle| up(&handle, &link).await)
    }

    /// Takes a link down.
    pub fn set_down(&self, link: &str) -> anyhow::Result<()> {
        let link = link.to_owned();
        with(self, async move |handle| {
            let index = index(&handle, &link).await?;
            handle.link().set(LinkUnspec::new_with_index(index).down().build()).execute().await?;
            Ok(())
        })
    }

    /// Adds an address to a link.
    pub fn address(&self, link: &str, address: IpNet) -> anyhow::Result<()> {
        let name = link.to_owned();
        with(self, async move |handle| {
            let link = index(&handle, &name).await?;
            handle.address().add(link, address.addr(), address.prefix_len()).execute().await?;
            Ok(())
        })
        .with_context(|| format!("lab: address {address} in {}", self.name()))
    }

    /// Adds an IPv4 default route.
    pub fn default_route(&self, via: Ipv4Addr) -> anyhow::Result<()> {
        with(self, async move |handle| {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(via).build();
            handle.route().add(route).execute().await?;
            Ok(())
        })
        .with_context(|| format!("lab: default route via {} in {}", IpAddr::V4(via), self.name()))
    }
}

/// Runs `work` with a netlink handle of the namespace.
fn with<F, Fut>(space: &Namespace, work: F) -> anyhow::Result<()>
where
    F: FnOnce(Handle) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<()>>,
{
    space.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            work(handle).await
        })
    })
}

async fn index(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.with_context(|| format!("link {name}"))?;
    Ok(link.with_context(|| format!("link {name} is not there"))?.header.index)
}

async fn up(handle: &Handle, name: &str) -> anyhow::Result<()> {
    let index = index(handle, name).await?;
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    Ok(())
}
