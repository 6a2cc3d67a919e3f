//! The datastore of a picture: a real etcd on the lab's LAN, or the embedded file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use caracal_datastore::{Config, Error as StoreError, Expect};
use serde_json::Value;

use crate::lab::{Lab, Namespace, Process, eventually, run_in};
use crate::seed::Item;

/// Which datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// etcd v3 in the LAN's namespace.
    Etcd,
    /// A file that the processes of this machine share.
    Embedded,
}

/// A running datastore.
#[derive(Debug)]
pub struct Store {
    kind: StoreKind,
    space: Namespace,
    endpoint: String,
    file: PathBuf,
    binary: PathBuf,
    /// The etcd process; none for the embedded store.
    pub etcd: Option<Process>,
}

impl Store {
    /// Starts etcd at `address` in `space`, or names the file of the embedded store. `binary` is caracal's.
    pub fn start(
        kind: StoreKind,
        lab: &Lab,
        space: &Namespace,
        address: &str,
        binary: &Path,
    ) -> anyhow::Result<Self> {
        let endpoint = format!("http://{address}:2379");
        let mut store = Self {
            kind,
            space: space.clone(),
            endpoint,
            file: lab.file("store.db"),
            binary: binary.into(),
            etcd: None,
        };
        if kind == StoreKind::Etcd {
            let data = lab.file("etcd");
            let mut etcd = Process::new(
                "etcd",
                space,
                lab.dir(),
                &[
                    "etcd",
                    "--data-dir",
                    &data.to_string_lossy(),
                    "--listen-client-urls",
                    &store.endpoint,
                    "--advertise-client-urls",
                    &store.endpoint,
                    "--listen-peer-urls",
                    "http://127.0.0.1:2380",
                    "--log-level",
                    "error",
                    "--unsafe-no-fsync",
                ],
            )
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH);
            etcd.start()?;
            store.etcd = Some(etcd);
            store.wait_healthy()?;
        }
        Ok(store)
    }

    /// Waits until it answers.
    pub fn wait_healthy(&self) -> anyhow::Result<()> {
        if self.kind == StoreKind::Etcd {
            eventually(Duration::from_secs(20), || {
                self.etcdctl(&["--command-timeout=1s", "endpoint", "health"]).map_err(|err| err.to_string())
            })?;
        }
        Ok(())
    }

    /// Compacts etcd's history up to now.
    pub fn compact(&self) -> anyhow::Result<()> {
        let status: Value = serde_json::from_str(&self.etcdctl(&["endpoint", "status", "-w", "json"])?)?;
        let revision = &status[0]["Status"]["header"]["revision"];
        self.etcdctl(&["compact", &revision.to_string()]).map(drop)
    }

    /// Variables that make an agent or a client use this datastore.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        match self.kind {
            StoreKind::Etcd => {
                vec![("DATASTORE_TYPE", "etcdv3".into()), ("ETCD_ENDPOINTS", self.endpoint.clone())]
            }
            StoreKind::Embedded => vec![
                ("DATASTORE_TYPE", "embedded".into()),
                ("CARACAL_EMBEDDED_PATH", self.file.to_string_lossy().into_owned()),
            ],
        }
    }

    /// Runs `etcdctl` against it.
    pub fn etcdctl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut argv = vec!["etcdctl", "--endpoints", &self.endpoint];
        argv.extend(args);
        match run_in(&self.space, &argv, &[("ETCDCTL_API", "3")])? {
            (true, stdout, _) => Ok(stdout),
            (false, _, stderr) => bail!("etcdctl {}: {}", args.join(" "), stderr.trim()),
        }
    }

    /// Runs `caracal ctl` against it; returns exit success, standard output, standard error.
    pub fn ctl(&self, args: &[&str]) -> anyhow::Result<(bool, String, String)> {
        let binary = self.binary.to_string_lossy().into_owned();
        let mut argv = vec![binary.as_str(), "ctl"];
        argv.extend(args);
        let env = self.env();
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        run_in(&self.space, &argv, &env)
    }

    /// Puts raw values: by `etcdctl`, or into the embedded store's file.
    pub fn put(&self, items: &[Item]) -> anyhow::Result<()> {
        for (key, value) in items {
            self.put_raw(key, &value.to_string())?;
        }
        Ok(())
    }

    /// Puts one value as it is, valid or not.
    pub fn put_raw(&self, key: &str, value: &str) -> anyhow::Result<()> {
        match self.kind {
            StoreKind::Etcd => self.etcdctl(&["put", "--", key, value]).map(drop),
            StoreKind::Embedded => self
                .file(async |store| store.put(key, value.as_bytes().to_vec(), Expect::Any, None).await)
                .map(drop),
        }
    }

    /// Puts many values of any bytes and size, by a client of our own.
    pub fn put_many(&self, items: Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
        self.client(async move |store| {
            for (key, value) in items {
                store.put(&key, value, Expect::Any, None).await?;
            }
            Ok(())
        })
    }

    /// Deletes many keys, by a client of our own; absent ones are no error.
    pub fn delete_many(&self, keys: Vec<String>) -> anyhow::Result<()> {
        self.client(async move |store| {
            for key in keys {
                match store.delete(&key, Expect::Any).await {
                    Ok(_) | Err(StoreError::NotFound { .. }) => {}
                    Err(err) => return Err(err),
                }
            }
            Ok(())
        })
    }

    /// Deletes one key.
    pub fn delete(&self, key: &str) -> anyhow::Result<()> {
        match self.kind {
            StoreKind::Etcd => self.etcdctl(&["del", "--", key]).map(drop),
            StoreKind::Embedded => self.file(async |store| store.delete(key, Expect::Any).await).map(drop),
        }
    }

    /// The value of a key, when there is one.
    pub fn get(&self, key: &str) -> anyhow::Result<Option<Value>> {
        match self.kind {
            StoreKind::Etcd => {
                let text = self.etcdctl(&["get", "--print-value-only", "--", key])?;
                Ok(if text.trim().is_empty() { None } else { Some(serde_json::from_str(&text)?) })
            }
            StoreKind::Embedded => {
                let stored = self.file(async |store| store.get(key).await)?;
                Ok(stored.map(|item| serde_json::from_slice(&item.value)).transpose()?)
            }
        }
    }

    /// Operations by a client of our own, from the namespace of the datastore.
    pub fn client<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&dyn caracal_datastore::Store) -> Result<T, StoreError> + Send + 'static,
    ) -> anyhow::Result<T> {
        let config = match self.kind {
            StoreKind::Etcd => Config::etcd([self.endpoint.as_str()]),
            StoreKind::Embedded => Config::embedded(&self.file),
        };
        self.space.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let store = caracal_datastore::connect(&config).await?;
                Ok(work(store.as_ref()).await?)
            })
        })
    }

    /// One operation on the embedded store's file.
    fn file<T>(
        &self,
        work: impl AsyncFnOnce(&dyn caracal_datastore::Store) -> Result<T, StoreError>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let store = caracal_datastore::connect(&Config::embedded(&self.file)).await?;
            Ok(work(store.as_ref()).await?)
        })
    }
}
