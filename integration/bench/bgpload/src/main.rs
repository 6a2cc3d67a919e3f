//! bgpload: load generator, monitor and benchmark harness for BGP speakers.
//! See README.md.

mod dut;
mod fibraw;
mod relay;
mod session;
mod table;
mod wire;

use clap::{Args, Parser, Subcommand};
use dut::{Context, Dut, Net, Usage};
use serde_json::{json, Value};
use session::{now_ns, Job, Load, Monitor, Peer};
use std::io::{self, Error, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::Origin;
use wire::Prefix;

const DUT_IP: &str = "198.18.0.1";
const DUT_AS: u32 = 65000;
const MON_IP: &str = "198.19.255.254";
const MON_AS: u32 = 65001;
const SENDER_AS: u32 = 4_200_000_001;

#[derive(Parser)]
#[command(version, about = "BGP load generator, monitor and speaker benchmark")]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Benchmark one speaker once; prints one JSON line
    Run(Box<Run>),
    /// The null speaker: forward every UPDATE to the monitor
    Relay {
        #[arg(long)]
        ip: Ipv4Addr,
        #[arg(long)]
        asn: u32,
        #[arg(long)]
        monitor: Ipv4Addr,
    },
    /// Raw limits: TCP on loopback, monitor parsing, rtnetlink, `ip -batch`
    Raw {
        /// Prefixes for the wire tests
        #[arg(long, default_value_t = 1_000_000)]
        prefixes: usize,
        /// Routes for the kernel tests
        #[arg(long, default_value_t = 100_000)]
        routes: usize,
    },
}

#[derive(Args)]
struct Run {
    /// Built-in adapter (caracal, bird2, frr, gobgpd, openbgpd, rustybgp, null) or template file
    #[arg(long, default_value = "")]
    dut: String,
    /// Instead of --dut: a command line, with {dut_ip} {dut_as} {mon_ip}
    /// {mon_as} {senders} {sender_as} {dir} {self} replaced
    #[arg(long, conflicts_with = "dut")]
    dut_cmd: Option<String>,
    /// With --dut-cmd: a template rendered to {dir}/dut.conf
    #[arg(long, requires = "dut_cmd")]
    dut_conf: Option<String>,
    /// Sender sessions
    #[arg(long, default_value_t = 1)]
    senders: u32,
    /// Prefixes per sender
    #[arg(long, default_value_t = 100_000)]
    prefixes: usize,
    /// Distinct attribute sets per sender (default: prefixes / 6, 1 for calico)
    #[arg(long)]
    attr_sets: Option<usize>,
    /// dfz (Internet-like) or calico (16 /26 per node plus /32s)
    #[arg(long, default_value = "dfz")]
    profile: String,
    /// All senders announce the same prefixes
    #[arg(long)]
    same: bool,
    /// The speaker re-advertises to the senders too, not only to the monitor
    #[arg(long)]
    export: bool,
    /// Senders are iBGP peers, as in a Calico mesh (the monitor stays eBGP)
    #[arg(long, conflicts_with = "export")]
    ibgp: bool,
    /// Announce IPv6 prefixes (over the IPv4 sessions)
    #[arg(long)]
    ipv6: bool,
    /// The speaker installs routes; measure until the kernel has them all
    #[arg(long)]
    fib: bool,
    /// No monitor session (with --fib)
    #[arg(long, requires = "fib")]
    no_monitor: bool,
    /// After convergence, flap for this many seconds
    #[arg(long, default_value_t = 0)]
    flap: u64,
    /// Share of each table that flaps, in percent
    #[arg(long, default_value_t = 10)]
    flap_percent: usize,
    /// Cap on flapped prefix changes per second over all senders (0: none)
    #[arg(long, default_value_t = 0)]
    flap_rate: u64,
    /// End by closing the sender sessions instead of withdrawing
    #[arg(long)]
    close: bool,
    /// Extra flags for `@if` in the adapter (frr: coalesce0)
    #[arg(long)]
    flag: Vec<String>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Give up on a phase after this many seconds
    #[arg(long, default_value_t = 180)]
    timeout: u64,
    /// Copied to the output, to tell workloads apart
    #[arg(long, default_value = "")]
    label: String,
}

