//! Who is alive, who is ready, and why not.
//!
//! Calico's shape (libcalico-go health): `/liveness` and `/readiness` answer 200 with a table of the
//! reporters, or 503 with the same table when one of them is bad.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// The reporters of one process. Cheap to clone; all clones share the table.
#[derive(Clone, Debug, Default)]
pub struct Health {
    reporters: Arc<Mutex<Vec<State>>>,
}

#[derive(Debug)]
struct State {
    name: String,
    live: Verdict,
    ready: Verdict,
}

/// One answer of one reporter: good, or the reason why it is not.
type Verdict = Result<(), String>;

/// The handle with which one part of the process says how it is.
#[derive(Clone, Debug)]
pub struct Reporter {
    health: Health,
    index: usize,
}

/// What an endpoint answers: whether every reporter is good, and the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Every reporter is good.
    pub good: bool,
    /// One line a reporter: name, `ok` or the reason.
    pub text: String,
}

impl Health {
    /// An empty table: live and ready until somebody registers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a reporter that is live and not yet ready.
    pub fn reporter(&self, name: &str) -> Reporter {
        let mut table = self.table();
        table.push(State { name: name.into(), live: Ok(()), ready: Err("starting".into()) });
        Reporter { health: self.clone(), index: table.len() - 1 }
    }

    /// What `/liveness` says: a bad answer asks the supervisor for a restart.
    pub fn liveness(&self) -> Report {
        self.report(|s| &s.live)
    }

    /// What `/readiness` says.
    pub fn readiness(&self) -> Report {
        let report = self.report(|s| &s.ready);
        if report.text.is_empty() {
            return Report { good: false, text: "nothing has begun yet\n".into() };
        }
        report
    }

    fn report(&self, pick: impl Fn(&State) -> &Verdict) -> Report {
        let table = self.table();
        let width = table.iter().map(|s| s.name.len()).max().unwrap_or(0);
        let mut report = Report { good: true, text: String::new() };
        for state in table.iter() {
            let word = match pick(state) {
                Ok(()) => "ok",
                Err(reason) => {
                    report.good = false;
                    reason
                }
            };
            let _ = writeln!(report.text, "{:width$}  {word}", state.name);
        }
        report
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Vec<State>> {
        self.reporters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// Ready for traffic.
    pub fn ready(&self) {
        self.update(|s| s.ready = Ok(()));
    }

    /// Not ready, with the reason an operator reads.
    pub fn not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.update(|s| s.ready = Err(reason));
    }

    /// Cannot go on without a restart.
    pub fn not_live(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.update(|s| s.live = Err(reason));
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.health.table().get_mut(self.index) {
            change(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_reporter_is() {
        let health = Health::new();
        assert!(!health.readiness().good, "nothing has begun");
        let (felix, bird) = (health.reporter("felix"), health.reporter("bird"));
        assert!(!health.readiness().good);
        felix.ready();
        bird.not_ready("no session with 192.168.174.2");
        let report = health.readiness();
        assert!(!report.good);
        assert_eq!(report.text, "felix  ok\nbird   no session with 192.168.174.2\n");
        bird.ready();
        assert!(health.readiness().good);
        assert!(health.liveness().good);
        felix.not_live("dataplane loop stands still");
        assert!(!health.liveness().good);
    }
}
