//! A BGP speaker as a value: sessions, RIBs, decision, filters, export groups, graceful restart.
//!
//! It is not a daemon: no sockets, no clock, no threads, no randomness but a seed. A shell owns sockets, the kernel's routes
//! and the configuration, and drives a [`Speaker`]; tests drive the same value through minutes of protocol in microseconds.
//!
//! ```text
//!   Config ── configure ──▶ ┌──────────────────────────────────────────────────────────────┐ ── poll ─▶ Output:
//!   accept  ──────────────▶ │ FSM ─▶ import ─▶ table ─▶ decision ─▶ groups ─▶ log of bytes │   Connect, Close, Transmit,
//!   Input ─── handle ─────▶ │                               └─▶ kernel changes             │   Fib, WatchNextHop, Event
//!                           └──────────────────────────────────────────────────────────────┘
//!                                 next_timeout        take_fib ─▶ FibChange    transmit ─▶ bytes for writev
//! ```
//!
//! # How a shell drives it
//!
//! Time is a [`Time`]: how long the shell's monotonic clock has run. One task owns the speaker and loops:
//!
//! 1. Wait for: a readable socket, a writable socket that was full, a new connection, an answer of the kernel, a new
//!    [`Config`], or [`Speaker::next_timeout`].
//! 2. Hand over what there is. Read sockets *before* ticking, so that a hold timer never expires over bytes that had
//!    arrived; timers run on [`Input::Tick`] only. A readable socket: read up to some 256 KiB into one buffer for all and
//!    hand it over as [`Input::Received`]; whole messages are parsed in place. When there is more than a few milliseconds
//!    of it, [`Input::Waiting`] for every socket that is left, and tick. A new connection: [`Speaker::accept`]. Last of
//!    all [`Input::Tick`].
//!    What concerns a whole table, as a changed import filter does, goes on by a slice at each tick; `next_timeout` is in
//!    the past until it is done.
//! 3. [`Speaker::poll`] until it gives nothing, and do what it says:
//!    - [`Output::Connect`]: call without blocking; answer [`Input::Connected`] or [`Input::ConnectFailed`].
//!    - [`Output::Transmit`]: [`Speaker::transmit`] into a queue for `writev`. When all of it is written, call it again,
//!      until it gives nothing. A socket that is full is left alone until it is writable: the speaker notices by the clock
//!      (RFC 9687), and keeps nothing for it meanwhile that others do not need.
//!    - [`Output::Close`]: `transmit` once more until it gives nothing, try to write that, close.
//!    - [`Output::Fib`]: when no kernel write is under way, [`Speaker::take_fib`] a batch, write it, report each failure as
//!      [`Input::FibFailed`], and go on until it gives nothing. Changes to one prefix meanwhile fall into one.
//!    - [`Output::WatchNextHop`]: answer [`Input::NextHop`] now and whenever the way there changes.
//!    - [`Output::Event`]: log it.
//!
//! A first start: `Speaker::new(now, config, Start::default())`. After a restart: `Start { restarted: true,
//! forwarding_kept: true, .. }`, then one [`Input::StaleFib`] for every kernel route of our protocol before anything else;
//! what is still right is not written again, what nobody wants is removed when [`Event::RestartComplete`] says so. With
//! `local_routes`, tell all kernel routes of others as [`Input::LocalRoute`], then [`Input::LocalRoutesComplete`].
//!
//! # Where to start reading
//!
//! [`Speaker`] is the one type to start from. Inside, `session` and [`fsm`] bring peers up and down, `import` takes UPDATEs
//! in, `rib` holds and decides, `export` tells others, `fib` says what the kernel shall have, [`view`] answers questions.

mod aggregate;
pub mod config;
mod conn;
mod diff;
mod ending;
mod export;
mod fib;
pub mod fsm;
mod import;
pub mod io;
mod local;
mod peer;
pub mod policy;
mod receive;
mod reconfigure;
pub mod restart;
mod rib;
mod rivals;
mod session;
mod shell;
mod speaker;
mod tally;
mod timers;
pub mod view;
pub mod watch;
mod words;

pub use config::{Config, PeerConfig};
pub use diff::ConfigDiff;
pub use export::verdict::ExportReason;
pub use fib::NotProgrammed;
pub use import::ImportReason;
pub use io::{ConnId, Event, FibChange, FibRoute, Input, LocalRoute, Output, Time};
pub use peer::Counters;
pub use rib::decide::Step;
pub use shell::FibCursor;
pub use speaker::{Speaker, Start};
pub use tally::Notifications;
