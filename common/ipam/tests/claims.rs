//! Nodes that race for blocks on a real etcd: one owner, always.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_datastore::{Config, Expect, Store, connect};
use caracal_ipam::{Outcome, claim_for, release_stale};
use caracal_model::ipam::Owner;
use caracal_model::{Key, Kind, Value, prefix};

const NOW: (&str, u64) = ("2026-01-02T03:04:05Z", 1_767_323_045_000_000_000);

struct Etcd {
    child: Child,
    endpoint: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let port = |l: &TcpListener| l.local_addr().unwrap().port();
        let (a, b) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let endpoint = format!("http://127.0.0.1:{}", port(&a));
        let peer = format!("http://127.0.0.1:{}", port(&b));
        drop((a, b));
        let data = tempfile::tempdir().unwrap();
        let child = Command::new("etcd")
            .args([
                "--listen-client-urls",
                &endpoint,
                "--advertise-client-urls",
                &endpoint,
                "--listen-peer-urls",
                &peer,
            ])
            .args(["--log-level", "error", "--unsafe-no-fsync", "--data-dir"])
            .arg(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (Debian: etcd-server)");
        Self { child, endpoint, _data: data }
    }

    async fn store(&self) -> Arc<dyn Store> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match connect(&Config::etcd([self.endpoint.as_str()])).await {
                Ok(store) => return store,
                Err(err) if Instant::now() > deadline => panic!("etcd does not answer: {err}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn put(store: &dyn Store, key: &str, value: &str) {
    store.put(key, value.as_bytes().to_vec(), Expect::Any, None).await.unwrap();
}

async fn pool(store: &dyn Store, cidr: &str, selector: &str) {
    let spec = serde_json::json!({"metadata": {"name": "p"}, "spec": {"cidr": cidr, "blockSize": 26, "nodeSelector": selector}});
    put(store, &Key::global(Kind::IpPool, "p").path(), &spec.to_string()).await;
}

async fn owner(store: &dyn Store, block: &str) -> Option<Owner> {
    let key = Key::Block(block.parse().unwrap());
    let stored = store.get(&key.path()).await.unwrap()?;
    match Value::parse(&key, &stored.value).unwrap() {
        Value::Block(block) => block.owner(),
        _ => None,
    }
}

fn run(test: impl AsyncFnOnce(Arc<dyn Store>)) {
    let etcd = Etcd::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = etcd.store().await;
        test(store).await;
    });
}

#[test]
fn a_free_block_is_claimed_once_and_stays() {
    run(async |store: Arc<dyn Store>| {
        let address: IpAddr = "10.100.104.15".parse().unwrap();
        assert_eq!(claim_for(&*store, "node1", address, NOW).await.unwrap(), Outcome::NoPool);
        pool(&*store, "10.100.0.0/16", "all()").await;
        let block = "10.100.104.0/26".parse().unwrap();
        assert_eq!(claim_for(&*store, "node1", address, NOW).await.unwrap(), Outcome::Claimed(block));
        let before = store.list("/calico/ipam/").await.unwrap();
        assert_eq!(claim_for(&*store, "node1", address, NOW).await.unwrap(), Outcome::Ours(block));
        let after = store.list("/calico/ipam/").await.unwrap();
        assert_eq!(before.rev, after.rev, "a second claim writes nothing");
        let affinity =
            store.get("/calico/ipam/v2/host/node1/ipv4/block/10.100.104.0-26").await.unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&affinity.value).unwrap();
        assert_eq!(value, serde_json::json!({"state": "confirmed", "deleted": false}));
        let borrowed = Outcome::Borrowed { block, owner: Some("node1".into()) };
        assert_eq!(claim_for(&*store, "node2", address, NOW).await.unwrap(), borrowed);
    });
}

#[test]
fn many_nodes_race_and_one_owns_each_block() {
    run(async |store: Arc<dyn Store>| {
        pool(&*store, "10.100.0.0/16", "all()").await;
        for round in 0..8u8 {
            let address: IpAddr = [10, 100, round, 7].into();
            let mut tasks = Vec::new();
            for node in 0..8 {
                let store = store.clone();
                let name = format!("node{node}");
                tasks.push(tokio::spawn(async move {
                    (claim_for(&*store, &name, address, NOW).await.unwrap(), name)
                }));
            }
            let mut winners = Vec::new();
            for task in tasks {
                let (outcome, name) = task.await.unwrap();
                if let Outcome::Claimed(_) | Outcome::Ours(_) = outcome {
                    winners.push(name);
                }
            }
            assert_eq!(winners.len(), 1, "one winner: {winners:?}");
            let block = format!("10.100.{round}.0/26");
            assert_eq!(owner(&*store, &block).await, Some(Owner::Host(winners[0].clone())));
            let held: Vec<String> =
                store.list(prefix::AFFINITIES).await.unwrap().items.into_iter().map(|i| i.key).collect();
            let name = format!("10.100.{round}.0-26");
            assert_eq!(
                held.iter().filter(|key| key.ends_with(&name)).count(),
                1,
                "losers keep no affinity: {held:?}"
            );
        }
    });
}

#[test]
fn what_a_crash_leaves_is_finished_or_taken_back() {
    run(async |store: Arc<dyn Store>| {
        pool(&*store, "10.100.0.0/16", "all()").await;
        let address: IpAddr = "10.100.0.9".parse().unwrap();
        let block = "10.100.0.0/26".parse().unwrap();
        // Died between pending and block.
        put(
            &*store,
            "/calico/ipam/v2/host/node1/ipv4/block/10.100.0.0-26",
            r#"{"state":"pending","deleted":false}"#,
        )
        .await;
        assert_eq!(claim_for(&*store, "node1", address, NOW).await.unwrap(), Outcome::Claimed(block));
        // Died between block and confirmed.
        put(
            &*store,
            "/calico/ipam/v2/host/node1/ipv4/block/10.100.0.0-26",
            r#"{"state":"pending","deleted":false}"#,
        )
        .await;
        assert_eq!(claim_for(&*store, "node1", address, NOW).await.unwrap(), Outcome::Claimed(block));
        assert_eq!(claim_for(&*store, "node1", address, NOW).await.unwrap(), Outcome::Ours(block));
        // Lost the race and died before taking its affinity back.
        put(
            &*store,
            "/calico/ipam/v2/host/node2/ipv4/block/10.100.0.0-26",
            r#"{"state":"pending","deleted":false}"#,
        )
        .await;
        assert_eq!(release_stale(&*store, "node2").await.unwrap(), vec![block]);
        assert!(release_stale(&*store, "node1").await.unwrap().is_empty());
    });
}

#[test]
fn a_pool_that_does_not_select_the_node_is_not_claimed_from() {
    run(async |store: Arc<dyn Store>| {
        pool(&*store, "10.100.0.0/16", "rack == 'r1'").await;
        let address: IpAddr = "10.100.0.9".parse().unwrap();
        assert_eq!(claim_for(&*store, "node1", address, NOW).await.unwrap(), Outcome::NoPool);
        let node = serde_json::json!({"metadata": {"name": "node1", "labels": {"rack": "r1"}}, "spec": {}});
        put(&*store, &Key::global(Kind::Node, "node1").path(), &node.to_string()).await;
        assert!(matches!(claim_for(&*store, "node1", address, NOW).await.unwrap(), Outcome::Claimed(_)));
    });
}
