//! Measures Caracal on this machine and prints tables. `bench --help` lists what.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use integration::bench::bulk::Links;
use integration::bench::{Table, endpoints, footprint, learn, machine, start};
use integration::picture::{Options, binary};
use integration::router::RouterKind;
use integration::store::StoreKind;

const USAGE: &str = "\
usage: bench [NAME...] [--count N] [--rate N] [--kinds N]

NAME  endpoints   an endpoint put -> its route in the kernel, at 50 a second: etcd and the embedded store, links made by
                  a plugin beforehand and links made by us
      start       1,000 endpoints present at start -> all links and routes, against `ip -batch`
      learn       100,000 routes learned by BGP -> all in the kernel, against raw netlink
      footprint   resident memory and idle CPU of a node with 500 endpoints
Without a name all of them. Needs root, etcd, etcdctl, bird and iproute2; measures the binary in CARACAL_BIN, or the one
beside this program. Use release builds.
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("bench: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let (mut names, mut count, mut rate, mut kinds) = (Vec::new(), None, 50, 100);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> anyhow::Result<u32> {
            let text = args.next().with_context(|| format!("{arg} needs a number"))?;
            text.parse().with_context(|| format!("{arg} {text}: not a number"))
        };
        match arg.as_str() {
            "--count" => count = Some(number()?),
            "--rate" => rate = number()?,
            "--kinds" => kinds = number()?,
            "--help" | "-h" => {
                print!("{USAGE}");
                return Ok(());
            }
            name @ ("endpoints" | "start" | "learn" | "footprint") => names.push(name.to_owned()),
            other => bail!("{other}: unknown argument\n\n{USAGE}"),
        }
    }
    if names.is_empty() {
        names.extend(["endpoints", "start", "learn", "footprint"].map(String::from));
    }
    let binary = binary()?;
    println!("{}\nbinary: {}", machine(), described(&binary));
    let mut table = Table::default();
    let options = |store| Options { store, router: RouterKind::Bird, split: false, binary: binary.clone() };
    for name in &names {
        match name.as_str() {
            "endpoints" => {
                for store in [StoreKind::Etcd, StoreKind::Embedded] {
                    endpoints::run(&options(store), Links::Plugin, count.unwrap_or(500), rate, &mut table)?;
                }
                endpoints::run(
                    &options(StoreKind::Etcd),
                    Links::Agent,
                    count.unwrap_or(200),
                    rate,
                    &mut table,
                )?;
            }
            "start" => start::run(&options(StoreKind::Etcd), count.unwrap_or(1000), &mut table)?,
            "learn" => learn::run(&binary, count.unwrap_or(100_000), kinds, &mut table)?,
            _ => footprint::run(&options(StoreKind::Etcd), count.unwrap_or(500), &mut table)?,
        }
    }
    Ok(())
}

fn described(binary: &Path) -> String {
    let size = std::fs::metadata(binary).map_or(0, |m| m.len() / 1024 / 1024);
    let build = if binary.to_string_lossy().contains("/debug/") { ", a DEBUG build" } else { "" };
    format!("{} ({size} MiB{build})", binary.display())
}
