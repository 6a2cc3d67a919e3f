//! A numbered UDP stream from one host to another, and what was lost of it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::Namespace;

/// A running stream: one datagram each `interval`, numbered from 0.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Received>,
}

#[derive(Debug, Default)]
struct Received {
    seen: Vec<bool>,
    source: Option<IpAddr>,
    longest_gap: Duration,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that never arrived.
    pub lost: u64,
    /// Source address as the receiver saw it.
    pub source: Option<IpAddr>,
    /// Longest time between two arrivals.
    pub longest_gap: Duration,
}

impl Stream {
    /// Starts sending from `from` to `address:port` in `to`, `rate` datagrams a second.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
        port: u16,
        rate: u32,
    ) -> anyhow::Result<Self> {
        let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let input = to.run(move || UdpSocket::bind(SocketAddr::new(any, port)))?;
        let output = from.run(move || UdpSocket::bind(SocketAddr::new(any, 0)))?;
        input.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_tx, stop_rx) = (stop.clone(), stop.clone());
        let interval = Duration::from_secs(1) / rate;
        let sender = thread::spawn(move || send(&output, SocketAddr::new(address, port), interval, &stop_tx));
        let receiver = thread::spawn(move || receive(&input, &stop_rx));
        Ok(Self { stop, sender, receiver })
    }

    /// Ends the stream, waits for the last datagrams, counts.
    pub fn finish(self) -> anyhow::Result<StreamReport> {
        self.stop.store(true, Ordering::SeqCst);
        let sent = self.sender.join().map_err(|_| anyhow!("lab: stream sender"))?;
        let got = self.receiver.join().map_err(|_| anyhow!("lab: stream receiver"))?;
        let arrived = got.seen.iter().filter(|&&seen| seen).count() as u64;
        Ok(StreamReport {
            sent,
            lost: sent.saturating_sub(arrived),
            source: got.source,
            longest_gap: got.longest_gap,
        })
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, interval: Duration, stop: &AtomicBool) -> u64 {
    let (mut next, mut number) = (Instant::now(), 0u64);
    while !stop.load(Ordering::Relaxed) {
        // An unreachable destination is an error here and a loss in the count.
        let _ = socket.send_to(&number.to_be_bytes(), to);
        number += 1;
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    number
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Received {
    let (mut got, mut buffer, mut last) = (Received::default(), [0u8; 64], None::<Instant>);
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((8, from)) => {
                let now = Instant::now();
                got.longest_gap = got.longest_gap.max(last.map_or(Duration::ZERO, |t| now - t));
                last = Some(now);
                got.source.get_or_insert(from.ip());
                let mut number = [0; 8];
                number.copy_from_slice(&buffer[..8]);
                let index = usize::try_from(u64::from_be_bytes(number)).unwrap_or(usize::MAX);
                if index < 100_000_000 {
                    if got.seen.len() <= index {
                        got.seen.resize(index + 1, false);
                    }
                    got.seen[index] = true;
                }
            }
            Ok(_) => {}
            Err(_) if stop.load(Ordering::SeqCst) => return got,
            Err(_) => {}
        }
    }
}
