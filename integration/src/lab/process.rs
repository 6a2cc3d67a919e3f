//! Programs in namespaces: started, watched, killed by id.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Namespace;

/// A program that runs in a namespace, its output in a log file. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    space: Namespace,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A program, not yet started; it logs to `<dir>/<name>.log`.
    pub fn new(name: &str, space: &Namespace, dir: &Path, argv: &[&str]) -> Self {
        Self {
            name: name.into(),
            space: space.clone(),
            argv: argv.iter().map(|&a| a.into()).collect(),
            env: Vec::new(),
            log: dir.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Adds or changes a variable for the next start.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.env.retain(|(name, _)| name != key);
        self.env.push((key.into(), value.into()));
    }

    /// Runs it through another program from the next start on, such as `setpriv … --`.
    pub fn under(&mut self, program: &[&str]) {
        self.argv.splice(0..0, program.iter().map(|&a| a.into()));
    }

    /// Starts it (again).
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.kill();
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for (key, value) in &self.env {
            command.env(key, value);
        }
        let child = self.space.run(move || command.spawn());
        self.child =
            Some(child.with_context(|| format!("lab: {}: cannot start {}", self.name, self.argv[0]))?);
        Ok(())
    }

    /// Its process id while it runs.
    pub fn pid(&mut self) -> Option<i32> {
        let child = self.child.as_mut()?;
        match child.try_wait() {
            Ok(None) => Some(child.id().cast_signed()),
            _ => None,
        }
    }

    /// Sends a signal, if it runs.
    pub fn signal(&mut self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, then kill -9 after five seconds. Returns whether it went by itself.
    pub fn stop(&mut self) -> bool {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.pid().is_none() {
                self.child = None;
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        false
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end in a namespace; returns exit success, standard output and standard error.
pub fn run_in(
    space: &Namespace,
    argv: &[&str],
    env: &[(&str, &str)],
) -> anyhow::Result<(bool, String, String)> {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).envs(env.iter().copied()).stdin(Stdio::null());
    let output =
        space.run(move || command.output()).with_context(|| format!("lab: cannot run {}", argv[0]))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.success(), text(output.stdout), text(output.stderr)))
}

/// kill -9 of one process.
pub fn kill_pid(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}
