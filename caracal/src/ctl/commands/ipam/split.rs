//! `ipam split`: smaller pools in the place of one. Blocks and addresses stay what they are.

use caracal_datastore::Expect;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::console::line;
use super::super::session;
use crate::ctl::args::IpamSplit;
use crate::ctl::client::{Client, Stored, metadata};
use crate::ctl::error::Error;
use crate::ctl::kinds::{KindInfo, by_kind};

/// `ipam split`.
pub(super) async fn split(arguments: &IpamSplit, allow_mismatch: bool) -> Result<bool, String> {
    let [number] = arguments.number.as_slice() else {
        return Err(format!(
            "accepts 1 arg(s), received {}: the number of pools to make",
            arguments.number.len()
        ));
    };
    let number: u32 = number.parse().map_err(|_| {
        format!("error reading number to split IP pools into. {number} is not a valid number")
    })?;
    if arguments.name.is_empty() && arguments.cidr.is_empty() {
        return Err(
            "no name or CIDR provided. Provide a name or CIDR to denote the IP pool to split".to_owned()
        );
    }
    let client = session::open(&arguments.connection, allow_mismatch).await?;
    let kind = by_kind("IPPool").expect("invariant: a known kind");
    let pool = find(&client, kind, arguments).await?;
    let cidr: IpNet = pool_cidr(&pool).ok_or_else(|| {
        format!("IP pool {} has no valid CIDR; repair it first", metadata(&pool.value, "name"))
    })?;
    let parts = parts(cidr, number)?;
    let block_size = pool.value.pointer("/spec/blockSize").and_then(Value::as_u64).unwrap_or(128);
    if let Some(part) = parts.first().filter(|part| u64::from(part.prefix_len()) > block_size) {
        return Err(format!(
            "error splitting the CIDR {cidr} into {number} CIDRs: {part} is smaller than the pool's blocks (/{block_size})"
        ));
    }
    let cluster = client
        .cluster_information()
        .await
        .map_err(|e| format!("error getting the cluster information: {e}"))?;
    if cluster.is_none_or(|c| c.value.pointer("/spec/datastoreReady") != Some(&Value::Bool(false))) {
        return Err("datastore is not locked. Run the `calicoctl datastore migrate lock` command in order to split the IP pools".to_owned());
    }
    let name = metadata(&pool.value, "name").to_owned();
    let made = replace(&client, kind, &pool, &parts)
        .await
        .map_err(|e| format!("error splitting IP pool {name}: {e}; run the command again to go on"))?;
    line(format!("IP Pool {name} was successfully split into {number} smaller pools."));
    for (name, cidr) in made {
        line(format!("Created {name} with CIDR {cidr}."));
    }
    line("Please refer to the documentation for final steps.");
    Ok(true)
}

fn pool_cidr(pool: &Stored) -> Option<IpNet> {
    pool.value.pointer("/spec/cidr")?.as_str()?.parse().ok()
}

async fn find(client: &Client, kind: &'static KindInfo, arguments: &IpamSplit) -> Result<Stored, String> {
    let (name, cidr) = (&arguments.name, &arguments.cidr);
    if !name.is_empty() {
        let pool = client
            .get(kind, "", name)
            .await
            .map_err(|e| format!("unable to find IP pool with name {name}: {e}"))?;
        if !cidr.is_empty() && cidr.parse::<IpNet>().ok() != pool_cidr(&pool) {
            return Err(format!("IP pool {name} does not have the CIDR {cidr}"));
        }
        return Ok(pool);
    }
    let wanted: IpNet = cidr.parse().map_err(|e| format!("invalid CIDR {cidr}: {e}"))?;
    let pools = client.list(kind, "").await.map_err(|e| format!("error listing IP pools: {e}"))?;
    let found = pools.items.into_iter().find(|pool| pool_cidr(pool).is_some_and(|c| c == wanted.trunc()));
    found.ok_or_else(|| format!("unable to find IP pool covering the specified CIDR {cidr}"))
}

/// The network in so many equal parts.
fn parts(cidr: IpNet, number: u32) -> Result<Vec<IpNet>, String> {
    let wrong = |reason: String| format!("error splitting the CIDR {cidr} into {number} CIDRs: {reason}");
    if !number.is_power_of_two() {
        return Err(wrong(format!("number to split CIDR into is not a valid power of 2: {number}")));
    }
    let bits = u8::try_from(number.trailing_zeros()).unwrap_or(u8::MAX);
    let prefix = cidr.prefix_len().saturating_add(bits);
    if prefix > cidr.max_prefix_len() || bits > 16 {
        return Err(wrong("the parts would be too small or too many".to_owned()));
    }
    cidr.subnets(prefix).map(Iterator::collect).map_err(|e| wrong(e.to_string()))
}

/// Makes the parts, then deletes the whole. What an interrupted run has made already is taken as it is.
async fn replace(
    client: &Client,
    kind: &'static KindInfo,
    pool: &Stored,
    parts: &[IpNet],
) -> Result<Vec<(String, IpNet)>, Error> {
    let mut made = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let name = format!("split-{}-{i}", metadata(&pool.value, "name"));
        let mut value = json!({"kind": kind.name, "apiVersion": caracal_model::API_VERSION, "metadata": {"name": name}, "spec": pool.value["spec"]});
        for field in ["labels", "annotations"] {
            if let Some(given) = pool.value["metadata"].get(field) {
                value["metadata"][field] = given.clone();
            }
        }
        value["spec"]["cidr"] = part.to_string().into();
        match client.create_unchecked(kind, value.clone()).await {
            Ok(_) => {}
            Err(Error::AlreadyExists(_))
                if client.get(kind, "", &name).await?.value["spec"] == value["spec"] => {}
            Err(error) => return Err(error),
        }
        made.push((name, *part));
    }
    client.delete_unchecked(kind, metadata(&pool.value, "name"), Expect::Rev(pool.rev)).await?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts() {
        let split = |cidr: &str, n| {
            parts(cidr.parse().unwrap(), n).map(|p| p.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(
            split("fd50::/112", 4).unwrap(),
            ["fd50::/114", "fd50::4000/114", "fd50::8000/114", "fd50::c000/114"]
        );
        assert_eq!(split("10.0.0.0/24", 1).unwrap(), ["10.0.0.0/24"]);
        for (cidr, n) in [("10.0.0.0/24", 3), ("10.0.0.0/24", 0), ("10.0.0.0/31", 4), ("fd00::/8", 1 << 20)] {
            assert!(split(cidr, n).is_err(), "{cidr} {n}");
        }
    }
}
