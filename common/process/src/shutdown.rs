//! One flag that every role watches.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Becomes requested once and stays so. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A flag that only [`Shutdown::request`] raises.
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(false) }
    }

    /// A flag that SIGTERM and SIGINT raise, from a thread of its own.
    pub fn on_signals() -> anyhow::Result<Self> {
        let shutdown = Self::new();
        let flag = shutdown.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut terminate, mut interrupt) = {
            let _guard = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let name = runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            });
            tracing::info!(signal = name, "stopping; routes and sessions stay for the next start");
            flag.request();
        })?;
        Ok(shutdown)
    }

    /// Calls `reload` at each SIGHUP, from a thread of its own.
    pub fn on_hangup(mut reload: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut hangup = {
            let _guard = runtime.enter();
            signal(SignalKind::hangup())?
        };
        std::thread::Builder::new().name("reload".into()).spawn(move || {
            while runtime.block_on(hangup.recv()).is_some() {
                reload();
            }
        })?;
        Ok(())
    }

    /// Asks every role to stop.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        *self.sender.borrow()
    }

    /// Completes when a stop is asked for.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in self, so the channel cannot close before the value changes.
        let _ = receiver.wait_for(|requested| *requested).await;
    }

    /// Blocks the calling thread until a stop is asked for.
    pub fn wait_blocking(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(self.wait());
        Ok(())
    }
}
