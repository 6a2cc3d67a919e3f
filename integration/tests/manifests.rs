//! What `manifests/` ships is what the programs take: every example object, every router file, every unit.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use integration::lab::Stream;
use integration::picture::{Options, Picture, binary};
use integration::router::RouterKind;
use integration::store::StoreKind;

/// A user without any right of its own.
const NOBODY: u32 = 65_534;

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn files(folder: &str, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(manifests().join(folder))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    found.retain(|path| path.extension().is_some_and(|e| e == extension));
    found.sort();
    anyhow::ensure!(!found.is_empty(), "manifests/{folder} holds no *.{extension}");
    Ok(found)
}

/// Exit success, and everything it said.
fn caracal(args: &[&str]) -> anyhow::Result<(bool, String)> {
    let output = Command::new(binary()?).args(args).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn is_object(path: &Path) -> anyhow::Result<bool> {
    Ok(std::fs::read_to_string(path)?.lines().any(|line| line.starts_with("kind: ")))
}

#[test]
fn every_example_is_valid() -> anyhow::Result<()> {
    let (mut objects, mut routers) = (0, 0);
    for path in files("examples", "yaml")? {
        let name = path.to_string_lossy();
        let (good, said) = if is_object(&path)? {
            objects += 1;
            caracal(&["ctl", "validate", "-f", &name])?
        } else {
            routers += 1;
            caracal(&["bird", "--config", &name, "--check"])?
        };
        assert!(good, "{name}: {said}");
    }
    assert!(objects >= 5 && routers >= 2, "{objects} objects, {routers} router files");
    Ok(())
}

/// The two checks above can fail: a mistake in either sort of file is found and named.
#[test]
fn a_mistake_in_an_example_is_found() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let broken = |file: &str, from: &str, to: &str| -> anyhow::Result<String> {
        let text = std::fs::read_to_string(manifests().join("examples").join(file))?;
        anyhow::ensure!(text.contains(from), "{file} does not say {from}");
        let path = dir.path().join(file);
        std::fs::write(&path, text.replace(from, to))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let pool = broken("pool.yaml", "blockSize: 26", "blockSize: 7")?;
    let (good, said) = caracal(&["ctl", "validate", "-f", &pool])?;
    assert!(!good && said.contains("lockSize"), "{said}");
    let peer = broken("bgp-peer.yaml", "caracal.io/export: own", "caracal.io/export: mine")?;
    let (good, said) = caracal(&["ctl", "validate", "-f", &peer])?;
    assert!(!good && said.contains("must be own, no-transit or all"), "{said}");
    // An annotation that nobody reads is no error, and is said.
    let peer = broken("bgp-peer.yaml", "caracal.io/export: own", "caracal.io/exprot: own")?;
    let (good, said) = caracal(&["ctl", "validate", "-f", &peer])?;
    assert!(
        good && said.contains("warning: BGPPeer(top-of-rack): metadata.annotations[caracal.io/exprot]"),
        "{said}"
    );
    let router = broken("router.yaml", "holdTime: 90", "holdTimer: 90")?;
    let (good, said) = caracal(&["bird", "--config", &router, "--check"])?;
    assert!(!good && said.contains("holdTimer"), "{said}");
    Ok(())
}

/// Lines `Name=value` of a unit, the last one of each name; lists are joined.
fn directives(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for line in std::fs::read_to_string(path)?.lines().filter(|line| !line.starts_with(['#', '['])) {
        if let Some((name, value)) = line.split_once('=') {
            let all = found.entry(name.into()).or_default();
            all.push_str(if all.is_empty() { "" } else { " " });
            all.push_str(value);
        }
    }
    Ok(found)
}

#[test]
fn every_unit_restarts_and_flushes_nothing() -> anyhow::Result<()> {
    let units = files("systemd", "service")?;
    assert_eq!(units.len(), 4);
    for path in units {
        let unit = directives(&path)?;
        let name = path.file_stem().context("a unit has a name")?.to_string_lossy().into_owned();
        let role = name.trim_start_matches("caracal-").to_owned();
        let program = match role.as_str() {
            "router" => "/usr/local/bin/caracal bird --config /etc/caracal/router.yaml".to_owned(),
            role => format!("/usr/local/bin/caracal {role}"),
        };
        for (directive, want) in [
            ("ExecStart", program.as_str()),
            ("Type", "exec"),
            ("Restart", "always"),
            ("RestartSec", "1"),
            ("StartLimitIntervalSec", "0"),
            ("User", "caracal"),
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
            ("MemoryDenyWriteExecute", "yes"),
        ] {
            assert_eq!(unit.get(directive).map(String::as_str), Some(want), "{name}: {directive}");
        }
        for directive in ["ExecStop", "ExecStopPost"] {
            assert!(!unit.contains_key(directive), "{name}: {directive}: a stop must leave every route");
        }
        // BFD's thread goes before others, and nothing else of @resources is allowed.
        assert_eq!(unit.get("LimitNICE").map(String::as_str), (role != "felix").then_some("-10"), "{name}");
        let enters = unit["CapabilityBoundingSet"].contains("CAP_SYS_ADMIN");
        assert_eq!(
            enters,
            ["felix", "node"].contains(&role.as_str()),
            "{name}: only felix enters workloads' namespaces"
        );
    }
    Ok(())
}

/// systemd reads the units without a complaint, and its own score of their exposure stays low.
#[test]
fn systemd_accepts_the_units() -> anyhow::Result<()> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing");
        eprintln!("skipped: systemd-analyze is not installed");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    for path in files("systemd", "service")? {
        let name = path.file_name().context("a unit has a name")?.to_string_lossy().into_owned();
        // What the unit names need not exist on the machine that runs the tests.
        let text = std::fs::read_to_string(&path)?
            .replace("/usr/local/bin/caracal", "/bin/true")
            .replace("User=caracal", "User=daemon")
            .lines()
            .filter(|line| !line.starts_with("Conflicts="))
            .collect::<Vec<_>>()
            .join("\n");
        let copy = dir.path().join(&name);
        std::fs::write(&copy, text)?;
        let output = Command::new("systemd-analyze").arg("verify").arg(&copy).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(&name)).collect();
        assert!(output.status.success() && ours.is_empty(), "{name}: {said}");

        let limit = if name.contains("bird") { "17" } else { "25" };
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", &format!("--threshold={limit}")])
            .arg(&copy)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let score = said.lines().last().unwrap_or_default().to_owned();
        assert!(output.status.success(), "{name}: exposed above {limit} tenths: {score}");
    }
    Ok(())
}

