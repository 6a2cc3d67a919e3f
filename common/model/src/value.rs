//! What is stored under a key, and how its bytes are read.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::block::Block;
use crate::error::ValueError;
use crate::ipam::{BlockAffinityValue, IpamConfig, IpamHandle, IpamHost};
use crate::key::Key;
use crate::resource::Resource;
use crate::status::{EndpointStatus, FelixStatusReport, Status};

/// Values above this size are not read. etcd refuses requests above 1.5 MiB by default.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// A typed value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A v3 resource.
    Resource(Resource),
    /// An allocation block.
    Block(Block),
    /// A host's or a virtual owner's claim on a block.
    Affinity(BlockAffinityValue),
    /// An IPAM handle.
    Handle(IpamHandle),
    /// The IPAM configuration.
    IpamConfig(IpamConfig),
    /// The legacy host marker.
    IpamHost(IpamHost),
    /// A status that felix wrote.
    Status(Status),
}

impl Value {
    /// Reads the value of a key. An empty value is a confirmed affinity under an affinity key, an error elsewhere.
    pub fn parse(key: &Key, bytes: &[u8]) -> Result<Value, ValueError> {
        let path = key.path();
        Ok(match key {
            Key::Resource { kind, .. } => Value::Resource(Resource::parse(*kind, &path, bytes)?),
            Key::Block(cidr) => {
                let block: Block = decode(&path, bytes)?;
                block.check(&path, *cidr)?;
                Value::Block(block)
            }
            Key::Affinity { .. } | Key::VirtualAffinity { .. } if bytes.is_empty() => {
                Value::Affinity(BlockAffinityValue::default())
            }
            Key::Affinity { .. } | Key::VirtualAffinity { .. } => Value::Affinity(decode(&path, bytes)?),
            Key::Handle(_) => Value::Handle(decode(&path, bytes)?),
            Key::IpamConfig => Value::IpamConfig(decode(&path, bytes)?),
            Key::IpamHost(_) if bytes.is_empty() => Value::IpamHost(IpamHost::default()),
            Key::IpamHost(_) => Value::IpamHost(decode(&path, bytes)?),
            Key::FelixStatus { .. } | Key::FelixLastStatus { .. } => {
                Value::Status(Status::Felix(decode::<FelixStatusReport>(&path, bytes)?))
            }
            Key::WorkloadStatus { .. } | Key::HostEndpointStatus { .. } => {
                Value::Status(Status::Endpoint(decode::<EndpointStatus>(&path, bytes)?))
            }
        })
    }

    /// Compact JSON as it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        match self {
            Value::Resource(value) => encode(value),
            Value::Block(value) => encode(value),
            Value::Affinity(value) => encode(value),
            Value::Handle(value) => encode(value),
            Value::IpamConfig(value) => encode(value),
            Value::IpamHost(value) => encode(value),
            Value::Status(Status::Felix(value)) => encode(value),
            Value::Status(Status::Endpoint(value)) => encode(value),
        }
    }
}

impl From<Resource> for Value {
    fn from(resource: Resource) -> Self {
        Value::Resource(resource)
    }
}

/// Compact JSON.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("invariant: values have string keys and finite numbers")
}

/// Reads JSON bytes; every way to be wrong ends in one error.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, ValueError> {
    const REPAIR: &str = "repair the object with apply or replace, or delete the key";
    let whole = |reason: String| Err(ValueError::new(key, "value", reason, REPAIR));
    if bytes.len() > MAX_VALUE_BYTES {
        return whole(format!("{} bytes are more than the {MAX_VALUE_BYTES} that are read", bytes.len()));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.trim_matches([' ', '\t', '\n', '\r']),
        Err(error) => return whole(format!("not UTF-8 at byte {}", error.valid_up_to())),
    };
    match text.as_bytes().first() {
        None => return whole("empty".to_owned()),
        Some(b'{') => {}
        Some(_) if text == "null" => return whole("null where an object must be".to_owned()),
        Some(_) => return whole("not a JSON object".to_owned()),
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut json);
    match read {
        Err(error) => {
            Err(ValueError::new(key, &error.path().to_string(), reason(error.inner()), fix(error.inner())))
        }
        Ok(value) => match json.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(ValueError::new(key, "value", reason(&error), REPAIR)),
        },
    }
}

/// Reads decoded JSON.
pub(crate) fn decode_value<T: DeserializeOwned>(key: &str, json: serde_json::Value) -> Result<T, ValueError> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        ValueError::new(key, &error.path().to_string(), reason(error.inner()), fix(error.inner()))
    })
}

/// What is wrong, without the offending value: it may be a secret or a megabyte.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return text;
    }
    for kind in ["invalid type: ", "invalid value: "] {
        let Some(rest) = text.strip_prefix(kind) else { continue };
        let Some((found, expected)) = rest.rsplit_once(", expected ") else { continue };
        let found = match found.split([' ', '`', '"']).next().unwrap_or_default() {
            "map" => "an object",
            "sequence" => "a list",
            "integer" => "a number",
            "floating" => "a number with a fraction",
            "string" => "a text",
            "boolean" => "true or false",
            other => other,
        };
        return format!("{found} where {} must be", wanted(strip_position(expected)));
    }
    strip_position(&text).to_owned()
}

/// Rust's words for what is wanted, in the user's.
fn wanted(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number from 0",
        "i32" | "i64" => "a whole number",
        "f64" => "a number",
        "a string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

fn fix(error: &serde_json::Error) -> &'static str {
    if error.is_data() {
        "correct the field with apply or replace, or delete the object"
    } else {
        "the value is damaged: write the object again, or delete the key"
    }
}

fn strip_position(text: &str) -> &str {
    text.rfind(" at line ").map_or(text, |at| &text[..at])
}
