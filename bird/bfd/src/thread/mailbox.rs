//! Between the thread and its users: what is wanted, and what happened.
//!
//! Both sides keep the latest word for each session, so neither can grow without bound nor be too full to take
//! one. The BFD thread only ever tries the locks: somebody of low priority who is put to sleep while holding one
//! must not make packets late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Farewell, Report, Trouble, TroubleWith};
use crate::event::{Change, Down, Event};
use crate::params::{Params, SessionKey};

/// What users want, since the thread looked last.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// `None`: the session should not be.
    pub(super) changes: BTreeMap<SessionKey, Option<Params>>,
    /// `changes` is everything that should be.
    pub(super) complete: bool,
    /// Number of the last report that was asked for.
    pub(super) report: u64,
    pub(super) stop: Option<Farewell>,
}

/// What happened, since the user looked last.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    news: News,
    /// Number of the report, and the report.
    pub(super) report: Option<(u64, Report)>,
    /// The thread is gone.
    pub(super) over: bool,
}

/// Events and troubles that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct News {
    /// In the order in which sessions first had news.
    order: VecDeque<SessionKey>,
    /// A time down that the user has to know of, and whether the session is up since.
    pending: BTreeMap<SessionKey, (Option<Down>, bool)>,
    troubles: BTreeMap<TroubleWith, Option<String>>,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.troubles.is_empty()
    }

    /// Down then Up is kept as both; of several of either kind the last is kept.
    pub(super) fn event(&mut self, event: Event) {
        if !self.pending.contains_key(&event.key) {
            self.order.push_back(event.key);
        }
        let entry = self.pending.entry(event.key).or_default();
        match event.change {
            Change::Up => entry.1 = true,
            Change::Down(down) => *entry = (Some(down), false),
        }
    }

    pub(super) fn trouble(&mut self, with: TroubleWith, problem: Option<String>) {
        self.troubles.insert(with, problem);
    }

    /// Moves everything into `later`, which is older.
    fn append_to(&mut self, older: &mut Self) {
        for event in self.take_events() {
            older.event(event);
        }
        older.troubles.append(&mut self.troubles);
    }

    fn take_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for key in std::mem::take(&mut self.order) {
            let Some((down, up)) = self.pending.remove(&key) else { continue };
            events.extend(down.map(|down| Event { key, change: Change::Down(down) }));
            events.extend(up.then_some(Event { key, change: Change::Up }));
        }
        events
    }
}

/// The two boxes and what wakes either side.
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
    outbox: Mutex<Outbox>,
    /// Somebody put something into the inbox.
    pub(super) bell: EventFd,
    reported: Condvar,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("inbox", &self.inbox)
            .field("outbox", &self.outbox)
            .finish_non_exhaustive()
    }
}

impl Mailbox {
    pub(super) fn new(notify: Box<dyn Fn() + Send + Sync>) -> std::io::Result<Self> {
        Ok(Self {
            inbox: Mutex::default(),
            outbox: Mutex::default(),
            bell: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            reported: Condvar::new(),
            notify,
        })
    }

    /// User's side: says what is wanted, and wakes the thread.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&mut Inbox) -> T) -> T {
        let answer = ask(&mut lock(&self.inbox));
        // Full means that it is ringing already.
        let _ = self.bell.write(1);
        answer
    }

    /// User's side: takes the events.
    pub(super) fn events(&self) -> Vec<Event> {
        lock(&self.outbox).news.take_events()
    }

    /// User's side: takes the troubles.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let troubles = std::mem::take(&mut lock(&self.outbox).news.troubles);
        troubles.into_iter().map(|(with, problem)| Trouble { with, problem }).collect()
    }

    pub(super) fn over(&self) -> bool {
        lock(&self.outbox).over
    }

    /// User's side: asks for a report and waits for it.
    pub(super) fn report(&self, at_most: std::time::Duration) -> Option<Report> {
        let number = self.ask(|inbox| {
            inbox.report += 1;
            inbox.report
        });
        let stale =
            |outbox: &mut Outbox| !outbox.over && outbox.report.as_ref().is_none_or(|(of, _)| *of < number);
        let waited = self.reported.wait_timeout_while(lock(&self.outbox), at_most, stale);
        let (outbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
        outbox.report.as_ref().filter(|(of, _)| *of >= number).map(|(_, report)| report.clone())
    }

    /// Thread's side: what is wanted; `None` if somebody holds the box right now.
    pub(super) fn take(&self) -> Option<Inbox> {
        let mut inbox = try_lock(&self.inbox)?;
        let _ = self.bell.read();
        let report = inbox.report;
        Some(std::mem::replace(&mut *inbox, Inbox { report, ..Inbox::default() }))
    }

    /// Thread's side: passes on what happened; `false` if somebody holds the box right now.
    pub(super) fn put(&self, news: &mut News, report: &mut Option<(u64, Report)>) -> bool {
        let Some(mut outbox) = try_lock(&self.outbox) else { return false };
        let any = !news.is_empty();
        news.append_to(&mut outbox.news);
        if let Some(report) = report.take() {
            outbox.report = Some(report);
            self.reported.notify_all();
        }
        drop(outbox);
        if any {
            (self.notify)();
        }
        true
    }

    /// Thread's side: the last word.
    pub(super) fn end(&self) {
        lock(&self.outbox).over = true;
        self.reported.notify_all();
        (self.notify)();
    }
}

