//! A damaged value gives one error that names key, field, reason and fix, and never shows the value.

use caracal_model::{Key, Kind, MAX_VALUE_BYTES, Value, ValueError};

fn key(kind: Kind) -> Key {
    if kind.namespaced() { Key::namespaced(kind, "ns", "x") } else { Key::global(kind, "x") }
}

fn error(key: &Key, bytes: &[u8]) -> ValueError {
    let error = Value::parse(key, bytes).expect_err("a damaged value");
    assert!(error.key == key.path() && !error.field.is_empty() && !error.fix.is_empty(), "{error:?}");
    error
}

#[test]
fn whole_values() {
    let pool = key(Kind::IpPool);
    let huge = vec![b' '; MAX_VALUE_BYTES + 1];
    let deep = [br#"{"spec":{"x":"#.as_slice(), &vec![b'['; 100_000]].concat();
    for (bytes, reason) in [
        (&b""[..], "empty"),
        (b"  \n", "empty"),
        (b"null", "null where an object must be"),
        (b"[]", "not a JSON object"),
        (b"\"text\"", "not a JSON object"),
        (b"garbage", "not a JSON object"),
        (b"{\"kind\":\"IPPool\"\xff}", "not UTF-8 at byte 16"),
        (b"{\"kind\":", "EOF while parsing a value at line 1 column 8"),
        (b"{} {}", "trailing characters at line 1 column 4"),
        (&huge, "1048577 bytes are more than the 1048576 that are read"),
        (&deep, "recursion limit exceeded at line 1 column 139"),
    ] {
        assert_eq!(
            error(&pool, bytes).reason,
            reason,
            "{:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
        );
    }
}

#[test]
fn fields() {
    for (kind, json, field, reason) in [
        (
            Kind::IpPool,
            r#"{"spec":{"blockSize":"26"}}"#,
            "spec.blockSize",
            "a text where a whole number must be",
        ),
        (Kind::IpPool, r#"{"spec":{"disabled":1}}"#, "spec.disabled", "a number where true or false must be"),
        (Kind::IpPool, r#"{"spec":[]}"#, "spec", "a list where an object must be"),
        (Kind::IpPool, r#"{"kind":"Node"}"#, "kind", "the object is not of kind IPPool"),
        (
            Kind::IpPool,
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "metadata.labels.a",
            "a number where a text must be",
        ),
        (
            Kind::Node,
            r#"{"spec":{"bgp":{"asNumber":-1}}}"#,
            "spec.bgp.asNumber",
            "a number where an AS number, 0 to 4294967295 or \"high.low\" must be",
        ),
        (
            Kind::GlobalNetworkPolicy,
            r#"{"spec":{"ingress":[{},{"source":{"ports":["9:1"]}}]}}"#,
            "spec.ingress[1].source.ports[0]",
            "a port range begins with its smaller port",
        ),
        (
            Kind::GlobalNetworkPolicy,
            r#"{"spec":{"egress":[{"protocol":true}]}}"#,
            "spec.egress[0].protocol",
            "true or false where a protocol: a name such as \"TCP\", or 0 to 255 must be",
        ),
        (
            Kind::BgpPeer,
            r#"{"spec":{"maxRestartTime":"soon"}}"#,
            "spec.maxRestartTime",
            "a duration is numbers with units, such as \"90s\", \"2m0s\" or \"1.5h\"",
        ),
        (
            Kind::WorkloadEndpoint,
            r#"{"spec":{"ports":[{"port":65536}]}}"#,
            "spec.ports[0].port",
            "a number where a whole number from 0 to 65535 must be",
        ),
    ] {
        let error = error(&key(kind), json.as_bytes());
        assert_eq!((error.field.as_str(), error.reason.as_str()), (field, reason), "{json}");
    }
}

#[test]
fn the_value_is_not_shown() {
    let secret = r#"{"spec":{"disabled":"hunter2, expected nothing at line 1","cidr":{"hunter2":"hunter2"},"hunter2":"#;
    for json in [
        secret.to_owned(),
        format!("{secret}\"}}"),
        secret.replace("disabled\":\"hunter2, expected nothing at line 1", "disabled\":\"hunter2"),
    ] {
        let shown = error(&key(Kind::IpPool), json.as_bytes()).to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn an_empty_affinity_is_confirmed() {
    let block = "10.0.0.0/26".parse().unwrap();
    for (json, confirmed) in [
        ("", true),
        ("{}", true),
        (r#"{"state":"confirmed"}"#, true),
        (r#"{"state":"pending"}"#, false),
        (r#"{"state":"new"}"#, false),
    ] {
        match Value::parse(&Key::Affinity { host: "n".into(), block }, json.as_bytes()) {
            Ok(Value::Affinity(affinity)) => assert_eq!(affinity.is_confirmed(), confirmed, "{json}"),
            other => panic!("{json}: {other:?}"),
        }
    }
    error(&Key::Block(block), b"");
}
