//! The thread that writes: a message of 256 routes takes the kernel a millisecond as a rule, and now and then, when its
//! trie grows or somebody else holds the lock, half a second. No keepalive waits for that.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use caracal_netlink::{Errno, Netlink, Request};

/// A batch that the kernel has answered.
#[derive(Debug)]
pub(super) struct Done {
    /// Place in the batch, and why.
    pub(super) failed: Vec<(usize, Errno)>,
    pub(super) took: Duration,
}

/// Batches are written in the order in which they come, and answered in that order. When the handle goes, what was handed
/// over is still written.
#[derive(Debug)]
pub(super) struct Writer {
    batches: Option<mpsc::Sender<Vec<Request>>>,
    answers: mpsc::Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    port: u32,
}

impl Writer {
    /// Opens a connection in the calling thread's namespace, over which the new thread writes. `bell` rings for each
    /// answer.
    pub(super) fn start(bell: Arc<mio::Waker>) -> anyhow::Result<Self> {
        let mut netlink =
            Netlink::open().context("cannot speak to the kernel; the agent needs CAP_NET_ADMIN")?;
        let port = netlink.port();
        let (batches, work) = mpsc::channel::<Vec<Request>>();
        let (done, answers) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("bird-fib".into())
            .spawn(move || {
                for batch in work {
                    let begun = Instant::now();
                    let failed = netlink.apply(&batch);
                    // Nobody listens at the end; the rest is written all the same.
                    let _ = done.send(Done { failed, took: begun.elapsed() });
                    let _ = bell.wake();
                }
            })
            .context("thread that writes kernel routes")?;
        Ok(Self { batches: Some(batches), answers, thread: Some(thread), port })
    }

    /// See [`Netlink::port`].
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    pub(super) fn write(&self, batch: Vec<Request>) {
        let batches = self.batches.as_ref().expect("invariant: taken by drop only");
        batches.send(batch).expect("invariant: the thread ends after its handle");
    }

    /// The answer to the oldest batch without one, if it is there.
    pub(super) fn answer(&self) -> Option<Done> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been told already.
            let _ = thread.join();
        }
    }
}
