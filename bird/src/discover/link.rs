//! Router advertisements on one link, without a socket and without a clock: when to send, and who the neighbour is.
//!
//! A link is taken for point-to-point. The first router that is heard is the neighbour, for as long as there is a session
//! with it; nobody else's advertisements change that. Without a session, another router that is heard raises a doubt:
//! all are asked, and if the neighbour does not answer in time, the other takes its place.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

/// Advertisements after the first, in the beginning: each after this.
const BURST: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// Pause between two advertisements later on; somewhat more, at random (RFC 4861 §6.2.4).
const INTERVAL: Duration = Duration::from_secs(7);
const JITTER: Duration = Duration::from_secs(3);
/// Who asks is answered, all at once, not more often than this. RFC 4861 §6.2.6 has three seconds, for links with many hosts.
const SPACING: Duration = Duration::from_millis(500);
/// Solicitations are sent not more often than this (RFC 4861 §6.3.7 has four seconds, and three in all).
const ASKING: Duration = Duration::from_secs(1);
/// How many are sent at most while nobody is heard.
const ASKED_AT_MOST: u32 = 3;
/// A router answers a solicitation within 0.5 s, or 3 s after its last advertisement (RFC 4861 §6.2.6).
const ANSWER: Duration = Duration::from_secs(4);
/// Neighbours that change without ever having a session are believed less and less quickly.
const LONGEST_DOUBT: Duration = Duration::from_secs(64);

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Send {
    Advertisement,
    Solicitation,
}

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    neighbour: Option<Ipv6Addr>,
    heard: Option<Instant>,
    /// There is a session with the neighbour.
    held: bool,
    doubt: Option<Doubt>,
    patience: Duration,
    /// Another router, heard last.
    other: Option<Ipv6Addr>,
    advertise_at: Instant,
    advertised: Option<Instant>,
    burst: usize,
    solicit_at: Option<Instant>,
    solicited: Option<Instant>,
    asked: u32,
    /// State of the jitter.
    random: u64,
}

#[derive(Debug)]
struct Doubt {
    until: Instant,
    candidate: Ipv6Addr,
}

