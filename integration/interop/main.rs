//! The interoperation matrix: real daemons × features, each cell asserted at both ends. `interop --help` lists how.

#![allow(clippy::redundant_pub_crate, reason = "a program's modules; what they share is theirs")]

mod cell;
mod features;
mod peers;
mod results;
mod spec;
mod wait;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail};

use cell::Cell;
use features::{FEATURES, Feature};
use peers::Kind;
use results::{Outcome, Results};

const USAGE: &str = "\
usage: interop [--quick] [--jobs N] [--hold S] [DAEMON...] [FEATURE...]
       interop --write FILE.md      run everything, record it and write the table
       interop --check FILE.md      whether the table is of the recorded run, and that of this matrix; runs nothing
       interop --list

Runs the cells of the daemons and features named, or all; exits with failure when one fails. --quick: the features
that every daemon has, in under a minute. --hold: leave a failed cell as it is for so many seconds, to look at it with
`ip netns exec`. Needs root, the daemons (Debian: bird2 frr gobgpd openbgpd exabgp), tcpdump and
iproute2; tests the binary in CARACAL_BIN, or the one beside this program. A daemon that is not installed is left out,
unless CI is set.
";

/// Logs kept of a failed cell, lines of each.
const LOG_LINES: usize = 40;

struct Wanted {
    cells: VecDeque<(Kind, &'static Feature)>,
    jobs: usize,
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("interop: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let Some(wanted) = arguments(std::env::args().skip(1))? else { return Ok(true) };
    let results = run_cells(wanted.cells, wanted.jobs)?;
    let failed = results.cells.values().filter(|o| matches!(o, Outcome::Failed(_))).count();
    let lacking = results.cells.values().filter(|o| matches!(o, Outcome::Lacks(_))).count();
    println!("{} ok, {failed} failed, {lacking} not possible", results.cells.len() - lacking - failed);
    if let Some(path) = wanted.write {
        let record = results::record();
        std::fs::write(&record, results.to_json()).with_context(|| record.display().to_string())?;
        std::fs::write(&path, results.to_markdown()).with_context(|| path.display().to_string())?;
    }
    Ok(failed == 0)
}

fn arguments(mut args: impl Iterator<Item = String>) -> anyhow::Result<Option<Wanted>> {
    let (mut kinds, mut features, mut quick, mut jobs, mut write) = (Vec::new(), Vec::new(), false, 3, None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{USAGE}");
                return Ok(None);
            }
            "--list" => {
                for feature in FEATURES {
                    println!("{:<12} {}", feature.name, feature.what);
                }
                return Ok(None);
            }
            "--check" => {
                let wrong = Results::check(args.next().context("--check needs a file")?.as_ref())?;
                anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
                return Ok(None);
            }
            "--quick" => quick = true,
            "--jobs" => jobs = args.next().and_then(|n| n.parse().ok()).context("--jobs needs a number")?,
            "--hold" => wait::hold(args.next().and_then(|n| n.parse().ok()).context("--hold needs seconds")?),
            "--write" => write = Some(args.next().context("--write needs a file")?.into()),
            name => {
                let kind = Kind::ALL.into_iter().find(|k| k.name().eq_ignore_ascii_case(name));
                match (kind, features::find(name)) {
                    (Some(kind), _) => kinds.push(kind),
                    (None, Some(feature)) => features.push(feature.name),
                    (None, None) => bail!("{name}: unknown argument\n\n{USAGE}"),
                }
            }
        }
    }
    if write.is_some() && (quick || !kinds.is_empty() || !features.is_empty()) {
        bail!("--write records the whole matrix; leave out --quick and the names");
    }
    let mut cells = VecDeque::new();
    for feature in FEATURES {
        for kind in Kind::ALL {
            let named = (kinds.is_empty() || kinds.contains(&kind))
                && (features.is_empty() || features.contains(&feature.name));
            if named && (!quick || feature.quick) {
                cells.push_back((kind, feature));
            }
        }
    }
    Ok(Some(Wanted { cells, jobs, write }))
}

/// Runs cells, some at a time: they wait most of their time.
fn run_cells(cells: VecDeque<(Kind, &'static Feature)>, jobs: usize) -> anyhow::Result<Results> {
    let mut results = Results::default();
    for kind in Kind::ALL.into_iter().filter(|k| cells.iter().any(|(c, _)| c == k)) {
        match kind.version() {
            Some(version) => {
                results.versions.insert(kind.name().to_owned(), version);
            }
            None if std::env::var_os("CI").is_some() => {
                bail!("{} is missing: apt-get install {}", kind.name(), kind.package())
            }
            None => eprintln!("{} is left out: apt-get install {}", kind.name(), kind.package()),
        }
    }
    let cells: VecDeque<_> =
        cells.into_iter().filter(|(kind, _)| results.versions.contains_key(kind.name())).collect();
    let (queue, done) = (Mutex::new(cells), Mutex::new(&mut results.cells));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((kind, feature)) = next else { return };
                    let outcome = one(kind, feature);
                    let key = (kind.name().to_owned(), feature.name.to_owned());
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(key, outcome);
                }
            });
        }
    });
    Ok(results)
}

fn one(kind: Kind, feature: &Feature) -> Outcome {
    let start = Instant::now();
    let outcome = match (feature.lacks)(kind) {
        Some(why) => Outcome::Lacks(why.to_owned()),
        None => match try_cell(kind, feature) {
            Ok(None) => Outcome::Good,
            Ok(Some(why)) => Outcome::Partly(why.to_owned()),
            Err((why, logs)) => {
                eprintln!("--- {} {}: {why}\n{logs}", kind.name(), feature.name);
                Outcome::Failed(why)
            }
        },
    };
    let word = match &outcome {
        Outcome::Good => "ok",
        Outcome::Partly(_) => "partly ok",
        Outcome::Lacks(_) => "not possible",
        Outcome::Failed(_) => "FAILED",
    };
    println!("{:<9} {:<12} {word:<12} {:.1} s", kind.name(), feature.name, start.elapsed().as_secs_f64());
    outcome
}

fn try_cell(kind: Kind, feature: &Feature) -> Result<Option<&'static str>, (String, String)> {
    let mut cell = Cell::new(kind, feature.name).map_err(|e| (format!("{e:#}"), String::new()))?;
    (feature.run)(&mut cell).map(|()| cell.partly).map_err(|e| (format!("{e:#}"), cell.logs(LOG_LINES)))
}