fn main() {
    now_ns();
    let result = match Cli::parse().command {
        Sub::Run(r) => {
            let mut out = json!({
                "label": r.label, "dut": if r.dut.is_empty() { "custom" } else { &r.dut },
                "senders": r.senders, "prefixes": r.prefixes, "profile": r.profile,
                "same": r.same, "export": r.export, "ibgp": r.ibgp, "ipv6": r.ipv6, "fib": r.fib, "ok": true,
            });
            if let Err(e) = run(&r, &mut out) {
                out["ok"] = false.into();
                out["error"] = e.to_string().into();
            }
            println!("{out}");
            Ok(())
        }
        Sub::Relay { ip, asn, monitor } => relay::run(Peer { ip, asn }, monitor, true),
        Sub::Raw { prefixes, routes } => raw(prefixes, routes),
    };
    if let Err(e) = result {
        eprintln!("bgpload: {e}");
        std::process::exit(1);
    }
}

fn sender_ip(i: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xc612_0100 + (i / 200) * 256 + i % 200 + 1) // 198.18.1.1 ...
}

fn sender_as(r: &Run, i: u32) -> u32 {
    if r.ibgp {
        DUT_AS
    } else {
        SENDER_AS + i
    }
}

fn sender_ip6(i: u32) -> [u8; 16] {
    (0x2001_0db8_u128 << 96 | u128::from(0x100 + i)).to_be_bytes()
}

/// Every sender's table.
fn tables(r: &Run) -> io::Result<Vec<Vec<Prefix>>> {
    let n = r.prefixes;
    Ok(match r.profile.as_str() {
        "calico" if n <= 1024 => (0..r.senders).map(|i| table::calico(i, n)).collect(),
        "dfz" if r.same => vec![table::dfz(n, r.seed, r.ipv6); r.senders as usize],
        "dfz" => {
            let all = table::dfz(n * r.senders as usize, r.seed, r.ipv6);
            all.chunks(n).map(<[Prefix]>::to_vec).collect()
        }
        p => return Err(Error::other(format!("profile {p} with {n} prefixes"))),
    })
}

fn context(r: &Run) -> Context {
    let mut cx = Context::default();
    // iBGP routes never go to iBGP peers, so no policy is needed to stop them.
    let flags = [("fib", r.fib), ("export", r.export || r.ibgp), ("ipv6", r.ipv6), ("ibgp", r.ibgp)];
    cx.flags = flags.iter().filter(|f| f.1).map(|f| f.0.to_string()).chain(r.flag.clone()).collect();
    let vars = [
        ("dut_ip", DUT_IP.to_string()),
        ("dut_as", DUT_AS.to_string()),
        ("mon_ip", MON_IP.into()),
        ("mon_as", MON_AS.to_string()),
        ("senders", r.senders.to_string()),
        ("sender_as", SENDER_AS.to_string()),
    ];
    cx.vars = vars.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    let mut add = |name: String, ip: String, asn: u32, role: &str| {
        let vars = [("name", name), ("ip", ip), ("as", asn.to_string()), ("role", role.into())];
        cx.neighbors.push(vars.into_iter().map(|(k, v)| (k.to_string(), v)).collect());
    };
    if !r.no_monitor {
        add("mon".into(), MON_IP.into(), MON_AS, "monitor");
    }
    (0..r.senders).for_each(|i| add(format!("s{i}"), sender_ip(i).to_string(), sender_as(r, i), "sender"));
    cx
}

/// Everything a phase looks at.
struct Bench<'a> {
    dut: &'a mut Dut,
    load: &'a Load,
    mon: Option<&'a Monitor>,
    fib: Option<&'a Fib>,
    timeout: Duration,
}

