//! The thread's turn on the processor: real time if we may, nicer than others if not, else as everybody.
#![allow(unsafe_code, reason = "the scheduler's calls have no safe wrapper")]

use std::fmt;
use std::time::Duration;

use crate::event::Time;

/// Lowest of the real-time priorities that are clear of a kernel's own defaults: before every ordinary thread,
/// behind interrupt threads.
const FIFO: libc::c_int = 10;
/// What we ask for without real time.
const NICE: libc::c_int = -10;

/// How the thread is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// SCHED_FIFO: before all ordinary threads.
    RealTime,
    /// Nice -10.
    Favoured,
    /// As everybody.
    Ordinary,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RealTime => "real time",
            Self::Favoured => "nice -10",
            Self::Ordinary => "ordinary",
        })
    }
}

/// How long is looked at to tell whether the thread takes too much.
const WINDOW: Duration = Duration::from_secs(1);
/// Real-time work in a window after which the thread steps back: a thousand sessions need a few per cent, so
/// this is somebody's flood, and the other threads must not starve of it.
const MOST: Duration = Duration::from_millis(300);
/// How long it stays back.
const PENANCE: Duration = Duration::from_secs(30);

/// The calling thread's priority, given up for a while when there is too much to do.
#[derive(Debug)]
pub(super) struct Turn {
    wanted: Priority,
    actual: Priority,
    window: Time,
    busy: Duration,
    resumed: Time,
    back_until: Option<Time>,
}

impl Turn {
    /// Raises the calling thread as far as the system lets it, and no further than `wanted`.
    pub(super) fn new(wanted: Priority) -> Self {
        let zero = Time::ZERO;
        let actual = raise(wanted);
        Self { wanted, actual, window: zero, busy: zero, resumed: zero, back_until: None }
    }

    pub(super) fn priority(&self) -> Priority {
        self.actual
    }

    /// The thread is about to sleep.
    pub(super) fn pause(&mut self, now: Time) {
        self.busy += now.saturating_sub(self.resumed);
        if now.saturating_sub(self.window) >= WINDOW {
            (self.window, self.busy) = (now, Duration::ZERO);
        }
        if self.actual == Priority::RealTime && self.busy > MOST {
            step_back();
            self.actual = if favoured() { Priority::Favoured } else { Priority::Ordinary };
            self.back_until = Some(now + PENANCE);
        }
        if self.back_until.is_some_and(|at| at <= now) {
            self.back_until = None;
            self.actual = raise(self.wanted);
        }
    }

    /// The thread woke.
    pub(super) fn resume(&mut self, now: Time) {
        self.resumed = now;
    }
}

fn raise(wanted: Priority) -> Priority {
    if wanted == Priority::RealTime && real_time() {
        return Priority::RealTime;
    }
    if wanted != Priority::Ordinary && favoured() {
        return Priority::Favoured;
    }
    Priority::Ordinary
}

fn real_time() -> bool {
    schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, FIFO)
}

fn step_back() {
    schedule(libc::SCHED_OTHER, 0);
}

fn schedule(policy: libc::c_int, priority: libc::c_int) -> bool {
    // SAFETY: sched_param is plain integers, for which zero is valid.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = priority;
    // SAFETY: `param` outlives the call, which only reads it; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const param) == 0 }
}

fn favoured() -> bool {
    // SAFETY: no pointers; on Linux 0 is the calling thread, not the process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `check` on a thread of its own: what it does to its priority ends with it.
    fn apart<T: Send + 'static>(check: impl FnOnce() -> T + Send + 'static) -> T {
        #[allow(clippy::disallowed_methods, reason = "a test")]
        std::thread::spawn(check).join().unwrap()
    }

    fn policy() -> libc::c_int {
        // SAFETY: no pointers; 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        policy & !libc::SCHED_RESET_ON_FORK
    }

    fn nice() -> libc::c_int {
        // SAFETY: no pointers; 0 is the calling thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn says_what_the_kernel_says() {
        for wanted in [Priority::RealTime, Priority::Favoured, Priority::Ordinary] {
            let (actual, policy, nice) = apart(move || (Turn::new(wanted).priority(), policy(), nice()));
            assert_eq!(actual == Priority::RealTime, policy == libc::SCHED_FIFO);
            // The tests themselves may run at that niceness already.
            assert!(actual != Priority::Favoured || nice == NICE, "nice {nice}");
        }
    }

    #[test]
    fn steps_back_from_a_flood_and_returns() {
        let seen = apart(|| {
            let mut turn = Turn::new(Priority::RealTime);
            if turn.priority() != Priority::RealTime {
                return None;
            }
            let ms = Duration::from_millis;
            // A fifth of the time, for long: fine.
            for n in 1..100 {
                turn.resume(ms(n * 50));
                turn.pause(ms(n * 50 + 10));
            }
            let calm = policy();
            turn.resume(ms(10_000));
            turn.pause(ms(10_001));
            turn.resume(ms(10_001));
            turn.pause(ms(10_400));
            let flood = (policy(), turn.priority());
            turn.resume(ms(41_000));
            turn.pause(ms(41_001));
            Some((calm, flood, policy()))
        });
        let Some((calm, (policy, priority), after)) = seen else { return };
        assert_eq!((calm, policy, after), (libc::SCHED_FIFO, libc::SCHED_OTHER, libc::SCHED_FIFO));
        assert_ne!(priority, Priority::RealTime);
    }
}
