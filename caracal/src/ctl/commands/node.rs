//! `node`: this host, without the datastore.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::console::{line, out};
use crate::ctl::args::{CheckSystem, Node};
use crate::ctl::output::table::boxed;

/// `node …`.
pub(super) fn run(command: &Node) -> Result<bool, String> {
    match command {
        Node::Status => status(),
        Node::Checksystem(arguments) => check_system(arguments),
    }
}

/// Where the sockets of the BGP daemon are: the run directory, else BIRD's own.
fn sockets(name: &str) -> Vec<PathBuf> {
    let run =
        std::env::var_os("CARACAL_RUN_DIR").map_or_else(|| PathBuf::from("/var/run/calico"), PathBuf::from);
    vec![run.join(name), Path::new("/var/run/bird").join(name)]
}

fn status() -> Result<bool, String> {
    let families = [("4", "bird.ctl", "bird"), ("6", "bird6.ctl", "bird6")];
    let answers: Vec<_> = families.iter().map(|(_, socket, _)| protocols(&sockets(socket))).collect();
    if !agent_runs() && answers.iter().all(Result::is_err) {
        return Err("Calico process is not running.".to_owned());
    }
    line("Calico process is running.");
    if answers.iter().all(Result::is_err) {
        line("\nThe BGP backend process (BIRD) is not running.");
        return Ok(true);
    }
    for ((family, _, daemon), answer) in families.iter().zip(&answers) {
        match answer {
            Ok(text) => {
                line(format!("\nIPv{family} BGP status"));
                let peers = peers(text);
                if peers.is_empty() {
                    line(format!("No IPv{family} peers found."));
                } else {
                    out(&boxed(&["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"], &peers, &[]));
                }
            }
            Err(_) => line(format!("\nINFO: BIRDv{family} process: '{daemon}' is not running.")),
        }
    }
    line("");
    Ok(true)
}

