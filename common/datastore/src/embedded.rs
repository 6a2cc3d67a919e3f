//! The embedded store.
use crate::error::Error;
use crate::store::{Expect, KeyValue, Listing, Store, Watch};
use async_trait::async_trait;
use std::path::Path;
use std::time::Duration;
/// A store in one file, shared by the processes of a host.
pub struct Embedded {
    never: std::convert::Infallible,
}
impl Embedded {
    /// Opens or creates the file.
    pub fn open(path: &Path) -> Result<Embedded, Error> {
        Err(Error::Config {
            field: path.display().to_string(),
            reason: "not available in this build".to_owned(),
        })
    }
}
#[async_trait]
impl Store for Embedded {
    async fn get(&self, _: &str) -> Result<Option<KeyValue>, Error> {
        match self.never {}
    }
    async fn list(&self, _: &str) -> Result<Listing, Error> {
        match self.never {}
    }
    async fn put(&self, _: &str, _: Vec<u8>, _: Expect, _: Option<Duration>) -> Result<i64, Error> {
        match self.never {}
    }
    async fn delete(&self, _: &str, _: Expect) -> Result<KeyValue, Error> {
        match self.never {}
    }
    async fn watch(&self, _: &[String], _: i64) -> Result<Watch, Error> {
        match self.never {}
    }
    fn describe(&self) -> String {
        match self.never {}
    }
}
