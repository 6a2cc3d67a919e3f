//! `bgp mrt dump` and `bgp mrt record`: MRT files (RFC 6396) of the running speaker. The file is written here, with the rights
//! and on the disk of whoever asks.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bird::api::Request;
use serde_json::Value;

use super::ask::Agent;
use crate::ctl::bgp::args::{Mrt, MrtDump, MrtRecord};
use crate::ctl::commands::console::complain;

/// `bgp mrt`.
pub(crate) fn mrt(command: &Mrt) -> Result<bool, String> {
    match command {
        Mrt::Dump(arguments) => dump(arguments),
        Mrt::Record(arguments) => record(arguments),
    }
}

/// Where records go, and how many octets there are.
struct Sink {
    to: Box<dyn Write>,
    name: String,
    octets: u64,
}

impl Sink {
    fn open(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let to: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(|e| format!("{name}: cannot be written: {e}"))?)
        };
        Ok(Self { to, name, octets: 0 })
    }

    fn take(&mut self, row: &Value) -> Result<(), String> {
        let text = row["mrt"]
            .as_str()
            .ok_or("the agent's answer is no MRT record; agent and ctl are of different versions")?;
        let records = STANDARD.decode(text).map_err(|e| format!("the agent's answer is damaged: {e}"))?;
        self.to.write_all(&records).map_err(|e| format!("{}: cannot be written: {e}", self.name))?;
        self.octets += records.len() as u64;
        Ok(())
    }
}

fn dump(arguments: &MrtDump) -> Result<bool, String> {
    let mut agent = Agent::connect(arguments.socket.as_deref())?;
    let path = &arguments.file;
    let to_stdout = path == Path::new("-");
    // Whoever finds the file finds it whole.
    let part = if to_stdout { path.clone() } else { with_end(path, ".part") };
    let mut sink = Sink::open(&part)?;
    let mut failed = None;
    let asked = agent.ask(&Request::MrtTable, |row| {
        if failed.is_none() {
            failed = sink.take(&row).err();
        }
    });
    let flushed = sink.to.flush().map_err(|e| format!("{}: cannot be written: {e}", sink.name));
    let outcome = failed.map_or(asked.map(drop), Err).and(flushed);
    if to_stdout {
        return outcome.map(|()| true);
    }
    match outcome {
        Ok(()) => std::fs::rename(&part, path).map_err(|e| format!("{}: {e}", path.display()))?,
        Err(err) => {
            // What is there is of no use; if it cannot be removed either, the error says enough.
            let _ = std::fs::remove_file(&part);
            return Err(err);
        }
    }
    complain(format!("{}: {} octets", path.display(), sink.octets));
    Ok(true)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn record(arguments: &MrtRecord) -> Result<bool, String> {
    let mut agent = Agent::connect(arguments.socket.as_deref())?;
    let mut sink = Sink::open(&arguments.file)?;
    let request = Request::MrtUpdates { peer: arguments.peer.clone(), sent: arguments.sent };
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let most = arguments.megabytes.saturating_mul(1_000_000);
    let mut messages = 0_u64;
    let lost = agent.follow(&request, until, |row| {
        sink.take(&row)?;
        messages += 1;
        Ok(sink.octets < most)
    })?;
    sink.to.flush().map_err(|e| format!("{}: cannot be written: {e}", sink.name))?;
    complain(format!("{}: {messages} messages, {} octets", arguments.file.display(), sink.octets));
    if lost {
        complain("messages are missing: they came faster than they could be written");
    }
    Ok(!lost)
}
