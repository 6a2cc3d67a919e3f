//! Passwords of BGP sessions: a node whose BGPPeer names a secret, and real BIRD with TCP MD5.
//!
//! ```text
//!   node eth0 10.98.0.1, AS 64512 ------- tor eth0 10.98.0.2, AS 64999, BIRD, password
//! ```

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use integration::lab::{Lab, Namespace, Process, eventually};
use integration::picture::{binary, routes};
use integration::seed;
use integration::store::{Store, StoreKind};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);
const TOLD: &str = "203.0.113.0/24 via 10.98.0.2 dev eth0 proto bird";

struct Pair {
    node: Namespace,
    tor: Namespace,
    bird: Process,
    agent: Process,
    store: Store,
    lab: Lab,
}

impl Pair {
    fn start(name: &str, passwords: &Path, lab: Lab) -> anyhow::Result<Self> {
        let mut lab = lab;
        let (node, tor) = (lab.host("node")?, lab.host("tor")?);
        node.wire("eth0", &tor, "eth0", None)?;
        node.address("eth0", "10.98.0.1/24".parse()?)?;
        tor.address("eth0", "10.98.0.2/24".parse()?)?;
        let binary = binary()?;
        let store = Store::start(StoreKind::Embedded, &lab, &node, "127.0.0.1", &binary)?;
        let mut items = seed::cluster();
        items.push(seed::bgp_configuration(64512, false));
        items.push(seed::node("node1", 1, &["10.98.0.1/24".parse()?]));
        let (key, mut peer) = seed::bgp_peer("tor", "10.98.0.2".parse()?, 64999);
        peer["spec"]["password"] = json!({"secretKeyRef": {"name": "bgp", "key": "tor"}});
        items.push((key, peer));
        store.put(&items)?;
        let dir = lab.dir().to_owned();
        let mut agent = Process::new(name, &node, &dir, &[&binary.to_string_lossy(), "bird"])
            .env("NODENAME", "node1")
            .env("CARACAL_LOG", "debug")
            .env("CARACAL_BGP_PASSWORDS", &passwords.to_string_lossy())
            .env("CARACAL_RUN_DIR", &lab.file("run").to_string_lossy());
        for (key, value) in store.env() {
            agent = agent.env(key, &value);
        }
        let (conf, ctl) = (lab.file("bird.conf"), lab.file("tor.ctl"));
        let argv = ["bird", "-f", "-c", &conf.to_string_lossy(), "-s", &ctl.to_string_lossy()];
        let bird = Process::new("tor", &tor, &dir, &argv);
        Ok(Self { node, tor, bird, agent, store, lab })
    }

    /// Real BIRD from now on has this password.
    fn bird_says(&mut self, password: &str) -> anyhow::Result<()> {
        let conf = format!(
            "router id 10.98.0.2;\nlog stderr all;\nprotocol device {{}}\n\
             protocol static {{ ipv4; route 203.0.113.0/24 unreachable; }}\n\
             protocol bgp node {{ local 10.98.0.2 as 64999; neighbor 10.98.0.1 as 64512; password \"{password}\"; \
             connect delay time 1; connect retry time 2; error wait time 1, 2; ipv4 {{ import all; export all; }}; }}\n"
        );
        std::fs::write(self.lab.file("bird.conf"), conf)?;
        self.bird.stop();
        self.bird.start()
    }

    fn told(&self) -> anyhow::Result<Duration> {
        let check = || {
            let show = format!("birdc -s {} show protocols node", self.lab.file("tor.ctl").display());
            let session = self.tor.sh(&show).map_err(|err| err.to_string())?;
            if !session.contains("Established") {
                return Err(session);
            }
            let have = routes(&self.node).map_err(|err| err.to_string())?;
            if have.iter().any(|line| line.starts_with(TOLD)) { Ok(()) } else { Err(format!("{have:#?}")) }
        };
        Ok(eventually(SOON, check).with_context(|| self.lab.logs(40))?.1)
    }

    fn config(&self, passwords: &Path) -> anyhow::Result<(String, String)> {
        let passwords = passwords.to_string_lossy().into_owned();
        let binary = binary()?.to_string_lossy().into_owned();
        let argv = [binary.as_str(), "ctl", "bgp", "config", "--node", "node1", "-o", "json"];
        let mut env = self.store.env();
        env.push(("CARACAL_BGP_PASSWORDS", passwords));
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        match integration::lab::run_in(&self.node, &argv, &env)? {
            (true, stdout, stderr) => Ok((stdout, stderr)),
            (false, _, stderr) => bail!("ctl bgp config: {stderr}"),
        }
    }
}

/// Puts the passwords there as one step.
fn put(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode))?;
    Ok(std::fs::rename(beside, path)?)
}

#[test]
fn a_session_with_real_bird_takes_its_password_from_the_file_and_follows_a_rotation() -> anyhow::Result<()> {
    let lab = Lab::new("pwd")?;
    let passwords = lab.file("passwords.yaml");
    put(&passwords, "bgp: { tor: 'tulip-one' }\n", 0o600)?;
    let mut pair = Pair::start("agent", &passwords, lab)?;
    pair.bird_says("tulip-one")?;
    pair.agent.start()?;
    println!("session with a password: routes after {:?}", pair.told()?);

    let (shown, _) = pair.config(&passwords)?;
    assert!(shown.contains("\"password\": true"), "{shown}");
    assert!(!shown.contains("tulip"), "{shown}");

    // Others may read it: it is not used, the session keeps what it has.
    put(&passwords, "bgp: { tor: 'tulip-open' }\n", 0o644)?;
    eventually(SOON, || match pair.agent.log() {
        log if log.contains("everybody may read it") => Ok(()),
        log => Err(log),
    })?;
    let (shown, complaint) = pair.config(&passwords)?;
    assert!(complaint.contains("mode 0644") && !shown.contains("\"password\": true"), "{complaint}{shown}");
    let before = pair.agent.log();
    std::thread::sleep(Duration::from_secs(3));
    assert!(!pair.agent.log()[before.len()..].contains("session"), "{}", pair.lab.logs(40));

    // Both ends rotate.
    put(&passwords, "bgp: { tor: 'tulip-two' }\n", 0o600)?;
    eventually(SOON, || match pair.agent.log() {
        log if log.matches("BGP passwords read").count() == 2 => Ok(()),
        log => Err(log),
    })?;
    pair.bird_says("tulip-two")?;
    println!("session after a rotation: routes after {:?}", pair.told()?);
    let log = pair.agent.log();
    assert!(!log.contains("tulip"), "the log shows a password");
    Ok(())
}

#[test]
fn a_wrong_password_keeps_the_session_down() -> anyhow::Result<()> {
    let lab = Lab::new("pww")?;
    let mount = lab.file("secrets");
    std::fs::create_dir_all(mount.join("bgp"))?;
    put(&mount.join("bgp/tor"), "wrong\n", 0o400)?;
    let mut pair = Pair::start("agent", &mount, lab)?;
    pair.bird_says("right")?;
    pair.agent.start()?;
    std::thread::sleep(Duration::from_secs(6));
    assert!(!routes(&pair.node)?.iter().any(|line| line.starts_with(TOLD)), "{}", pair.lab.logs(40));
    put(&mount.join("bgp/tor"), "right\n", 0o400)?;
    println!("session after the password was mended: routes after {:?}", pair.told()?);
    Ok(())
}
