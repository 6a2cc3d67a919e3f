//! What an object must satisfy beside others: names, tiers, filters, pools.

use caracal_model::{Kind, WepName, prefix};
use serde_json::Value;

use super::resources::{DEFAULT_PROFILE, read_only};
use super::{Client, Stored, metadata};
use crate::ctl::error::Error;
use crate::ctl::kinds::{KindInfo, by_kind};

/// Policies that kube-controllers copies from Kubernetes.
const KUBERNETES_PREFIX: &str = "knp.default.";

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Checks that come before those of the object's own fields.
pub(super) async fn before(
    client: &Client,
    kind: &KindInfo,
    value: &Value,
    old: Option<&Stored>,
) -> Result<(), Error> {
    let name = metadata(value, "name");
    match kind.kind {
        Kind::ClusterInformation => {
            Err(read_only(if old.is_some() { "apply or replace" } else { "create or apply" }))
        }
        Kind::Profile if name == DEFAULT_PROFILE => Err(match old {
            Some(_) => Error::NotSupported {
                operation: "Update",
                object: name.to_owned(),
                reason: format!(
                    "The profile \"{name}\" is a default provided by Calico and cannot be updated"
                ),
            },
            None => Error::AlreadyExists(name.to_owned()),
        }),
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy if name.starts_with(KUBERNETES_PREFIX) => {
            Err(kubernetes(name))
        }
        Kind::KubeControllersConfiguration if name != "default" => Err(Error::Other(
            "Cannot create a Kube Controllers Configuration resource with a name other than \"default\""
                .to_owned(),
        )),
        Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
            if old.is_none() =>
        {
            let tier = match text(value, "/spec/tier") {
                "" => "default",
                tier => tier,
            };
            client.get(by_kind("Tier").expect("invariant: a known kind"), "", tier).await.map(|_| ())
        }
        Kind::IpPool => pool_change(value, old),
        _ => Ok(()),
    }
}

fn kubernetes(name: &str) -> Error {
    Error::NotSupported {
        operation: "create or apply",
        object: name.to_owned(),
        reason: "kubernetes network policies must be managed through the kubernetes API".to_owned(),
    }
}

/// A workload endpoint's name follows from its spec; an empty one is filled in.
pub(super) fn endpoint_name(value: &mut Value) -> Result<(), Error> {
    let field = |name: &str| text(value, &format!("/spec/{name}")).to_owned();
    let orchestrator = field("orchestrator");
    let workload = match orchestrator.as_str() {
        "k8s" => field("pod"),
        "cni" => field("containerID"),
        "libnetwork" => "libnetwork".to_owned(),
        _ => field("workload"),
    };
    let name = WepName { node: field("node"), orchestrator, workload, endpoint: field("endpoint") };
    let wanted = name.format().map_err(|e| Error::Other(format!("cannot name the WorkloadEndpoint: {e}")))?;
    match metadata(value, "name") {
        "" => value["metadata"]["name"] = wanted.into(),
        given if given == wanted => {}
        given => {
            let reason = format!(
                "the WorkloadEndpoint name does not match the primary identifiers assigned in the Spec: expected name {wanted}"
            );
            return Err(Error::field("metadata.name", given, reason));
        }
    }
    Ok(())
}

