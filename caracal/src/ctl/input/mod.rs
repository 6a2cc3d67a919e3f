//! From files, directories and standard input to objects in their kind's shape.

mod files;
mod objects;
pub(crate) mod yaml;

pub(crate) use files::{Source, sources};
pub(crate) use objects::{Object, kind_by_name, objects};
