//! Start-up's writes: the cluster's facts, the built-in tiers, default configuration, default pools, this Node.
//!
//! Every write is one compare-and-swap; an object that already says what we want is not touched, so an unchanged
//! restart writes nothing.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use caracal_datastore::{Error as StoreError, Expect, Store};
use caracal_model::{
    Action, AsNumber, ClusterInformation, ClusterInformationSpec, FelixConfigurationSpec, GoDuration,
    IpPoolSpec, Key, Node, NodeAddress, NodeBgpSpec, NodeSpec, Object, OrchRef, Resource, Spec, Tier,
    TierSpec, Value, defaults, prefix,
};
use ipnet::IpNet;

use super::settings::{Pool, Settings};

/// Attempts at one object before a writer that keeps changing it is reported.
const ATTEMPTS: usize = 10;

/// The node's addresses as start-up found them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// IPv4 with its subnet's length.
    pub(crate) ipv4: Option<IpNet>,
    /// IPv6 with its subnet's length.
    pub(crate) ipv6: Option<IpNet>,
}

/// What makes every node of a cluster possible: ClusterInformation, tiers, default configuration, pools.
pub(crate) async fn cluster(store: &dyn Store, settings: &Settings) -> anyhow::Result<()> {
    cluster_information(store, &settings.cluster_type).await?;
    for (name, order, action) in [
        ("kube-admin", 1_000.0, Action::Pass),
        ("default", 1_000_000.0, Action::Deny),
        ("kube-baseline", 10_000_000.0, Action::Pass),
    ] {
        let spec = TierSpec { order: Some(order), default_action: Some(action), ..TierSpec::default() };
        let mut tier = Tier::new(name, spec);
        tier.status = Some(serde_json::json!({}));
        create(store, tier.into()).await?;
    }
    let mut felix = Object::new("default", FelixConfigurationSpec::default());
    felix.spec.reporting_interval = Some(GoDuration::from(std::time::Duration::ZERO));
    create(store, felix.into()).await?;
    pools(store, &settings.pools).await
}

/// Writes this Node; returns the addresses that it has now.
///
/// `found` has what detection says; an address that `IP` asks to keep stays as the Node object has it.
pub(crate) async fn node(
    store: &dyn Store,
    settings: &Settings,
    mut found: impl FnMut(Option<&NodeBgpSpec>) -> anyhow::Result<Addresses>,
) -> anyhow::Result<Addresses> {
    let mut addresses = Addresses::default();
    update::<NodeSpec>(store, &settings.name, |node| {
        addresses = found(node.spec.bgp.as_ref())?;
        describe(node, settings, addresses);
        Ok(())
    })
    .await?;
    if !settings.skip_address_check {
        unique(store, &settings.name, addresses).await?;
    }
    Ok(addresses)
}

/// Puts what start-up knows into the Node and leaves the rest.
fn describe(node: &mut Node, settings: &Settings, addresses: Addresses) {
    if node.status.is_none() {
        node.status = Some(serde_json::json!({}));
    }
    let text = |net: Option<IpNet>| net.map(|n| n.to_string());
    let mut bgp = node.spec.bgp.take().unwrap_or_default();
    bgp.ipv4_address = text(addresses.ipv4);
    bgp.ipv6_address = text(addresses.ipv6);
    if let Some(asn) = settings.as_number {
        bgp.as_number = Some(AsNumber(asn));
    }
    node.spec.bgp = (addresses != Addresses::default()).then_some(bgp);
    let ours = |address: &NodeAddress| address.kind.as_deref() == Some("CalicoNodeIP");
    let mut listed: Vec<NodeAddress> = [addresses.ipv4, addresses.ipv6]
        .into_iter()
        .flatten()
        .map(|net| NodeAddress {
            address: Some(net.to_string()),
            kind: Some("CalicoNodeIP".into()),
            ..NodeAddress::default()
        })
        .collect();
    listed.extend(node.spec.addresses.drain(..).filter(|a| !ours(a)));
    node.spec.addresses = listed;
    if let Some(name) = &settings.kubernetes_node {
        let known = node.spec.orch_refs.iter().any(|r| r.orchestrator.as_deref() == Some("k8s"));
        if !known {
            node.spec.orch_refs.push(OrchRef {
                node_name: Some(name.clone()),
                orchestrator: Some("k8s".into()),
                ..OrchRef::default()
            });
        }
    }
}

/// Two nodes with one address would each answer for the other's sessions.
async fn unique(store: &dyn Store, name: &str, addresses: Addresses) -> anyhow::Result<()> {
    let mine: Vec<IpAddr> =
        [addresses.ipv4, addresses.ipv6].into_iter().flatten().map(|n| n.addr()).collect();
    for item in store.list(prefix::NODES).await?.items {
        // A key or value that does not parse is somebody else's to report.
        let Ok(key) = Key::parse(&item.key) else { continue };
        let Ok(Value::Resource(Resource::Node(other))) = Value::parse(&key, &item.value) else { continue };
        if other.name() == name {
            continue;
        }
        let bgp = other.spec.bgp.as_ref();
        let theirs =
            [bgp.and_then(|b| b.ipv4_address.as_deref()), bgp.and_then(|b| b.ipv6_address.as_deref())];
        for address in
            theirs.into_iter().flatten().filter_map(|a| caracal_model::net::parse_interface(a).ok())
        {
            if mine.contains(&address.addr()) {
                bail!(
                    "node {name}: address {} already belongs to Node({}); give this node another address by IP or IP6, \
                     or delete the other: caracal ctl delete node {}",
                    address.addr(),
                    other.name(),
                    other.name()
                );
            }
        }
    }
    Ok(())
}

