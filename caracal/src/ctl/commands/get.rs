//! `get`.

use serde_json::{Value, json};

use super::console::{complain, out};
use super::write::{named, read};
use super::{names, session};
use crate::ctl::args::Get;
use crate::ctl::client::{Client, metadata};
use crate::ctl::error::Error;
use crate::ctl::input::Object;
use crate::ctl::output::{Format, Found, render};

/// `get`: prints what is there and tells what is missing.
pub(super) async fn get(arguments: &Get, allow_mismatch: bool) -> Result<bool, String> {
    let files = &arguments.files;
    if arguments.all_namespaces && !files.namespace.is_empty() {
        return Err("cannot use both --namespace and --all-namespaces flags at the same time".to_owned());
    }
    let format = Format::parse(&arguments.output)?;
    let objects = match (arguments.what.split_first(), &files.filename) {
        (Some(_), Some(_)) => {
            return Err("name objects either with -f or by kind and name, not both".to_owned());
        }
        (None, None) => {
            return Err("name a kind to show, for instance: get nodes, or a file with -f".to_owned());
        }
        (None, Some(_)) => match read(files)? {
            Some(objects) => objects,
            None => return Ok(true),
        },
        (Some((kind, wanted)), None) => named(kind, wanted)?,
    };
    let client = session::open(&files.connection, allow_mismatch)
        .await
        .map_err(|e| format!("failed to get resources: {e}"))?;
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for object in &objects {
        match one(&client, object, arguments).await {
            Ok(one) => found.push(one),
            Err(error) => errors.push(error),
        }
    }
    if arguments.export && arguments.what.len() > 1 {
        for found in &mut found {
            export(&mut found.value);
        }
    }
    if !found.is_empty() {
        let as_number = if format.wants_as_number() { client.as_number().await } else { String::new() };
        let namespaces = arguments.all_namespaces || !files.namespace.is_empty();
        out(&render(&format, &found, namespaces, &as_number)?);
    }
    for error in &errors {
        complain(error.to_string());
    }
    Ok(errors.is_empty())
}

/// The object, or every object of its kind if it has no name.
async fn one(client: &Client, object: &Object, arguments: &Get) -> Result<Found, Error> {
    let (kind, name) = (object.kind, metadata(&object.value, "name"));
    let own = metadata(&object.value, "namespace");
    let namespace = if arguments.all_namespaces {
        if !kind.namespaced() {
            return Err(Error::Other(format!("{} is not namespaced", kind.name)));
        }
        if !name.is_empty() {
            return Err(Error::Other(
                "cannot use --all-namespace flag for getting a single resource".to_owned(),
            ));
        }
        String::new()
    } else {
        names::namespace(kind, own, &arguments.files.namespace).map_err(Error::Other)?
    };
    if !name.is_empty() {
        return Ok(Found { kind, value: client.get(kind, &namespace, name).await?.value });
    }
    let list = client.list(kind, &namespace).await?;
    let items: Vec<Value> = list.items.into_iter().map(|item| item.value).collect();
    let value = json!({
        "kind": format!("{}List", kind.name),
        "apiVersion": caracal_model::API_VERSION,
        "metadata": {"resourceVersion": list.rev.to_string()},
        "items": items,
    });
    Ok(Found { kind, value })
}

/// Takes away what another cluster would give its own.
fn export(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["namespace", "uid", "resourceVersion", "creationTimestamp"] {
            metadata.remove(field);
        }
    }
}