/// Whether a process of this host is the node agent, ours or Calico's.
fn agent_runs() -> bool {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(|p| p.file_name().to_str() != Some(&own)).any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        is_agent(&words.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

fn is_agent(words: &[&str]) -> bool {
    let program = words.first().and_then(|w| w.rsplit('/').next()).unwrap_or_default();
    match program {
        "calico-felix" | "felix" => true,
        "calico-node" => words.contains(&"-felix") || words.len() <= 2,
        "caracal" => matches!(words.get(1), Some(&"node" | &"felix")),
        _ => false,
    }
}

/// The daemon's list of protocols, from the first socket that answers.
fn protocols(sockets: &[PathBuf]) -> std::io::Result<String> {
    let mut failure = std::io::Error::from(std::io::ErrorKind::NotFound);
    for socket in sockets {
        match ask(socket, "show protocols") {
            Ok(text) => return Ok(text),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn ask(socket: &Path, command: &str) -> std::io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(4);
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    // The daemon greets first: 0001 BIRD … ready.
    lines.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
    writer.write_all(format!("{command}\n").as_bytes())?;
    let mut text = String::new();
    for answer in lines {
        let answer = answer?;
        if answer.starts_with("0000") {
            return Ok(text);
        }
        text.push_str(&answer);
        text.push('\n');
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// The rows of the table: those of BGP protocols whose name tells the peer.
fn peers(text: &str) -> Vec<Vec<String>> {
    text.lines().filter_map(peer).collect()
}

fn peer(answer: &str) -> Option<Vec<String>> {
    // The first row carries a code, 1002-; the next ones a blank.
    let row = answer
        .strip_prefix(' ')
        .or_else(|| answer.split_once('-').filter(|(code, _)| *code == "1002").map(|(_, row)| row))?;
    let mut words = row.split_whitespace();
    let (name, protocol, _table) = (words.next()?, words.next()?, words.next()?);
    let (kind, address) = name.split_once('_')?;
    let kind = match kind {
        "Mesh" => "node-to-node mesh",
        "Global" => "global",
        "Node" => "node specific",
        _ => return None,
    };
    if protocol != "BGP" {
        return None;
    }
    let address = address.split("_port_").next()?;
    let v4 = address.replace('_', ".");
    let address = if v4.parse::<std::net::Ipv4Addr>().is_ok() { v4 } else { address.replace('_', ":") };
    let state = words.next()?;
    let mut since = words.next().unwrap_or_default().to_owned();
    let mut info: Vec<&str> = words.collect();
    // A date may be followed by a time of day.
    if since.contains('-') && info.first().is_some_and(|word| word.len() == 8 && word.contains(':')) {
        since = format!("{since} {}", info.remove(0));
    }
    Some(vec![address, kind.to_owned(), state.to_owned(), since, info.join(" ")])
}

/// Parts of the kernel, and whether the dataplane needs them.
const MODULES: [(&str, bool); 6] = [
    ("nf_tables", true),
    ("nf_conntrack", true),
    ("veth", true),
    ("ipip", false),
    ("vxlan", false),
    ("wireguard", false),
];
/// The oldest kernel.
const KERNEL: (u32, u32) = (5, 10);

fn check_system(arguments: &CheckSystem) -> Result<bool, String> {
    line("Checking kernel version...");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    let release = release.map_err(|e| format!("cannot read the kernel version: {e}"))?;
    let release = release.trim();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut good = version >= KERNEL;
    line(format!("\t\t{release}\t\t\t\t{}", if good { "OK" } else { "too old" }));
    line("Checking kernel modules...");
    let kernel = Kernel::look(release, arguments.kernel_config.as_deref())?;
    for (module, needed) in MODULES {
        let word = match (kernel.has(module), needed) {
            (Some(true), _) => "OK",
            (Some(false), true) => {
                good = false;
                "missing"
            }
            (Some(false), false) => "missing, optional",
            (None, _) => "unknown: neither module list nor kernel configuration found",
        };
        line(format!("\t\t{module}\t\t\t\t{word}"));
    }
    if !good {
        return Err("one or more kernel modules missing, or the kernel is too old".to_owned());
    }
    line("System meets minimum system requirements to run Calico!");
    Ok(true)
}

/// What can be learned of the running kernel.
struct Kernel {
    loaded: String,
    on_disk: String,
    config: String,
}

impl Kernel {
    fn look(release: &str, config: Option<&str>) -> Result<Kernel, String> {
        let read = |file: String| std::fs::read_to_string(file).unwrap_or_default();
        let config = match config {
            Some(file) => std::fs::read_to_string(file).map_err(|e| format!("cannot read {file}: {e}"))?,
            None => read(format!("/boot/config-{release}")),
        };
        let lists = ["builtin", "dep"].map(|list| read(format!("/lib/modules/{release}/modules.{list}")));
        Ok(Kernel { loaded: read("/proc/modules".to_owned()), on_disk: lists.concat(), config })
    }

    /// Whether it has a module, in any form; None if nothing tells.
    fn has(&self, module: &str) -> Option<bool> {
        let file = format!("/{module}.ko");
        let option = format!("CONFIG_{}=", module.to_ascii_uppercase());
        let set = |line: &str| line.strip_prefix(&option).is_some_and(|value| value == "y" || value == "m");
        let found = self.loaded.lines().any(|l| l.split(' ').next() == Some(module))
            || Path::new("/sys/module").join(module).exists()
            || self.on_disk.lines().any(|l| l.split(':').next().is_some_and(|path| path.contains(&file)))
            || self.config.lines().any(set);
        let told = !(self.on_disk.is_empty() && self.config.is_empty());
        (found || told).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_birds_answer() {
        let text = "2002-name     proto    table    state  since       info\n\
            1002-static1  Static   master   up     2026-01-02  \n \
            Mesh_10_0_0_12 BGP      master   up     2026-01-02  Established   \n \
            Global_10_0_0_9_port_1179 BGP master start 10:20:03 Active        Socket: Connection refused\n \
            Node_fd00__9 BGP master up 2026-01-02 10:20:03 Established\n \
            Local_Workload_10_1_1_1 BGP master up 2026-01-02 Established\n";
        let rows = peers(text);
        assert_eq!(
            rows,
            [
                ["10.0.0.12", "node-to-node mesh", "up", "2026-01-02", "Established"],
                ["10.0.0.9", "global", "start", "10:20:03", "Active Socket: Connection refused"],
                ["fd00::9", "node specific", "up", "2026-01-02 10:20:03", "Established"],
            ]
        );
    }

    #[test]
    fn the_daemon_is_asked_over_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bird.ctl");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"0001 BIRD v0.3.3+birdv1.6.8 ready.\n").unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
            stream.write_all(b"1002-Mesh_10_0_0_12 BGP master up 2026-01-02 Established\n0000 \n").unwrap();
            asked
        });
        let text = protocols(&[dir.path().join("absent.ctl"), path]).unwrap();
        assert_eq!(daemon.join().unwrap(), "show protocols\n");
        assert_eq!(peers(&text).len(), 1);
    }

    #[test]
    fn modules_of_a_kernel() {
        let config = "CONFIG_NF_TABLES=m\nCONFIG_VETH=y\n# CONFIG_IPIP is not set\n".to_owned();
        let told = Kernel { loaded: "absent_module 1 0 -\n".to_owned(), on_disk: String::new(), config };
        assert_eq!(
            ["nf_tables", "veth", "absent_module", "no_such"].map(|m| told.has(m)),
            [Some(true), Some(true), Some(true), Some(false)]
        );
        let silent = Kernel { loaded: String::new(), on_disk: String::new(), config: String::new() };
        assert_eq!(silent.has("no_such"), None);
    }

    #[test]
    fn agents() {
        for words in [&["/usr/bin/caracal", "node"][..], &["calico-felix"], &["calico-node", "-felix"]] {
            assert!(is_agent(words), "{words:?}");
        }
        for words in [&["caracal", "ctl", "node", "status"][..], &["bash"], &[]] {
            assert!(!is_agent(words), "{words:?}");
        }
    }
}