/// Kernel route count, kept up to date by a polling thread.
#[derive(Default)]
struct Fib {
    count: AtomicI64,
    target: AtomicI64,
    hit_ns: AtomicU64,
}

/// Prefixes that are looked up before all are counted.
const SAMPLE: usize = 256;

/// Counting walks the whole trie, 11 ms for 100,000 routes. So single routes
/// are looked up, one after the other, until all of a sample are as they
/// should be; only then are all counted. The time noted is that at the end of
/// the complete count, late by the walk at most.
fn fib_loop(dut_count: impl Fn() -> Option<i64>, netns: &str, sample: &[Prefix], base: i64, fib: &Fib, load: &Load) {
    let lookup = dut::enter(netns).and_then(|()| fibraw::Lookup::new()).expect("a netlink socket");
    let mut next = 0;
    while !load.stop.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
        let target = fib.target.load(Relaxed);
        if fib.hit_ns.load(Relaxed) != 0 {
            next = 0;
            continue;
        }
        let present = target != base;
        while next < sample.len() && lookup.has(&sample[next]).is_ok_and(|has| has == present) {
            next += 1;
        }
        if next < sample.len() {
            continue;
        }
        let count = dut_count().unwrap_or(-1);
        fib.count.store(count, Relaxed);
        if count == target {
            fib.hit_ns.store(now_ns(), Relaxed);
        }
    }
}

