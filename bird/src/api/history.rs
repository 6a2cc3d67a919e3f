//! What happened lately, as far as it explains what does not work: errors of each peer, callers that were refused,
//! and packets that the kernel dropped for their TCP MD5 signature.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use bird_speaker::Event;
use bird_speaker::io::DownReason;

use super::proto::{Caller, PastError};

/// Errors kept of a peer.
const ERRORS: usize = 8;
/// Peers of which errors are kept: dynamic ones come and go under ever new names.
const PEERS: usize = 8192;
/// Callers kept.
const CALLERS: usize = 16;
/// A caller that was refused longer ago says nothing about now.
const LATELY: Duration = Duration::from_mins(5);

/// The kernel's counters are read at most this often for events.
const SAMPLE: Duration = Duration::from_millis(200);

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct History {
    peers: HashMap<String, Errors>,
    callers: VecDeque<Refused>,
    md5: Sample,
}

/// The counters as they were read last: not more often than a few times a second, however many sessions end at once.
#[derive(Debug, Default)]
struct Sample {
    drops: Md5Drops,
    at: Option<Instant>,
}

impl Sample {
    fn renew(&mut self) {
        if self.at.is_none_or(|at| at.elapsed() >= SAMPLE) {
            *self = Self { drops: Md5Drops::read(), at: Some(Instant::now()) };
        }
    }
}

/// The errors of a peer, the last one first.
#[derive(Debug, Default)]
struct Errors {
    all: VecDeque<Error>,
    /// Those since there was a session last.
    fresh: usize,
    /// What the kernel had dropped before it went down.
    md5_before: Option<Md5Drops>,
}

#[derive(Debug)]
struct Error {
    at: SystemTime,
    ended_session: bool,
    reason: DownReason,
}

/// A caller that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) address: IpAddr,
    pub(crate) calls: u64,
    pub(crate) last: SystemTime,
    pub(crate) reason: &'static str,
}

/// Segments that the kernel of this network namespace dropped for their signature (RFC 2385), since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Md5Drops {
    /// Without a signature, where there is a password.
    pub(crate) missing: u64,
    /// With one, where there is no password.
    pub(crate) unexpected: u64,
    /// Made with another password.
    pub(crate) wrong: u64,
}

impl Md5Drops {
    /// Reads the counters; all are 0 where the kernel does not have them.
    pub(crate) fn read() -> Self {
        std::fs::read_to_string("/proc/thread-self/net/netstat").map(|t| Self::parse(&t)).unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        // Two lines that begin alike: the names, then the values.
        let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return Self::default() };
        let value = |wanted: &str| {
            let at = names.split_whitespace().position(|n| n == wanted)?;
            values.split_whitespace().nth(at)?.parse().ok()
        };
        Self {
            missing: value("TCPMD5NotFound").unwrap_or(0),
            unexpected: value("TCPMD5Unexpected").unwrap_or(0),
            wrong: value("TCPMD5Failure").unwrap_or(0),
        }
    }

    /// What came since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            missing: self.missing.saturating_sub(before.missing),
            unexpected: self.unexpected.saturating_sub(before.unexpected),
            wrong: self.wrong.saturating_sub(before.wrong),
        }
    }
}

impl History {
    /// Nothing happened yet.
    pub(crate) fn new() -> Self {
        let mut history = Self::default();
        history.md5.renew();
        history
    }

    /// Takes in what the speaker reports.
    pub(crate) fn note(&mut self, event: &Event, now: SystemTime) {
        match event {
            Event::Up { peer, .. } => {
                if let Some(errors) = self.peers.get_mut(&**peer) {
                    errors.fresh = 0;
                    errors.md5_before = None;
                }
                self.md5.renew();
            }
            Event::Down { peer, reason } => self.error(peer, reason, true, now),
            Event::Failed { peer, reason } => self.error(peer, reason, false, now),
            Event::Refused { remote, reason } => self.refused(remote.ip(), reason, now),
            Event::Malformed { .. }
            | Event::PrefixLimit { .. }
            | Event::PathLimit { .. }
            | Event::LongLivedStale { .. }
            | Event::SameIdentifier { .. }
            | Event::RestartComplete { .. } => {}
        }
    }

    fn error(&mut self, peer: &str, reason: &DownReason, ended_session: bool, now: SystemTime) {
        let before = self.md5.drops;
        self.md5.renew();
        if self.peers.len() >= PEERS && !self.peers.contains_key(peer) {
            self.forget_oldest();
        }
        let errors = self.peers.entry(peer.to_owned()).or_default();
        errors.md5_before.get_or_insert(before);
        errors.all.push_front(Error { at: now, ended_session, reason: reason.clone() });
        errors.all.truncate(ERRORS);
        errors.fresh = (errors.fresh + 1).min(ERRORS);
    }

    /// Makes room: the peer whose last error is the longest ago is the least likely to be asked about.
    fn forget_oldest(&mut self) {
        let last = |errors: &Errors| errors.all.front().map(|e| e.at);
        let oldest = self.peers.iter().min_by_key(|(_, errors)| last(errors)).map(|(name, _)| name.clone());
        if let Some(name) = oldest {
            self.peers.remove(&name);
        }
    }

