//! `create`, `apply`, `replace`, `validate` and `delete`.

use std::path::Path;

use caracal_model::annotation;

use super::console::{complain, line};
use super::summary::{APPLY, CREATE, REPLACE, Tally, VALIDATE, Verb};
use super::{names, session};
use crate::ctl::args::{Create, Delete, Files, Objects};
use crate::ctl::client::{self, Client, metadata};
use crate::ctl::error::Error;
use crate::ctl::input::{Object, kind_by_name, objects, sources};

/// What is done with each object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write {
    Create { skip_exists: bool },
    Apply,
    Replace,
}

/// `create`.
pub(super) async fn create(create: &Create, allow_mismatch: bool) -> Result<bool, String> {
    write(&create.files, Write::Create { skip_exists: create.skip_exists }, CREATE, allow_mismatch).await
}

/// `apply`.
pub(super) async fn apply(objects: &Objects, allow_mismatch: bool) -> Result<bool, String> {
    write(&objects.files, Write::Apply, APPLY, allow_mismatch).await
}

/// `replace`.
pub(super) async fn replace(objects: &Objects, allow_mismatch: bool) -> Result<bool, String> {
    write(&objects.files, Write::Replace, REPLACE, allow_mismatch).await
}

/// The objects of `-f`; None if there are none and that is no error.
pub(in crate::ctl) fn read(files: &Files) -> Result<Option<Vec<Object>>, String> {
    let Some(name) = files.filename.as_deref() else {
        return Err("required flag(s) \"filename\" not set; name a file, a directory, or - for standard input with -f".to_owned());
    };
    let mut found = Vec::new();
    for source in sources(name, files.recursive)? {
        found.extend(objects(&source)?);
    }
    match (found.is_empty(), files.skip_empty) {
        (false, _) => Ok(Some(found)),
        (true, true) => {
            line("No resources specified");
            Ok(None)
        }
        (true, false) if Path::new(name).is_dir() => {
            Err(format!("no resources specified in directory {name}"))
        }
        (true, false) => Err(format!("no resources specified in file {name}")),
    }
}

async fn write(files: &Files, write: Write, verb: Verb, allow_mismatch: bool) -> Result<bool, String> {
    let Some(objects) = read(files)? else { return Ok(true) };
    let client = session::open(&files.connection, allow_mismatch).await?;
    client::ensure_initialized(&client)
        .await
        .map_err(|e| format!("failed to initialise the datastore: {e}"))?;
    let mut tally = Tally::new(&objects);
    for object in &objects {
        let result = one(&client, object, &files.namespace, write).await;
        tally.count(object, result);
    }
    Ok(tally.tell(verb))
}

async fn one(client: &Client, object: &Object, namespace: &str, write: Write) -> Result<(), Error> {
    let value = names::settle(object, namespace).map_err(Error::Other)?;
    warn_of_annotations(object);
    let result = match write {
        Write::Create { .. } => client.create(object.kind, &value).await,
        Write::Apply => client.apply(object.kind, &value).await,
        Write::Replace => client.update(object.kind, &value).await,
    };
    match (result, write) {
        (Err(Error::AlreadyExists(_)), Write::Create { skip_exists: true }) => Ok(()),
        (result, _) => result.map(|_| ()),
    }
}

/// An annotation of ours that nobody reads is a typing mistake, or of a newer release.
fn warn_of_annotations(object: &Object) {
    let given = object.value.pointer("/metadata/annotations").and_then(serde_json::Value::as_object);
    let names = given.into_iter().flatten().map(|(name, _)| name.as_str());
    for name in annotation::unknown(object.kind.kind, names) {
        complain(format!(
            "warning: {}({}): metadata.annotations[{name}] is no annotation that BGP knows and does nothing; \
             correct its name (docs/annotations.md has all), or remove it",
            object.kind.name,
            metadata(&object.value, "name"),
        ));
    }
}

/// `validate`: what an object must satisfy by itself; no datastore is asked.
pub(super) fn validate(arguments: &Objects) -> Result<bool, String> {
    let files = &arguments.files;
    let Some(objects) = read(files)? else { return Ok(true) };
    let mut tally = Tally::new(&objects);
    for object in &objects {
        warn_of_annotations(object);
        let value = names::settle(object, &files.namespace).map_err(Error::Other);
        tally.count(object, value.and_then(|value| client::valid_alone(object.kind, value)));
    }
    Ok(tally.tell(VALIDATE))
}

/// `delete`.
pub(super) async fn delete(arguments: &Delete, allow_mismatch: bool) -> Result<bool, String> {
    let files = &arguments.files;
    let objects = match (arguments.what.split_first(), &files.filename) {
        (Some(_), Some(_)) => {
            return Err("name objects either with -f or by kind and name, not both".to_owned());
        }
        (None, _) => match read(files)? {
            Some(objects) => objects,
            None => return Ok(true),
        },
        (Some((kind, wanted)), None) => named(kind, wanted)?,
    };
    let client = session::open(&files.connection, allow_mismatch).await?;
    let mut tally = Tally::new(&objects);
    for object in &objects {
        let result = match delete_one(&client, object, &files.namespace).await {
            Err(Error::DoesNotExist(_)) if arguments.skip_not_exists => Ok(()),
            other => other,
        };
        tally.count(object, result);
    }
    Ok(tally.tell_deletions())
}

async fn delete_one(client: &Client, object: &Object, namespace: &str) -> Result<(), Error> {
    let field = |name| metadata(&object.value, name);
    let namespace = names::namespace(object.kind, field("namespace"), namespace).map_err(Error::Other)?;
    client.delete(object.kind, &namespace, field("name"), field("resourceVersion")).await
}

/// An object for each name; one without a name if there are no names.
pub(super) fn named(kind: &str, wanted: &[String]) -> Result<Vec<Object>, String> {
    let kind = names::kind(kind)?;
    if wanted.iter().any(String::is_empty) {
        return Err("resource name may not be empty".to_owned());
    }
    Ok(match wanted {
        [] => vec![kind_by_name(kind, "")],
        wanted => wanted.iter().map(|name| kind_by_name(kind, name)).collect(),
    })
}
