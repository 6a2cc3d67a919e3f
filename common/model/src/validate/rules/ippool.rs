//! IPPool.

use std::net::IpAddr;

use serde_json::Value;

use super::{Object, has_text, is_true, text, texts};
use crate::validate::text::{cidr, network_of};

pub(super) fn check(object: &mut Object<'_>) {
    let spec = object.spec();
    let Some((ip, length)) = cidr(text(spec, "cidr")) else { return };
    addresses(object, ip, length);
    let size = spec.get("blockSize").and_then(Value::as_i64).unwrap_or(if ip.is_ipv4() { 26 } else { 122 });
    let (least, most) = if ip.is_ipv4() { (20, 32) } else { (116, 128) };
    object.fail_if(
        !(least..=most).contains(&size),
        "blockSize",
        "blockSize must be between 20 and 32 for IPv4 pools, and between 116 and 128 for IPv6 pools",
    );
    object.fail_if(
        !is_true(spec, "disabled") && i64::from(length) > size,
        "cidr",
        "IP pool size is too small for use with Calico IPAM. It must be equal to or greater than the block size.",
    );
    encapsulation(object, ip);
    uses(object);
    object.fail_if(
        text(spec, "nodeSelector").contains("global("),
        "nodeSelector",
        "global() selector is not valid for IPPool nodeSelector",
    );
    object.fail_if(
        text(spec, "namespaceSelector").contains("global("),
        "namespaceSelector",
        "global() selector is not valid for IPPool namespaceSelector",
    );
}

fn addresses(object: &mut Object<'_>, ip: IpAddr, length: u8) {
    object.fail_if(
        network_of(ip, length) != ip,
        "cidr",
        "IPPool CIDR is not strictly masked: it has bits set behind its prefix length",
    );
    let local: ipnet::IpNet = match ip {
        IpAddr::V4(_) => "169.254.0.0/16".parse().expect("invariant: a constant prefix"),
        IpAddr::V6(_) => "fe80::/10".parse().expect("invariant: a constant prefix"),
    };
    if let Ok(pool) = ipnet::IpNet::new(ip, length) {
        let overlaps = pool.contains(&local) || local.contains(&pool);
        object.fail_if(
            overlaps,
            "cidr",
            &format!("IP pool range overlaps with the link-local range {local}"),
        );
    }
}

fn encapsulation(object: &mut Object<'_>, ip: IpAddr) {
    let spec = object.spec();
    let on = |field| has_text(spec, field) && text(spec, field) != "Never";
    object.fail_if(
        ip.is_ipv6() && on("ipipMode"),
        "ipipMode",
        "IPIPMode other than 'Never' is not supported on an IPv6 IP pool",
    );
    object.fail_if(
        on("ipipMode") && on("vxlanMode"),
        "ipipMode",
        "IPIPMode and VXLANMode cannot both be enabled on the same IP pool",
    );
}

fn uses(object: &mut Object<'_>) {
    let spec = object.spec();
    let mut uses: Vec<&str> = texts(spec, "allowedUses").collect();
    if uses.is_empty() {
        uses = vec!["Workload", "Tunnel"];
    }
    object.fail_if(
        has_text(spec, "namespaceSelector") && uses.contains(&"Tunnel"),
        "namespaceSelector",
        "IP Pool with AllowedUse Tunnel cannot have namespaceSelector",
    );
    if !uses.contains(&"LoadBalancer") {
        return;
    }
    let encapsulated = |field| has_text(spec, field) && text(spec, field) != "Never";
    object.fail_if(
        uses.len() > 1 && uses.iter().any(|u| *u != "LoadBalancer"),
        "allowedUses",
        "LoadBalancer cannot be combined with another use",
    );
    object.fail_if(
        encapsulated("ipipMode") || encapsulated("vxlanMode"),
        "allowedUses",
        "neither IPIPMode nor VXLANMode can be enabled on an IP pool for LoadBalancer",
    );
    object.fail_if(
        is_true(spec, "disableBGPExport"),
        "disableBGPExport",
        "must not be set on an IP pool for LoadBalancer",
    );
    object.fail_if(
        has_text(spec, "nodeSelector") && text(spec, "nodeSelector") != "all()",
        "nodeSelector",
        "an IP pool for LoadBalancer must have node selector all()",
    );
}