impl Bench<'_> {
    /// Wait until the speaker has used no CPU and sent nothing for 600 ms;
    /// returns when that calm began and the usage at its end.
    fn calm(&mut self, deadline: Instant) -> io::Result<(u64, Usage)> {
        let (mut since, mut base) = (now_ns(), self.dut.usage());
        loop {
            std::thread::sleep(Duration::from_millis(50));
            self.check()?;
            let u = self.dut.usage();
            let last = self.mon.map_or(0, |m| m.last_ns.load(Relaxed));
            if u.cpu_s - base.cpu_s > 0.021 || last > since {
                (since, base) = (now_ns(), u);
            } else if now_ns() - since > 600_000_000 {
                return Ok((since, u));
            }
            if Instant::now() > deadline {
                return Err(Error::other(format!("timeout: speaker still busy, {:.1} s of CPU so far", u.cpu_s)));
            }
        }
    }

    fn check(&mut self) -> io::Result<()> {
        self.dut.check()?;
        let errors = [Some(&self.load.error), self.mon.map(|m| &m.error)];
        let error = errors.into_iter().flatten().find_map(|e| e.lock().unwrap().clone());
        error.map_or(Ok(()), |e| Err(Error::other(e)))
    }

    /// Run one job until the monitor and the kernel hold what they should,
    /// then until the speaker is calm.
    fn phase(&mut self, job: Job, prefixes: i64, routes: i64) -> io::Result<Value> {
        let deadline = Instant::now() + self.timeout;
        let before = (self.dut.usage(), dut::machine_busy_s(), dut::self_cpu_s());
        let seen = |m: Option<&Monitor>| {
            m.map_or([0; 4], |m| [&m.updates, &m.bytes, &m.announced, &m.withdrawn].map(|c| c.load(Relaxed)))
        };
        let seen0 = seen(self.mon);
        let flap = matches!(job, Job::Flap { .. });
        if let Some(f) = self.fib {
            f.target.store(routes, Relaxed);
            f.hit_ns.store(0, Relaxed);
        }
        if let Some(m) = self.mon {
            m.arm(prefixes);
        }
        self.load.start(job);
        let t0_wall = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(2));
            self.check()?;
            let done = self.load.done_ns.load(Relaxed) > 0;
            let (hit, fib_hit) = if flap {
                (self.mon.is_none_or(|m| m.count.load(Relaxed) == prefixes), true)
            } else {
                let hit = self.mon.is_none_or(|m| m.hit_ns.load(Relaxed) > 0);
                (hit, self.fib.is_none_or(|f| f.hit_ns.load(Relaxed) > 0))
            };
            if done && hit && fib_hit {
                break;
            }
            if Instant::now() > deadline {
                let have = self.mon.map(|m| m.count.load(Relaxed));
                let fib = self.fib.map(|f| f.count.load(Relaxed));
                return Err(Error::other(format!(
                    "timeout after {} s: sent {done}, monitor {have:?} of {prefixes}, kernel {fib:?} of {routes}",
                    t0_wall.elapsed().as_secs()
                )));
            }
        }
        let (idle_ns, usage) = self.calm(deadline)?;
        let busy = dut::machine_busy_s() - before.1;
        let t0 = self.load.first_ns.load(Relaxed);
        let since = |ns: u64| (ns.saturating_sub(t0) as f64 / 1e6).round() / 1e3;
        let (cpu, own) = (usage.cpu_s - before.0.cpu_s, dut::self_cpu_s() - before.2);
        let got = seen(self.mon);
        let mut v = json!({
            "send_s": since(self.load.done_ns.load(Relaxed)), "bytes_sent": self.load.bytes_sent.load(Relaxed),
            "idle_s": since(idle_ns), "cpu_s": round3(cpu), "rss_peak_mb": usage.rss_peak_kb / 1024,
            "gen_cpu_s": round3(own), "other_cpu_s": round3((busy - cpu - own).max(0.0)),
        });
        if let Some(m) = self.mon {
            let last = since(m.last_ns.load(Relaxed));
            v["converge_s"] = if flap { last } else { since(m.hit_ns.load(Relaxed)) }.into();
            v["settled_s"] = last.into();
            for (i, name) in ["mon_updates", "mon_bytes", "mon_announced", "mon_withdrawn"].iter().enumerate() {
                v[name] = (got[i] - seen0[i]).into();
            }
        }
        if let (Some(f), false) = (self.fib, flap) {
            v["fib_s"] = since(f.hit_ns.load(Relaxed)).into();
        }
        if flap {
            let flaps = self.load.flaps.load(Relaxed);
            v["flap_changes"] = flaps.into();
            v["changes_per_s"] = (flaps as f64 / v["settled_s"].as_f64().unwrap_or(0.0).max(0.001)).round().into();
        }
        Ok(v)
    }
}

fn round3(v: f64) -> f64 {
    (v * 1e3).round() / 1e3
}