impl Inbox {
    /// Sessions that should not be, given those that are.
    pub(super) fn unwanted(&self, present: impl Iterator<Item = SessionKey>) -> BTreeSet<SessionKey> {
        present
            .filter(|key| match self.changes.get(key) {
                None => self.complete,
                Some(wanted) => wanted.is_none(),
            })
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cause;
    use crate::packet::Diag;
    use crate::params::Hops;

    fn key(last: u8) -> SessionKey {
        SessionKey { peer: [192, 0, 2, last].into(), local: None, interface: None, hops: Hops::Single }
    }

    fn down(cause: Cause) -> Change {
        Change::Down(Down {
            cause,
            remote_diag: Diag::NONE,
            control_plane_independent: false,
            silent_for: std::time::Duration::ZERO,
        })
    }

    #[test]
    fn no_time_down_is_lost_and_nothing_piles_up() {
        let (timeout, neighbor) = (down(Cause::DetectionTimeExpired), down(Cause::NeighborSignaled));
        let table: &[(&[Change], &[Change])] = &[
            (&[Change::Up], &[Change::Up]),
            (&[timeout], &[timeout]),
            (&[timeout, Change::Up], &[timeout, Change::Up]),
            (&[Change::Up, timeout], &[timeout]),
            (&[Change::Up, timeout, Change::Up], &[timeout, Change::Up]),
            (&[timeout, Change::Up, neighbor], &[neighbor]),
            (&[timeout, Change::Up, neighbor, Change::Up], &[neighbor, Change::Up]),
        ];
        for (happened, told) in table {
            let mut news = News::default();
            for change in *happened {
                news.event(Event { key: key(1), change: *change });
            }
            let told: Vec<Event> = told.iter().map(|&change| Event { key: key(1), change }).collect();
            assert_eq!(news.take_events(), told, "{happened:?}");
            assert!(news.is_empty());
        }
    }

    #[test]
    fn the_latest_wish_holds() {
        let mailbox = Mailbox::new(Box::new(|| ())).unwrap();
        let faster = Params { multiplier: 5, ..Params::default() };
        mailbox.ask(|inbox| inbox.changes.insert(key(1), Some(Params::default())));
        mailbox.ask(|inbox| inbox.changes.insert(key(1), None));
        mailbox.ask(|inbox| inbox.changes.insert(key(1), Some(faster)));
        mailbox.ask(|inbox| inbox.changes.insert(key(2), None));
        let inbox = mailbox.take().unwrap();
        assert_eq!(inbox.changes[&key(1)], Some(faster));
        let present = [key(1), key(2), key(3)];
        assert_eq!(inbox.unwanted(present.into_iter()), BTreeSet::from([key(2)]));
        let complete = Inbox { complete: true, ..inbox };
        assert_eq!(complete.unwanted(present.into_iter()), BTreeSet::from([key(2), key(3)]));
        assert!(mailbox.take().unwrap().changes.is_empty());
    }

    #[test]
    fn a_box_in_use_is_tried_later() {
        let mailbox = Mailbox::new(Box::new(|| ())).unwrap();
        let held = lock(&mailbox.outbox);
        let mut news = News::default();
        news.event(Event { key: key(1), change: Change::Up });
        assert!(!mailbox.put(&mut news, &mut None));
        drop(held);
        assert!(!news.is_empty() && mailbox.put(&mut news, &mut None) && news.is_empty());
        assert_eq!(mailbox.events().len(), 1);
    }
}