impl Link {
    /// A link that just came up; advertises and asks at once.
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self {
            neighbour: None,
            heard: None,
            held: false,
            doubt: None,
            patience: ANSWER,
            other: None,
            advertise_at: now,
            advertised: None,
            burst: 0,
            solicit_at: Some(now),
            solicited: None,
            asked: 0,
            random: seed | 1,
        }
    }

    pub(super) fn neighbour(&self) -> Option<Ipv6Addr> {
        self.neighbour
    }

    /// When the neighbour was heard last.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// A router that is heard too and not taken.
    pub(super) fn other(&self) -> Option<Ipv6Addr> {
        self.other
    }

    /// There is a session with this address on the link, or none.
    pub(super) fn hold(&mut self, now: Instant, session: Option<Ipv6Addr>) {
        if let Some(address) = session {
            if self.neighbour != Some(address) {
                self.neighbour = Some(address);
                self.heard = None;
            }
            self.doubt = None;
            self.patience = ANSWER;
        } else if self.held {
            // It may have another address now: whoever is there says so.
            self.ask(now);
            self.advertise_soon(now);
        }
        self.held = session.is_some();
    }

    /// A router advertised itself.
    pub(super) fn on_advertisement(&mut self, now: Instant, from: Ipv6Addr) {
        match self.neighbour {
            None => self.take(now, from),
            Some(neighbour) if neighbour == from => {
                self.heard = Some(now);
                self.doubt = None;
            }
            Some(_) => {
                self.other = Some(from);
                if self.held {
                    return;
                }
                if let Some(doubt) = &mut self.doubt {
                    doubt.candidate = from;
                } else {
                    self.doubt = Some(Doubt { until: now + self.patience, candidate: from });
                    self.ask(now);
                }
            }
        }
    }

    /// Somebody asks.
    pub(super) fn on_solicitation(&mut self, now: Instant) {
        self.advertise_soon(now);
    }

    /// What is due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Send> {
        if let Some(doubt) = self.doubt.take_if(|d| d.until <= now) {
            self.patience = (self.patience * 2).min(LONGEST_DOUBT);
            self.other = None;
            self.take(now, doubt.candidate);
        }
        let mut sends = Vec::new();
        if self.advertise_at <= now {
            let pause = match BURST.get(self.burst) {
                Some(pause) => *pause,
                None => INTERVAL + self.jitter(),
            };
            self.burst += 1;
            self.advertised = Some(now);
            self.advertise_at = now + pause;
            sends.push(Send::Advertisement);
        }
        if self.solicit_at.is_some_and(|at| at <= now) {
            self.solicited = Some(now);
            self.asked += 1;
            let again = self.neighbour.is_none() && self.asked < ASKED_AT_MOST;
            self.solicit_at = again.then_some(now + ASKING);
            sends.push(Send::Solicitation);
        }
        sends
    }

    /// Sending failed: both are tried again after a moment.
    pub(super) fn again(&mut self, now: Instant, pause: Duration) {
        self.advertise_at = now + pause;
        self.burst = 0;
        if self.neighbour.is_none() {
            self.asked = 0;
            self.solicit_at = Some(now + pause);
        }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
        let doubt = self.doubt.as_ref().map(|d| d.until);
        [doubt, self.solicit_at].into_iter().flatten().fold(self.advertise_at, Instant::min)
    }

    fn take(&mut self, now: Instant, from: Ipv6Addr) {
        self.neighbour = Some(from);
        self.heard = Some(now);
        self.solicit_at = None;
        // It may not have heard us yet.
        self.advertise_soon(now);
    }

    fn advertise_soon(&mut self, now: Instant) {
        let earliest = self.advertised.map_or(now, |last| (last + SPACING).max(now));
        self.advertise_at = self.advertise_at.min(earliest);
    }

    fn ask(&mut self, now: Instant) {
        let earliest = self.solicited.map_or(now, |last| (last + ASKING).max(now));
        self.solicit_at = Some(self.solicit_at.map_or(earliest, |at| at.min(earliest)));
    }

    /// Xorshift: routers that began together must not go on together.
    fn jitter(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let millis = u64::try_from(JITTER.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random % millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Lets time pass; what was sent, with the milliseconds since `start`.
    fn run(link: &mut Link, start: Instant, until: Duration) -> Vec<(u128, Send)> {
        let mut sent = Vec::new();
        while link.next() <= start + until {
            let now = link.next();
            sent.extend(link.due(now).into_iter().map(|s| ((now - start).as_millis(), s)));
        }
        sent
    }

    #[test]
    fn a_burst_then_an_advertisement_each_ten_seconds_at_most() {
        let start = Instant::now();
        let mut link = Link::new(start, 7);
        let sent = run(&mut link, start, MS(60_000));
        let adverts: Vec<u128> =
            sent.iter().filter(|(_, s)| *s == Send::Advertisement).map(|(at, _)| *at).collect();
        assert_eq!(adverts[..5], [0, 250, 500, 1000, 2000]);
        let pauses: Vec<u128> = adverts[4..].windows(2).map(|w| w[1] - w[0]).collect();
        assert!(pauses.len() >= 5 && pauses.iter().all(|p| (7_000..=10_000).contains(p)), "{pauses:?}");
        assert!(pauses.windows(2).any(|w| w[0] != w[1]), "at random: {pauses:?}");
        let asked: Vec<u128> =
            sent.iter().filter(|(_, s)| *s == Send::Solicitation).map(|(at, _)| *at).collect();
        assert_eq!(asked, [0, 1000, 2000]);
    }

    #[test]
    fn who_asks_is_answered_and_a_storm_of_questions_is_not() {
        let start = Instant::now();
        let mut link = Link::new(start, 7);
        run(&mut link, start, MS(20_000));
        let now = start + MS(20_000);
        let quiet = link.next() - now;
        assert!(quiet > MS(600), "{quiet:?}");
        link.on_solicitation(now);
        assert_eq!(link.due(now), [Send::Advertisement]);
        for ms in 0..400 {
            link.on_solicitation(now + MS(ms));
            assert_eq!(link.due(now + MS(ms)), []);
        }
        assert_eq!(link.next(), now + SPACING);
    }

    #[test]
    fn the_first_is_taken_and_stays_while_it_has_a_session() {
        let start = Instant::now();
        let mut link = Link::new(start, 7);
        link.on_advertisement(start, a(1));
        assert_eq!(link.neighbour(), Some(a(1)));
        assert_eq!(link.due(start), [Send::Advertisement], "a new neighbour hears us, and need not be asked");
        link.hold(start, Some(a(1)));
        for n in 0..50_000u32 {
            let now = start + MS(u64::from(n));
            link.on_advertisement(now, a(u16::try_from(n % 999).unwrap() + 2));
            link.due(now);
        }
        assert_eq!(link.neighbour(), Some(a(1)));
        assert_eq!(link.heard(), Some(start));
        assert!(link.other().is_some());
    }

    #[test]
    fn a_neighbour_without_a_session_that_does_not_answer_gives_way() {
        let start = Instant::now();
        let mut link = Link::new(start, 7);
        link.on_advertisement(start, a(1));
        link.hold(start, Some(a(1)));
        run(&mut link, start, MS(30_000));
        let lost = start + MS(30_000);
        link.hold(lost, None);
        assert_eq!(link.due(lost), [Send::Advertisement, Send::Solicitation], "who is there?");
        link.on_advertisement(lost + MS(100), a(2));
        assert_eq!(link.neighbour(), Some(a(1)), "not yet");
        run(&mut link, lost, MS(4_099));
        assert_eq!(link.neighbour(), Some(a(1)), "it has time to answer");
        run(&mut link, lost, MS(4_101));
        assert_eq!((link.neighbour(), link.other()), (Some(a(2)), None));
    }

    #[test]
    fn a_neighbour_that_answers_stays() {
        let start = Instant::now();
        let mut link = Link::new(start, 7);
        link.on_advertisement(start, a(1));
        link.due(start);
        let mut asked = 0;
        for second in 1..60 {
            let now = start + Duration::from_secs(second);
            link.on_advertisement(now, a(2));
            if link.due(now).contains(&Send::Solicitation) {
                asked += 1;
                link.on_advertisement(now + MS(3_000), a(1));
            }
        }
        assert!(asked > 10, "each doubt asks: {asked}");
        assert_eq!((link.neighbour(), link.other()), (Some(a(1)), Some(a(2))));
    }

    /// A storm from ever new addresses, no session: the neighbour changes less and less often.
    #[test]
    fn a_storm_changes_the_neighbour_seldom() {
        let start = Instant::now();
        let mut link = Link::new(start, 7);
        let (mut changes, mut sends) = (0, 0);
        let mut last = None;
        for n in 0..600_000u32 {
            let now = start + MS(u64::from(n));
            link.on_advertisement(now, a(u16::try_from(n % 60_000).unwrap() + 2));
            sends += link.due(now).len();
            if link.neighbour() != last {
                last = link.neighbour();
                changes += 1;
            }
        }
        assert!(changes <= 14, "{changes} changes in ten minutes");
        assert!(sends <= 130, "{sends} packets in ten minutes");
    }

    #[test]
    fn what_could_not_be_sent_is_sent_when_it_can() {
        let start = Instant::now();
        let mut link = Link::new(start, 7);
        link.due(start);
        link.again(start, MS(1000));
        assert_eq!(link.next(), start + MS(1000));
        assert_eq!(link.due(start + MS(1000)), [Send::Advertisement, Send::Solicitation]);
    }
}