fn run(r: &Run, out: &mut Value) -> io::Result<()> {
    let tables = tables(r)?;
    let sets = r.attr_sets.unwrap_or(if r.profile == "calico" { 1 } else { r.prefixes / 6 });
    let mut keys = session::KeySet::default();
    tables.iter().flatten().for_each(|p| _ = keys.insert(p.key()));
    let distinct = keys.len() as i64;
    let (mut up, mut down, mut flap_up, mut flap_down) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut updates = 0;
    let share = r.prefixes * r.flap_percent.clamp(1, 100) / 100;
    for (i, t) in (0u32..).zip(&tables) {
        let (asn, plain) = ((!r.ibgp).then_some(SENDER_AS + i), r.profile == "calico");
        let origin = Origin { asn, plain, ip: sender_ip(i), ip6: sender_ip6(i) };
        let seed = r.seed + 1000 + u64::from(i);
        let w = table::encode(t, &origin, sets, seed, true);
        updates += w.updates;
        up.push(Arc::new(w.announce));
        down.push(Arc::new(w.withdraw));
        if r.flap > 0 {
            let w = table::encode(&t[..share], &origin, sets * share / r.prefixes, seed, false);
            flap_up.push(Arc::new(w.announce));
            flap_down.push(Arc::new(w.withdraw));
        }
    }
    let all = tables.iter().map(Vec::len).sum::<usize>();
    // A longer prefix at the same address would be found in its place.
    let hidden = |p: &Prefix| (p.len + 1..=32).any(|len| keys.contains(&Prefix { len, ..*p }.key()));
    let each = tables.iter().flatten().step_by((all / SAMPLE).max(1));
    let sample: Vec<Prefix> = each.filter(|p| !p.v6 && !hidden(p)).copied().collect();
    drop((tables, keys));
    let ours: Vec<String> = (0..r.senders).map(|i| sender_ip(i).to_string()).chain([MON_IP.into()]).collect();
    let ours6: Vec<String> = (0..r.senders).map(|i| std::net::Ipv6Addr::from(sender_ip6(i)).to_string()).collect();
    let net = Net::new(DUT_IP, &ours, &ours6)?;
    dut::enter(&net.gen)?;
    let mut cx = context(r);
    let text = match (&r.dut_cmd, &r.dut_conf) {
        (Some(c), None) => format!("@cmd {c}\n"),
        (Some(c), Some(f)) => format!("@cmd {c}\n@file dut.conf\n{}", dut::template(f)?),
        (None, _) => dut::template(&r.dut)?,
    };
    let mut dut = Dut::launch(&text, &mut cx, &net)?;
    out["version"] = dut.version.clone().into();
    out["attr_sets"] = sets.into();
    out["updates_sent"] = updates.into();
    out["distinct"] = distinct.into();

    let start = Instant::now();
    let timeout = Duration::from_secs(r.timeout);
    let dut_addr: SocketAddr = format!("{DUT_IP}:179").parse().unwrap();
    let deadline = start + Duration::from_secs(60);
    let mon_peer = Peer { ip: MON_IP.parse().unwrap(), asn: MON_AS };
    let monitor = if r.no_monitor { None } else { Some(session::establish(&mon_peer, dut_addr, r.ipv6, deadline)) };
    let peers: Vec<Peer> = (0..r.senders).map(|i| Peer { ip: sender_ip(i), asn: sender_as(r, i) }).collect();
    let streams = session::establish_all(&peers, dut_addr, r.ipv6, deadline);
    if matches!(monitor, Some(Err(_))) || streams.is_err() {
        dut.check()?;
    }
    let (monitor, streams) = (monitor.transpose()?, streams?);
    out["establish_s"] = round3(start.elapsed().as_secs_f64()).into();

    let (load, mon, fib) = (Load::default(), Monitor::default(), Fib::default());
    mon.target.store(-1, Relaxed);
    fib.hit_ns.store(1, Relaxed); // nothing to wait for yet
    std::thread::scope(|scope| {
        scope.spawn(|| session::sender_loop(streams, &load));
        let has_monitor = monitor.is_some();
        if let Some(s) = monitor {
            scope.spawn(|| session::monitor_loop(s, &mon, distinct as usize * 2));
        }
        let base = dut.fib_count(r.ipv6).unwrap_or(0);
        if r.fib {
            let count = dut.fib_counter(r.ipv6);
            let (fib, load, sample, netns) = (&fib, &load, &sample, &net.dut);
            scope.spawn(move || fib_loop(count, netns, sample, base, fib, load));
        }
        let mut b =
            Bench { dut: &mut dut, load: &load, mon: has_monitor.then_some(&mon), fib: r.fib.then_some(&fib), timeout };
        let result = (|| {
            b.calm(Instant::now() + Duration::from_secs(10))?;
            out["announce"] = b.phase(Job::Send(up), distinct, base + distinct)?;
            if r.flap > 0 {
                let job = Job::Flap {
                    down: flap_down,
                    up: flap_up,
                    changes: share as u64,
                    until_ns: now_ns() + r.flap * 1_000_000_000,
                    rate: r.flap_rate,
                };
                out["flap"] = b.phase(job, distinct, base + distinct)?;
            }
            let end = if r.close { Job::Close } else { Job::Send(down) };
            out["withdraw"] = b.phase(end, 0, base)?;
            Ok(())
        })();
        load.stop.store(true, Relaxed);
        mon.stop.store(true, Relaxed);
        result
    })
}

