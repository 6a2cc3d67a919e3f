//! What the loop is told to do: a speaker's configuration with everything around it that only a shell needs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use bird_speaker::config::Config;
use ipnet::IpNet;

use crate::discover::By;
use crate::metrics::Metric;

/// A configuration, complete in itself.
#[derive(Clone, PartialEq)]
pub(crate) struct Plan {
    /// For the speaker.
    pub(crate) config: Config,
    /// Where to listen.
    pub(crate) listen: Vec<SocketAddr>,
    /// Peer -> TCP MD5 key.
    pub(crate) passwords: BTreeMap<String, Secret>,
    /// Callers' range -> TCP MD5 key.
    pub(crate) range_passwords: BTreeMap<IpNet, Secret>,
    /// Peers whose address is found, and how; they stand in `config` without one.
    pub(crate) sought: BTreeMap<String, By>,
    /// Which routes of the kernel the speaker hears of.
    pub(crate) redistribute: Redistribute,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("peers", &self.config.peers.len()).finish_non_exhaustive()
    }
}

/// Which routes of the kernel the speaker hears of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redistribute {
    /// Subnets of this host's addresses.
    pub(crate) connected: bool,
    /// Routes of other programs.
    pub(crate) kernel: bool,
}

/// A key that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A message to the loop.
#[derive(Debug)]
pub(crate) enum Message {
    /// Follow this from now on.
    Follow(Box<Plan>),
    /// The node must not speak: it lost its address or its router id.
    Silence,
    /// Count everything and send it here.
    Measure(mpsc::SyncSender<Vec<Metric>>),
    /// End; routes stay.
    Stop,
}

/// The sending end: a queue and the bell beside it.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    queue: mpsc::Sender<Message>,
    bell: Arc<mio::Waker>,
}

impl Mailbox {
    /// A sender for the loop that owns `bell`.
    pub(crate) fn new(queue: mpsc::Sender<Message>, bell: Arc<mio::Waker>) -> Self {
        Self { queue, bell }
    }

    /// Hands a message over; false when the loop has ended.
    pub(crate) fn send(&self, message: Message) -> bool {
        self.queue.send(message).is_ok() && self.bell.wake().is_ok()
    }
}
