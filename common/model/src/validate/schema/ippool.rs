//! IPPool, IPReservation, IPAMConfiguration, BlockAffinity.

use super::{CONDITIONS, Field, Rule, Shape, flag, int, list, object, record, text, texts};
use crate::validate::text::{is_cidr, is_selector, is_strict_cidr};

const MODES: &[&str] = &["Never", "Always", "CrossSubnet"];

/// IPPool.
pub(super) const IP_POOL: &[Field] = object!(
    &[
        text("cidr").always().required().test(is_cidr, "must be a CIDR, as 10.244.0.0/16"),
        text("vxlanMode").one_of(MODES),
        text("ipipMode").one_of(MODES),
        flag("natOutgoing"),
        flag("disabled"),
        flag("disableBGPExport"),
        int("blockSize").rule(Rule::Range(0, 128)),
        text("nodeSelector")
            .rule(Rule::MaxLength(1024))
            .test(is_selector, "must be a selector, as rack == 'r1'"),
        text("namespaceSelector")
            .rule(Rule::MaxLength(1024))
            .test(is_selector, "must be a selector, as team == 'a'"),
        texts("allowedUses").rule(Rule::EachOneOf(&["Workload", "Tunnel", "LoadBalancer"])),
        text("assignmentMode").given().one_of(&["Automatic", "Manual"]).default_text("Automatic"),
    ],
    record("status", &[list("conditions", CONDITIONS)])
);

/// IPReservation.
pub(super) const IP_RESERVATION: &[Field] = object!(&[
    texts("reservedCIDRs").each(is_strict_cidr, "must be a CIDR with its prefix length, as 10.0.0.9/32")
]);

/// IPAMConfiguration.
pub(super) const IPAM_CONFIGURATION: &[Field] = object!(&[
    flag("strictAffinity").always(),
    super::int32("maxBlocksPerHost").rule(Rule::Range(0, 1_000_000)),
    flag("autoAllocateBlocks").always(),
    text("kubeVirtVMAddressPersistence").given().one_of(&["Enabled", "Disabled"]),
    super::int32("ipCooldownSeconds").rule(Rule::Range(0, 1200)),
]);

/// BlockAffinity.
pub(super) const BLOCK_AFFINITY: &[Field] = object!(&[
    text("state").always(),
    text("node").always(),
    text("type"),
    text("cidr").always(),
    super::field("deleted", Shape::Any),
]);
