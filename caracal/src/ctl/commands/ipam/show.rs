//! `ipam show`.

use std::net::IpAddr;

use caracal_model::Block;
use ipnet::IpNet;
use serde_json::Value;

use super::super::console::{line, out};
use super::super::session;
use super::fact;
use super::figures::Figures;
use crate::ctl::args::IpamShow;
use crate::ctl::client::{self, Client, StoredBlock};
use crate::ctl::kinds::by_kind;
use crate::ctl::output::table::boxed;

/// `ipam show`.
pub(super) async fn show(arguments: &IpamShow, allow_mismatch: bool) -> Result<bool, String> {
    let address = arguments.ip.as_deref().map(super::release::address).transpose()?;
    let client = session::open(&arguments.connection, allow_mismatch).await?;
    // One thing at a time, in calicoctl's order.
    let only_configuration = arguments.show_configuration
        && !(address.is_some() || arguments.show_blocks || arguments.show_borrowed);
    if only_configuration {
        configuration(&client).await?;
        return Ok(true);
    }
    let blocks = client::blocks(&client).await.map_err(|e| format!("cannot list the blocks: {e}"))?;
    match address {
        Some(address) => one(address, &blocks)?,
        None if arguments.show_borrowed && !arguments.show_blocks => borrowed(&blocks),
        None => usage(&client, &blocks, arguments.show_blocks).await?,
    }
    Ok(true)
}

fn one(address: IpAddr, blocks: &[StoredBlock]) -> Result<(), String> {
    let owner = blocks.iter().find_map(|stored| {
        let ordinal = stored.block.ordinal(address)?;
        stored.block.attribute_of(ordinal)
    });
    let Some(owner) = owner else {
        line(format!("{address} is not assigned"));
        return Ok(());
    };
    if let Some(at) = &owner.released_at {
        return Err(format!(
            "address {address} is in cooldown (released {at}); nobody has it and nobody gets it yet"
        ));
    }
    line(format!("IP {address} is in use"));
    line(format!("Handle ID: {}", owner.handle_id.as_deref().unwrap_or("<none>")));
    for (title, facts) in [("Active", &owner.secondary), ("Alternate", &owner.alternate_owner_attrs)] {
        if !facts.is_empty() {
            line(format!("{title} Owner Attributes:"));
            for (name, value) in facts {
                line(format!("  {name}: {value}"));
            }
        }
    }
    if owner.secondary.is_empty() && owner.alternate_owner_attrs.is_empty() {
        line("No attributes defined");
    }
    Ok(())
}

/// The networks of a kind's field, of one object or of a list.
fn networks(value: &Value, field: &str) -> Vec<IpNet> {
    let texts = match value.pointer(field) {
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => vec![text.as_str()],
        _ => Vec::new(),
    };
    let network =
        |text: &str| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    texts.into_iter().filter_map(network).collect()
}

async fn usage(client: &Client, blocks: &[StoredBlock], show_blocks: bool) -> Result<(), String> {
    let list = |kind: &'static str| async move {
        let kind = by_kind(kind).expect("invariant: a known kind");
        client.list(kind, "").await.map_err(|e| format!("cannot list {}s: {e}", kind.name))
    };
    let reservations = list("IPReservation").await?.items;
    let reserved: Vec<IpNet> =
        reservations.iter().flat_map(|r| networks(&r.value, "/spec/reservedCIDRs")).collect();
    let pools = list("IPPool").await?.items;
    let pools: Vec<IpNet> = pools.iter().flat_map(|p| networks(&p.value, "/spec/cidr")).collect();

    let used = |block: &Block| block.addresses().map(|(ip, _)| ip).collect::<Vec<_>>();
    let row = |grouping: &str, network: IpNet, used: &[IpAddr]| {
        let mut row = vec![grouping.to_owned(), network.to_string()];
        row.extend(Figures::of(network, used, &reserved).cells());
        row
    };
    let block_row = |stored: &&StoredBlock| row("Block", stored.block.cidr, &used(&stored.block));
    let mut rows = Vec::new();
    for pool in &pools {
        let inside: Vec<&StoredBlock> = blocks.iter().filter(|b| pool.contains(&b.block.cidr)).collect();
        let all: Vec<IpAddr> = inside.iter().flat_map(|b| used(&b.block)).collect();
        rows.push(row("IP Pool", *pool, &all));
        if show_blocks {
            rows.extend(inside.iter().map(block_row));
        }
    }
    if show_blocks {
        let outside = blocks.iter().filter(|b| !pools.iter().any(|pool| pool.contains(&b.block.cidr)));
        rows.extend(outside.map(|block| block_row(&block)));
    }
    let figures = ["IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE"];
    let headings: Vec<&str> = ["GROUPING", "CIDR"].into_iter().chain(figures).collect();
    out(&boxed(&headings, &rows, &figures));
    Ok(())
}

/// Addresses that a node uses out of another one's block.
fn borrowed(blocks: &[StoredBlock]) {
    let mut rows = Vec::new();
    for StoredBlock { block, .. } in blocks {
        let host = block.host().unwrap_or_default();
        for (address, attribute) in block.addresses() {
            let Some(attribute) = attribute else { continue };
            let (node, pod) = (fact(attribute, "node"), fact(attribute, "pod"));
            if node.is_empty() || node == host {
                continue;
            }
            let (kind, holder) = match pod {
                "" => (fact(attribute, "type").to_owned(), String::new()),
                pod => ("pod".to_owned(), format!("{}/{pod}", fact(attribute, "namespace"))),
            };
            rows.push(vec![
                address.to_string(),
                node.to_owned(),
                block.cidr.to_string(),
                host.to_owned(),
                kind,
                holder,
            ]);
        }
    }
    out(&boxed(&["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"], &rows, &[]));
}

async fn configuration(client: &Client) -> Result<(), String> {
    let (config, _) =
        client::ipam_config(client).await.map_err(|e| format!("cannot read the IPAM configuration: {e}"))?;
    let rows = [
        ("StrictAffinity", config.strict_affinity.unwrap_or_default().to_string()),
        ("AutoAllocateBlocks", config.auto_allocate_blocks.unwrap_or_default().to_string()),
        ("MaxBlocksPerHost", config.max_blocks_per_host.unwrap_or_default().to_string()),
        (
            "KubeVirtVMAddressPersistence",
            config.kube_virt_vm_address_persistence.unwrap_or_else(|| "Enabled".to_owned()),
        ),
        ("IPCooldownSeconds", config.ip_cooldown_seconds.unwrap_or_default().to_string()),
    ];
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(property, value)| vec![property.to_owned(), value]).collect();
    out(&boxed(&["PROPERTY", "VALUE"], &rows, &[]));
    Ok(())
}
