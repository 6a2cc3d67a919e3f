//! What goes with a node: its workloads and their addresses, its tunnel addresses, blocks, and the settings made for it.

use std::net::IpAddr;

use caracal_model::{Key, WepName, prefix};
use serde_json::Value;

use super::blocks::{self, Release};
use super::{Client, metadata};
use crate::ctl::error::Error;
use crate::ctl::kinds::{KindInfo, by_kind};

fn kind(name: &str) -> &'static KindInfo {
    by_kind(name).expect("invariant: a known kind")
}

fn ip(value: &Value, pointer: &str) -> Option<IpAddr> {
    let text = value.pointer(pointer)?.as_str()?;
    text.split('/').next()?.parse().ok()
}

/// Releases everything that belongs to a node, whether or not its object exists; the object itself stays.
pub(super) async fn release(client: &Client, name: &str) -> Result<(), Error> {
    let endpoints = client.list(kind("WorkloadEndpoint"), "").await?.items;
    let own: Vec<_> = endpoints
        .iter()
        .filter(|wep| {
            let wep_name = metadata(&wep.value, "name");
            // The name tells the node too; both must agree, so that node web does not take web-2 with it.
            wep.value.pointer("/spec/node").and_then(Value::as_str) == Some(name)
                && WepName::parse(wep_name).map_or(true, |parts| parts.node == name)
        })
        .collect();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for wep in &own {
        let networks = wep.value.pointer("/spec/ipNetworks").and_then(Value::as_array).into_iter().flatten();
        addresses.extend(networks.filter_map(|n| n.as_str()?.split('/').next()?.parse::<IpAddr>().ok()));
    }
    match client.get(kind("Node"), "", name).await {
        Ok(node) => {
            let tunnels = [
                "/spec/bgp/ipv4IPIPTunnelAddr",
                "/spec/ipv4VXLANTunnelAddr",
                "/spec/ipv6VXLANTunnelAddr",
                "/spec/wireguard/interfaceIPv4Address",
                "/spec/wireguard/interfaceIPv6Address",
            ];
            addresses.extend(tunnels.iter().filter_map(|pointer| ip(&node.value, pointer)));
        }
        Err(Error::DoesNotExist(_)) => {}
        Err(error) => return Err(error),
    }
    let releases: Vec<Release> = addresses.into_iter().map(Release::address).collect();
    blocks::release(client, &releases).await?;
    for wep in own {
        delete(client, "WorkloadEndpoint", metadata(&wep.value, "namespace"), metadata(&wep.value, "name"))
            .await?;
    }
    for kv in client.store.list(&prefix::affinities_of(name)).await?.items {
        if let Ok(Key::Affinity { block, .. }) = Key::parse(&kv.key) {
            blocks::release_affinity(client, name, block, false).await?;
        }
    }
    forget(client, &Key::IpamHost(name.to_owned()).path()).await?;
    for (settings, field) in [("BGPPeer", "/spec/node"), ("HostEndpoint", "/spec/node")] {
        for object in client.list(kind(settings), "").await?.items {
            if object.value.pointer(field).and_then(Value::as_str) == Some(name) {
                delete(client, settings, "", metadata(&object.value, "name")).await?;
            }
        }
    }
    for settings in ["FelixConfiguration", "BGPConfiguration"] {
        delete(client, settings, "", &format!("node.{name}")).await?;
    }
    Ok(())
}

async fn delete(client: &Client, kind_name: &str, namespace: &str, name: &str) -> Result<(), Error> {
    forget(client, &super::path(kind(kind_name), namespace, name)).await
}

async fn forget(client: &Client, path: &str) -> Result<(), Error> {
    match client.store.delete(path, caracal_datastore::Expect::Any).await {
        Ok(_) | Err(caracal_datastore::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
