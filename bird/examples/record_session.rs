//! Records a session of the pure speaker with a real one, for the replay tests of `bird/speaker`.
//!
//! `record_session run CONFIG.json SECONDS FILE` calls the peers of a configuration (JSON of `bird_speaker::Config`) and writes
//! down what goes in and comes out. `record_session again FILE` plays a recording into the speaker of today and writes down
//! what comes out now: for when that changed on purpose.
//!
//! One thread, calls only, every next hop on the link: enough to record, not to route.

#[path = "../speaker/tests/harness/tape.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "the harness of another crate's tests")]
mod tape;

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tape::{Tape, hex};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", config, seconds, file] => {
            let config = std::fs::read_to_string(config)?;
            // One line.
            let config = serde_json::to_string(&serde_json::from_str::<serde_json::Value>(&config)?)?;
            let lines = record(&config, Duration::from_secs(seconds.parse()?))?;
            std::fs::write(file, lines.join("\n") + "\n").context("the recording cannot be written")
        }
        ["again", file] => again(file),
        _ => bail!("usage: record_session run CONFIG.json SECONDS FILE | record_session again FILE"),
    }
}

fn record(config: &str, time: Duration) -> anyhow::Result<Vec<String>> {
    let mut lines = vec![format!("config {config}")];
    let (mut tape, first) = Tape::new(config);
    lines.extend(first);
    let start = Instant::now();
    let mut sockets: BTreeMap<usize, TcpStream> = BTreeMap::new();
    let mut called = 0;
    let mut todo: VecDeque<String> = VecDeque::new();
    let mut buffer = vec![0; 1 << 16];
    while start.elapsed() < time {
        while called < tape.dials.len() {
            let dial = &tape.dials[called];
            match TcpStream::connect_timeout(&dial.remote, Duration::from_millis(500)) {
                Ok(socket) => {
                    socket.set_nonblocking(true)?;
                    todo.push_back(format!("connected {called} {}", socket.local_addr()?));
                    sockets.insert(called, socket);
                }
                Err(_) => todo.push_back(format!("refused {called}")),
            }
            called += 1;
        }
        todo.extend(std::mem::take(&mut tape.asked).into_iter().map(|a| format!("reachable {a}")));
        let numbers: Vec<usize> = sockets.keys().copied().collect();
        for call in numbers {
            let Some(socket) = sockets.get_mut(&call) else { continue };
            match socket.read(&mut buffer) {
                Ok(0) => {
                    todo.push_back(format!("closed {call} closed by the peer"));
                    sockets.remove(&call);
                }
                Ok(n) => todo.push_back(format!("received {call} {}", hex(&buffer[..n]))),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => {
                    todo.push_back(format!("closed {call} {e}"));
                    sockets.remove(&call);
                }
            }
        }
        let now = start.elapsed();
        if todo.is_empty() && tape.speaker.next_timeout().is_some_and(|at| at <= now) {
            todo.push_back("tick".into());
        }
        if todo.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        while let Some(what) = todo.pop_front() {
            let line = format!("{} {what}", start.elapsed().as_micros());
            let out = tape.step(&line);
            lines.push(line);
            lines.extend(out);
            for (call, bytes) in std::mem::take(&mut tape.to_send) {
                if let Some(socket) = sockets.get_mut(&call) {
                    // A failed write shows as the end of what can be read.
                    let _ = socket.write_all(&bytes);
                }
            }
            for call in std::mem::take(&mut tape.to_close) {
                sockets.remove(&call);
            }
        }
    }
    lines.extend(tape.table());
    Ok(lines)
}

fn again(file: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let mut lines = Vec::new();
    let mut tape: Option<Tape> = None;
    for line in text.lines().filter(|l| !l.starts_with("  ")) {
        lines.push(line.to_owned());
        if let Some(config) = line.strip_prefix("config ") {
            let (new, out) = Tape::new(config);
            tape = Some(new);
            lines.extend(out);
        } else if !line.starts_with('#') && !line.is_empty() {
            let tape = tape.as_mut().context("no configuration before the first input")?;
            lines.extend(tape.step(line));
        }
    }
    lines.extend(tape.map(|t| t.table()).unwrap_or_default());
    std::fs::write(file, lines.join("\n") + "\n").context("the recording cannot be written")
}
