//! FelixConfiguration.

use serde_json::Value;

use super::{Object, has, items, text};
use crate::validate::text::go_duration;

/// Route tables that may be designated together; more would take too long to look through.
const TABLES: i64 = 0xffff;

pub(super) fn check(object: &mut Object<'_>) {
    let spec = object.spec();
    let name = object.name();
    let fixed = name == "default" || name.starts_with("node.");
    object.fail_if(
        fixed && has(spec, "nodeSelector"),
        "nodeSelector",
        "nodeSelector must not be set on the 'default' or per-node ('node.*') FelixConfiguration",
    );
    object.fail_if(
        has(spec, "routeTableRange") && has(spec, "routeTableRanges"),
        "routeTableRange",
        "routeTableRange and routeTableRanges cannot both be set",
    );
    let bound = |range: &Value, field: &str| range.get(field).and_then(Value::as_i64).unwrap_or_default();
    if let Some(range) = spec.get("routeTableRange") {
        let (min, max) = (bound(range, "min"), bound(range, "max"));
        object.fail_if(
            !(min >= 1 && max >= min && max <= 250),
            "routeTableRange",
            "must be a range of route table indices within 1..250",
        );
    }
    let mut tables = 0_i64;
    for (i, range) in items(spec, "routeTableRanges").iter().enumerate() {
        let (min, max) = (bound(range, "min"), bound(range, "max"));
        let path = format!("spec.routeTableRanges[{i}]");
        if min < 1 {
            object.fail(&path, Some(range), "min must be at least 1");
        }
        if min > max {
            object.fail(&path, Some(range), "min must not be greater than max");
        }
        if max > i64::from(u32::MAX) {
            object.fail(&path, Some(range), "max must not be greater than 4294967295");
        }
        tables = tables.saturating_add(max.saturating_sub(min).saturating_add(1).max(0));
    }
    object.fail_if(tables > TABLES, "routeTableRanges", "targets too many tables (65535 at most)");
    let named =
        items(spec, "kubeNodePortRanges").iter().any(|p| p.as_str().is_some_and(|p| !p.contains(':')));
    object.fail_if(named, "kubeNodePortRanges", "node port ranges should not contain named ports");
    for (i, timeout) in items(spec, "healthTimeoutOverrides").iter().enumerate() {
        if go_duration(text(timeout, "timeout")).is_some_and(|n| n < 0) {
            object.fail(
                format!("spec.healthTimeoutOverrides[{i}].timeout"),
                timeout.get("timeout"),
                "must not be negative",
            );
        }
    }
    // Every period but the one of the watchdog must not be negative.
    for (field, value) in spec.as_object().into_iter().flatten() {
        if value.as_str().is_some_and(|v| v.starts_with('-') && go_duration(v).is_some())
            && field != "dataplaneWatchdogTimeout"
        {
            object.fail(format!("spec.{field}"), Some(value), "must not be negative");
        }
    }
}