    fn refused(&mut self, address: IpAddr, reason: &'static str, now: SystemTime) {
        let known = self.callers.iter().position(|c| c.address == address && c.reason == reason);
        let calls = known.and_then(|at| self.callers.remove(at)).map_or(0, |c| c.calls);
        self.callers.push_front(Refused { address, calls: calls + 1, last: now, reason });
        self.callers.truncate(CALLERS);
    }

    /// Forgets peers that are no more.
    pub(crate) fn retain(&mut self, is_peer: impl Fn(&str) -> bool) {
        self.peers.retain(|name, _| is_peer(name));
    }

    /// Why a peer's session ended or did not come up since there was one last, the last reason first.
    pub(crate) fn reasons(&self, peer: &str) -> Vec<&DownReason> {
        let errors = self.peers.get(peer);
        errors.map(|e| e.all.iter().take(e.fresh).map(|e| &e.reason).collect()).unwrap_or_default()
    }

    /// What the kernel dropped since a peer went down.
    pub(crate) fn md5_since_down(&self, peer: &str, now: Md5Drops) -> Md5Drops {
        now.since(self.peers.get(peer).and_then(|e| e.md5_before).unwrap_or(self.md5.drops))
    }

    /// The errors of a peer, the last one first.
    pub(crate) fn errors(&self, peer: &str) -> Vec<PastError> {
        let shown = |e: &Error| PastError {
            at: stamp(e.at),
            ended_session: e.ended_session,
            text: e.reason.to_string(),
        };
        self.peers.get(peer).map(|e| e.all.iter().map(shown).collect()).unwrap_or_default()
    }

    /// Who was refused in the last minutes, the last one first.
    pub(crate) fn callers(&self, now: SystemTime) -> impl Iterator<Item = &Refused> {
        let lately = move |c: &&Refused| now.duration_since(c.last).is_ok_and(|ago| ago < LATELY);
        self.callers.iter().filter(lately)
    }
}

impl Refused {
    /// As it is shown.
    pub(crate) fn shown(&self) -> Caller {
        Caller {
            address: self.address,
            calls: self.calls,
            last: stamp(self.last),
            reason: self.reason.to_owned(),
        }
    }
}

/// RFC 3339, to the second.
pub(crate) fn stamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map_or_else(|_| "?".into(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bird_speaker::io::ConnectError;

    #[test]
    fn the_kernels_counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure Other\n\
            TcpExt: 9 4 5 6 7\nIpExt: InNoRoutes\nIpExt: 3\n";
        assert_eq!(Md5Drops::parse(text), Md5Drops { missing: 4, unexpected: 5, wrong: 6 });
        assert_eq!(Md5Drops::parse("TcpExt: A\nTcpExt: 1\n"), Md5Drops::default());
        assert_eq!(Md5Drops::parse(""), Md5Drops::default());
    }

    #[test]
    fn reasons_are_those_since_the_last_session() {
        let mut history = History::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let failed = |reason| Event::Failed { peer: "a".into(), reason };
        history.note(&failed(DownReason::Connect(ConnectError::Refused)), now);
        history.note(&failed(DownReason::Connect(ConnectError::TimedOut)), now);
        assert_eq!(history.reasons("a")[0], &DownReason::Connect(ConnectError::TimedOut));
        assert_eq!(history.reasons("a").len(), 2);
        let up = Event::Up { peer: "a".into(), peer_as: 1, router_id: [1, 1, 1, 1].into() };
        history.note(&up, now);
        assert!(history.reasons("a").is_empty());
        assert_eq!(history.errors("a").len(), 2, "what was is still shown");
        for _ in 0..20 {
            history.note(&Event::Down { peer: "a".into(), reason: DownReason::Admin("x") }, now);
        }
        assert_eq!((history.reasons("a").len(), history.errors("a").len()), (ERRORS, ERRORS));
        history.retain(|name| name != "a");
        assert!(history.errors("a").is_empty());
    }

    /// Dynamic peers come under ever new names: of as many as there may be the latest are kept.
    #[test]
    fn a_new_peer_takes_the_place_of_the_one_that_was_quiet_longest() {
        let mut history = History::default();
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let at = |n: usize| start + Duration::from_secs(n.try_into().unwrap());
        let failed =
            |n: usize| Event::Failed { peer: format!("r_{n}").into(), reason: DownReason::Admin("x") };
        for n in 0..PEERS {
            history.note(&failed(n), at(n));
        }
        history.note(&failed(0), at(PEERS));
        history.note(&failed(PEERS), at(PEERS + 1));
        assert_eq!(history.peers.len(), PEERS);
        let known = |n: usize| history.errors(&format!("r_{n}")).len();
        assert_eq!((known(0), known(1), known(2), known(PEERS)), (2, 0, 1, 1));
    }

    #[test]
    fn callers_are_counted_and_forgotten() {
        let mut history = History::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        for i in 0..40u8 {
            let remote = (IpAddr::from([10, 0, 0, i % 20]), 4000 + u16::from(i)).into();
            history.note(&Event::Refused { remote, reason: "nobody" }, now);
        }
        let callers: Vec<u64> = history.callers(now).map(|c| c.calls).collect();
        assert_eq!(callers, [1; CALLERS], "bounded, whoever calls");
        let remote = "10.0.0.19:1".parse().unwrap();
        history.note(&Event::Refused { remote, reason: "nobody" }, now);
        assert_eq!(history.callers(now).next().map(|c| c.calls), Some(2));
        assert_eq!(history.callers(now + LATELY).count(), 0);
    }
}