/// Checks that need the object in its final form.
pub(super) async fn after(
    client: &Client,
    kind: &KindInfo,
    value: &Value,
    old: Option<&Stored>,
) -> Result<(), Error> {
    match kind.kind {
        Kind::BgpPeer => filters_exist(client, value).await,
        Kind::IpPool => {
            pools_apart(client, value).await?;
            if old.is_none() { blocks_fit(client, value).await } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

async fn filters_exist(client: &Client, peer: &Value) -> Result<(), Error> {
    let kind = by_kind("BGPFilter").expect("invariant: a known kind");
    let mut missing = Vec::new();
    for name in peer
        .pointer("/spec/filters")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        match client.get(kind, "", name).await {
            Ok(_) => {}
            Err(Error::DoesNotExist(_)) => missing.push(name),
            Err(error) => return Err(error),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::field(
        "spec.filters",
        format!("[{}]", missing.join(" ")),
        "BGPFilter(s) not found; create them first",
    ))
}

fn pool_change(new: &Value, old: Option<&Stored>) -> Result<(), Error> {
    let Some(old) = old else { return Ok(()) };
    let network = |value: &Value| text(value, "/spec/cidr").parse::<ipnet::IpNet>().ok();
    let (was, is) = (network(&old.value), network(new));
    if was != is {
        return Err(Error::field(
            "spec.cidr",
            text(new, "/spec/cidr"),
            "IPPool CIDR cannot be modified; make a new pool and move the workloads",
        ));
    }
    let size = |value: &Value| value.pointer("/spec/blockSize").and_then(Value::as_i64).filter(|n| *n != 0);
    let default = is.map(|net| if net.addr().is_ipv4() { 26 } else { 122 });
    if size(&old.value).or(default) != size(new).or(default) {
        let shown = size(new).or(default).unwrap_or_default().to_string();
        return Err(Error::field(
            "spec.blockSize",
            shown,
            "IPPool BlockSize cannot be modified; make a new pool and move the workloads",
        ));
    }
    let uses = |value: &Value| {
        let uses = value.pointer("/spec/allowedUses").and_then(Value::as_array).cloned().unwrap_or_default();
        uses.iter().any(|u| u == "LoadBalancer")
    };
    if uses(&old.value) && !uses(new) {
        return Err(Error::field(
            "spec.allowedUses",
            "",
            "IPPool allowed use cannot be changed from LoadBalancer to Workload or Tunnel",
        ));
    }
    Ok(())
}

async fn pools_apart(client: &Client, pool: &Value) -> Result<(), Error> {
    let (name, cidr) = (metadata(pool, "name"), text(pool, "/spec/cidr"));
    let Ok(network) = cidr.parse::<ipnet::IpNet>() else { return Ok(()) };
    for other in client.list(by_kind("IPPool").expect("invariant: a known kind"), "").await?.items {
        let (other_name, other_cidr) = (metadata(&other.value, "name"), text(&other.value, "/spec/cidr"));
        let overlaps =
            other_cidr.parse::<ipnet::IpNet>().is_ok_and(|n| n.contains(&network) || network.contains(&n));
        if other_name != name && overlaps {
            let reason = format!("IPPool({name}) CIDR overlaps with IPPool({other_name}) CIDR {other_cidr}");
            return Err(Error::field("spec.cidr", cidr, reason));
        }
    }
    Ok(())
}

async fn blocks_fit(client: &Client, pool: &Value) -> Result<(), Error> {
    let Ok(network) = text(pool, "/spec/cidr").parse::<ipnet::IpNet>() else { return Ok(()) };
    let size = pool.pointer("/spec/blockSize").and_then(Value::as_u64).unwrap_or_default();
    for kv in client.store.list(prefix::BLOCKS).await?.items {
        let Ok(caracal_model::Key::Block(block)) = caracal_model::Key::parse(&kv.key) else { continue };
        if u64::from(block.prefix_len()) != size && (network.contains(&block) || block.contains(&network)) {
            let reason = format!(
                "IPPool blockSize conflicts with existing allocations that use a different blockSize (block {block})"
            );
            return Err(Error::field("spec.blockSize", size.to_string(), reason));
        }
    }
    Ok(())
}

/// Objects that nobody may delete.
pub(super) async fn before_delete(client: &Client, kind: &KindInfo, name: &str) -> Result<(), Error> {
    let refused =
        |operation, reason: String| Err(Error::NotSupported { operation, object: name.to_owned(), reason });
    match kind.kind {
        Kind::ClusterInformation => Err(read_only("delete")),
        Kind::Profile if name == DEFAULT_PROFILE => refused(
            "Delete",
            format!("The profile \"{name}\" is a default provided by Calico and cannot be deleted"),
        ),
        Kind::NetworkPolicy if name.starts_with(KUBERNETES_PREFIX) => refused(
            "delete",
            "kubernetes network policies must be managed through the kubernetes API".to_owned(),
        ),
        Kind::Tier if ["default", "kube-admin", "kube-baseline"].contains(&name) => {
            refused("Delete", format!("Cannot delete {name} tier"))
        }
        Kind::Tier => {
            for policies in ["NetworkPolicy", "GlobalNetworkPolicy"] {
                let kind = by_kind(policies).expect("invariant: a known kind");
                let inside = client
                    .list(kind, "")
                    .await?
                    .items
                    .into_iter()
                    .find(|p| text(&p.value, "/spec/tier") == name);
                if let Some(policy) = inside {
                    let policy = crate::ctl::error::identifier(
                        policies,
                        metadata(&policy.value, "namespace"),
                        metadata(&policy.value, "name"),
                    );
                    return refused("delete", format!("Cannot delete a non-empty tier; it holds {policy}"));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