async fn cluster_information(store: &dyn Store, cluster_type: &str) -> anyhow::Result<()> {
    update::<ClusterInformationSpec>(store, "default", |info: &mut ClusterInformation| {
        let spec = &mut info.spec;
        if spec.cluster_guid.as_deref().unwrap_or_default().is_empty() {
            spec.cluster_guid = Some(uuid::Uuid::new_v4().simple().to_string());
        }
        if spec.datastore_ready.is_none() {
            spec.datastore_ready = Some(true);
        }
        let mut types: Vec<String> = spec
            .cluster_type
            .as_deref()
            .unwrap_or_default()
            .split(',')
            .filter(|t| !t.is_empty())
            .map(Into::into)
            .collect();
        for word in cluster_type.split(',').chain(["bgp"]).map(str::trim).filter(|t| !t.is_empty()) {
            if !types.iter().any(|t| t == word) {
                types.push(word.into());
            }
        }
        spec.cluster_type = Some(types.join(","));
        Ok(())
    })
    .await
}

/// Makes the default pools when the datastore has none of that family.
async fn pools(store: &dyn Store, pools: &[Pool]) -> anyhow::Result<()> {
    if pools.is_empty() {
        return Ok(());
    }
    let stored = store.list(prefix::IP_POOLS).await?.items;
    let has = |ipv6: bool| {
        stored
            .iter()
            .filter_map(|item| serde_json::from_slice::<serde_json::Value>(&item.value).ok())
            .any(|pool| pool["spec"]["cidr"].as_str().is_some_and(|cidr| cidr.contains(':') == ipv6))
    };
    for pool in pools.iter().filter(|pool| !has(pool.cidr.addr().is_ipv6())) {
        let spec = IpPoolSpec {
            cidr: Some(pool.cidr.to_string()),
            block_size: Some(i32::from(pool.block_size)),
            nat_outgoing: pool.nat_outgoing.then_some(true),
            node_selector: Some(pool.node_selector.clone()),
            disable_bgp_export: pool.disable_bgp_export.then_some(true),
            ..IpPoolSpec::default()
        };
        create(store, Object::new(pool.name, spec).into()).await?;
        tracing::info!(pool = pool.name, prefix = %pool.cidr, "made a default pool");
    }
    Ok(())
}

/// Creates an object with its defaults; one that exists stays as it is.
async fn create(store: &dyn Store, mut resource: Resource) -> anyhow::Result<()> {
    let path = resource.key().path();
    if store.get(&path).await?.is_some() {
        return Ok(());
    }
    stamp(&mut resource);
    defaults::apply(&mut resource);
    match store.put(&path, resource.to_json(), Expect::Absent, None).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(err) => Err(err).with_context(|| format!("cannot create {path}")),
    }
}

/// Reads an object, or begins an empty one, lets `change` work on it and writes it when it differs.
async fn update<S: Spec + Default>(
    store: &dyn Store,
    name: &str,
    mut change: impl FnMut(&mut Object<S>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = Resource::from(Object::<S>::new(name, S::default())).key().path();
    for _ in 0..ATTEMPTS {
        let stored = store.get(&path).await?;
        let (mut object, expect) = match &stored {
            None => (Object::new(name, S::default()), Expect::Absent),
            Some(item) => {
                let resource = Resource::from_json(S::KIND, &item.value)
                    .with_context(|| format!("{path} is damaged; mend it, or delete it and start again"))?;
                let object = S::unwrap(resource).ok().context("invariant: parsed as this kind")?;
                (object, Expect::Rev(item.rev))
            }
        };
        change(&mut object)?;
        let mut resource = Resource::from(object);
        if stored.is_none() {
            stamp(&mut resource);
            defaults::apply(&mut resource);
        }
        let value = resource.to_json();
        if stored.as_ref().is_some_and(|item| same(&item.value, &value)) {
            return Ok(());
        }
        match store.put(&path, value, expect, None).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            Err(err) => return Err(err).with_context(|| format!("cannot write {path}")),
        }
    }
    bail!("{path}: {ATTEMPTS} writers were faster; another agent with this node's name may be running")
}

/// Equal as JSON.
fn same(a: &[u8], b: &[u8]) -> bool {
    let parse = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    parse(a).is_some_and(|a| parse(b) == Some(a))
}

/// Identity of a new object, as Calico's client gives it.
fn stamp(resource: &mut Resource) {
    let metadata = resource.metadata_mut();
    metadata.uid = Some(uuid::Uuid::new_v4().to_string());
    metadata.creation_timestamp = Some(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
}
