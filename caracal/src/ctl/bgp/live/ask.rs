//! The other end of the speaker's socket.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bird::api::{Refusal, Request, Socket};
use nix::unistd::{Gid, Group};
use serde_json::Value;

/// An agent that says nothing for this long is not going to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A look at the clock this often while nothing comes.
const GLANCE: Duration = Duration::from_millis(200);

/// A connection to the speaker.
#[derive(Debug)]
pub(super) struct Agent {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

impl Agent {
    /// Connects to the socket named, else to the one of this host's agent.
    pub(super) fn connect(named: Option<&Path>) -> Result<Self, String> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => {
                Socket::from_env(&|name| std::env::var(name).ok())
                    .ok_or(
                        "CARACAL_BGP_SOCKET says that there is no socket (none); set it to a path, or name one with --socket",
                    )?
                    .path
            }
        };
        let stream = UnixStream::connect(&path).map_err(|err| unreachable(&path, err.kind(), &err))?;
        let patient = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
        patient.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { path, reader: BufReader::new(stream) })
    }

    /// Asks for what has no end by itself, and hands over the lines until `until` or until `each` wants no more. Whether
    /// lines are missing.
    pub(super) fn follow(
        &mut self,
        request: &Request,
        until: Instant,
        mut each: impl FnMut(Value) -> Result<bool, String>,
    ) -> Result<bool, String> {
        let at = self.path.display().to_string();
        let lost = |e: &dyn std::fmt::Display| format!("{at}: the connection to the agent broke: {e}");
        let mut question = serde_json::to_string(request).map_err(|e| format!("cannot ask: {e}"))?;
        question.push('\n');
        let stream = self.reader.get_mut();
        stream.set_read_timeout(Some(GLANCE)).map_err(|e| lost(&e))?;
        stream.write_all(question.as_bytes()).map_err(|e| lost(&e))?;
        let (mut line, mut wanted, mut end) = (Vec::new(), true, None);
        loop {
            if end.is_none() && (!wanted || Instant::now() >= until) {
                // Anything ends it; what is under way still comes.
                self.reader.get_mut().write_all(b"\n").map_err(|e| lost(&e))?;
                end = Some(Instant::now() + PATIENCE);
            }
            match self.reader.read_until(b'\n', &mut line) {
                Ok(0) => return Err(format!("{at}: the agent ended the connection; it stopped")),
                Ok(_) if line.ends_with(b"\n") => {}
                Ok(_) => continue,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if end.is_some_and(|end| Instant::now() >= end) {
                        return Err(format!("{at}: the agent does not answer; its log may say why"));
                    }
                    continue;
                }
                Err(e) => return Err(lost(&e)),
            }
            let row: Value =
                serde_json::from_slice(&line).map_err(|e| format!("{at}: the answer is not JSON: {e}"))?;
            line.clear();
            if let Some(end) = row.get("end") {
                return Ok(end["cut"] == true);
            }
            if let Some(error) = row.get("error") {
                let refusal: Refusal = super::typed(error)?;
                return Err(format!("{}\n{}", refusal.text, refusal.fix));
            }
            if wanted {
                wanted = each(row)?;
            }
        }
    }

    /// Asks, and hands over the lines of the answer. Whether a limit cut it.
    pub(super) fn ask(&mut self, request: &Request, mut each: impl FnMut(Value)) -> Result<bool, String> {
        let at = self.path.display().to_string();
        let lost = |e: std::io::Error| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("{at}: the agent does not answer; its log may say why")
            }
            _ => format!("{at}: the connection to the agent broke: {e}"),
        };
        let mut question = serde_json::to_string(request).map_err(|e| format!("cannot ask: {e}"))?;
        question.push('\n');
        self.reader.get_mut().write_all(question.as_bytes()).map_err(&lost)?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line).map_err(&lost)? == 0 {
                return Err(format!(
                    "{at}: the agent ended the connection; it stopped, or it serves as many clients as it can"
                ));
            }
            let row: Value =
                serde_json::from_str(&line).map_err(|e| format!("{at}: the answer is not JSON: {e}"))?;
            if let Some(end) = row.get("end") {
                return Ok(end["cut"] == true);
            }
            if let Some(error) = row.get("error") {
                let refusal: Refusal = super::typed(error)?;
                return Err(format!("{}\n{}", refusal.text, refusal.fix));
            }
            each(row);
        }
    }
}

/// Why there is no connection, and what mends it.
fn unreachable(path: &Path, kind: ErrorKind, err: &std::io::Error) -> String {
    let at = path.display();
    match kind {
        ErrorKind::NotFound => format!(
            "{at}: no BGP speaker answers here: there is no such socket\nStart the agent (systemctl start caracal-node); \
             add `api: {{}}` to the file of a router of its own; or name the socket with --socket"
        ),
        ErrorKind::ConnectionRefused => format!(
            "{at}: no BGP speaker answers here: the agent that made this socket does not run\nStart it (systemctl start \
             caracal-node), and look into its log"
        ),
        ErrorKind::PermissionDenied => {
            let group = std::fs::metadata(path)
                .ok()
                .and_then(|of| Group::from_gid(Gid::from_raw(of.gid())).ok().flatten())
                .map_or_else(|| bird::api::DEFAULT_GROUP.to_owned(), |group| group.name);
            format!(
                "{at}: you may not ask this agent\nRun the command as root, or join the group {group} (usermod -aG {group} \
                 USER) and log in again"
            )
        }
        _ => format!("{at}: {err}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_asked_says_why_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bgp.sock");
        let err = Agent::connect(Some(&path)).unwrap_err();
        assert!(err.contains("no such socket\nStart the agent"), "{err}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let err = Agent::connect(Some(&path)).unwrap_err();
        assert!(err.contains("does not run\nStart it"), "{err}");
        let err = unreachable(&path, ErrorKind::PermissionDenied, &ErrorKind::PermissionDenied.into());
        let own = Group::from_gid(nix::unistd::getgid()).unwrap().unwrap().name;
        assert!(err.contains(&format!("usermod -aG {own} USER")), "{err}");
    }

    #[test]
    fn an_answer_ends_with_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bgp.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut asked).unwrap();
            stream.write_all(b"{\"peer\":{\"name\":\"a\"}}\n{\"end\":{\"rows\":1,\"cut\":true}}\n").unwrap();
            reader.read_line(&mut asked).unwrap();
            stream.write_all(b"{\"error\":{\"text\":\"no\",\"fix\":\"so\"}}\n").unwrap();
            asked
        });
        let mut client = Agent::connect(Some(&path)).unwrap();
        let mut rows = Vec::new();
        assert_eq!(client.ask(&Request::Peers, |row| rows.push(row)), Ok(true));
        assert_eq!(rows, [serde_json::json!({"peer": {"name": "a"}})]);
        let request = Request::Neighbor { peer: "x".into() };
        assert_eq!(client.ask(&request, |_| panic!("no rows")), Err("no\nso".to_owned()));
        assert_eq!(
            agent.join().unwrap(),
            "{\"get\":\"peers\"}\n{\"get\":\"neighbor\",\"peer\":\"x\"}\n",
            "as the protocol is documented"
        );
        assert!(
            client.ask(&Request::Peers, |_| {}).unwrap_err().contains("the connection to the agent broke")
                || client.ask(&Request::Peers, |_| {}).is_err()
        );
    }
}