/// The user and the capabilities of the units are enough for the whole picture.
#[test]
fn the_rights_of_the_units_suffice() -> anyhow::Result<()> {
    // Where that user can run it, wherever this tree lies.
    let programs = tempfile::tempdir()?;
    std::fs::set_permissions(programs.path(), std::fs::Permissions::from_mode(0o755))?;
    let copy = programs.path().join("caracal");
    std::fs::copy(binary()?, &copy)?;
    let options = Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: true, binary: copy };
    let mut picture = Picture::new("mun", &options)?;
    picture.seed()?;
    std::fs::set_permissions(picture.lab.dir(), std::fs::Permissions::from_mode(0o755))?;
    let dir = picture.lab.dir().to_owned();
    for node in &mut picture.nodes {
        let run = dir.join(format!("run-{}", node.name));
        std::fs::create_dir(&run)?;
        std::os::unix::fs::chown(&run, Some(NOBODY), Some(NOBODY))?;
        for (role, agent) in &mut node.agents {
            let unit = directives(&manifests().join(format!("systemd/caracal-{role}.service")))?;
            let caps = unit["CapabilityBoundingSet"].replace("CAP_", "+").replace(' ', ",").to_lowercase();
            let id = NOBODY.to_string();
            agent.under(&[
                "setpriv",
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--no-new-privs",
                "--inh-caps",
                &format!("-all,{caps}"),
                "--ambient-caps",
                &format!("-all,{caps}"),
                "--bounding-set",
                &format!("-all,{caps}"),
            ]);
        }
    }
    picture.start_agents()?;
    picture.converged(Duration::from_secs(20))?;
    let stream =
        Stream::start(&picture.pods["pod-a"], &picture.pods["pod-c"], "10.100.104.15".parse()?, 7000, 500)?;
    std::thread::sleep(Duration::from_millis(200));
    let report = stream.finish()?;
    assert_eq!(report.lost, 0, "{report:?}");
    for node in &mut picture.nodes {
        for (role, agent) in &mut node.agents {
            let pid = agent.pid().with_context(|| format!("{role} has ended"))?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default();
            assert!(uid.contains(&NOBODY.to_string()), "{role} runs as {uid}");
        }
    }
    Ok(())
}

/// Names for `ip route` must not contradict the numbers that the agents write, nor what iproute2 knows.
#[test]
fn protocol_names_fit_the_numbers() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(manifests().join("rt_protos.d/caracal.conf"))?;
    let names: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(names, [["80", "felix"]]);
    let known = ["/etc/iproute2/rt_protos", "/usr/share/iproute2/rt_protos"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .context("iproute2 is not installed")?;
    let known: Vec<Vec<&str>> = known.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(known.contains(&vec!["12", "bird"]), "iproute2 names 12 itself");
    assert!(!known.iter().any(|line| line.first() == Some(&"80")), "80 is free");
    Ok(())
}