/// The raw limits every measured number should be read against.
fn raw(prefixes: usize, routes: usize) -> io::Result<()> {
    let origin = Origin { asn: Some(SENDER_AS), plain: false, ip: sender_ip(0), ip6: sender_ip6(0) };
    let t = Instant::now();
    let table = table::dfz(prefixes, 1, false);
    let wire = Arc::new(table::encode(&table, &origin, prefixes / 6, 1001, true).announce);
    let mut out = json!({
        "prefixes": prefixes, "bytes": wire.len(), "generate_s": round3(t.elapsed().as_secs_f64()),
    });
    let t = Instant::now();
    let copy = std::hint::black_box(wire.to_vec());
    out["memcpy_s"] = t.elapsed().as_secs_f64().into();
    drop(copy);

    // The same bytes over loopback TCP: discarded, then parsed and counted.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connect = || -> io::Result<(TcpStream, TcpStream)> {
        let a = TcpStream::connect(listener.local_addr()?)?;
        Ok((a, listener.accept()?.0))
    };
    let (mut a, mut b) = connect()?;
    let bytes = wire.clone();
    let t = Instant::now();
    let writer = std::thread::spawn(move || a.write_all(&bytes));
    let mut scratch = vec![0; 1 << 18];
    while b.read(&mut scratch)? > 0 {}
    writer.join().unwrap()?;
    out["loopback_discard_s"] = round3(t.elapsed().as_secs_f64()).into();
    let (mut a, b) = connect()?;
    let mon = Monitor::default();
    mon.arm(prefixes as i64);
    let t0 = now_ns();
    std::thread::scope(|scope| {
        scope.spawn(|| session::monitor_loop(b, &mon, prefixes * 2));
        a.write_all(&wire)?;
        while mon.hit_ns.load(Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        mon.stop.store(true, Relaxed);
        io::Result::Ok(())
    })?;
    out["loopback_monitor_s"] = round3((mon.hit_ns.load(Relaxed) - t0) as f64 / 1e9).into();

    // Kernel routes, in a namespace of our own.
    let net = Net::new(DUT_IP, &[MON_IP.to_string()], &[])?;
    dut::enter(&net.dut)?;
    // SAFETY: a NUL-terminated interface name.
    let oif = unsafe { libc::if_nametoindex(c"bmv0".as_ptr()) };
    let table = &table[..routes.min(prefixes)];
    out["routes"] = table.len().into();
    let gateway = MON_IP.parse::<Ipv4Addr>().unwrap().octets();
    for batch in [1, 16, 256] {
        for (kind, name) in [(fibraw::NEWROUTE, "add"), (fibraw::DELROUTE, "del")] {
            let (t, cpu) = (Instant::now(), dut::self_cpu_s());
            fibraw::apply(kind, table, gateway, oif, batch)?;
            out[format!("rtnetlink_{name}_batch{batch}_s")] = round3(t.elapsed().as_secs_f64()).into();
            out[format!("rtnetlink_{name}_batch{batch}_cpu_s")] = round3(dut::self_cpu_s() - cpu).into();
        }
    }
    let file = std::env::temp_dir().join(format!("{}.batch", net.dut));
    for verb in ["add", "del"] {
        let text: String = table.iter().map(|p| fibraw::ip_batch_line(verb, p, MON_IP)).collect();
        std::fs::write(&file, text)?;
        let t = Instant::now();
        std::process::Command::new("ip").arg("-batch").arg(&file).status()?;
        out[format!("ip_batch_{verb}_s")] = round3(t.elapsed().as_secs_f64()).into();
    }
    std::fs::remove_file(&file)?;
    println!("{out}");
    Ok(())
}
