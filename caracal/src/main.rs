//! `caracal`: one binary, several roles. The first argument names the role, or the name under which it was called.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use caracal::ctl;
use caracal::node::{self, Role};

const USAGE: &str = "\
Caracal: plain routed IP between workloads, by BGP.

usage: caracal <role> [arguments]

  node     felix and bird in one process, and the node's registration: what runs on a host
  felix    links, routes and status of this host's workloads
  bird     the BGP speaker of this host; with --config FILE a router or route reflector of its own
  ctl      the operator's tool, with calicoctl's commands (also as a link named caracalctl or calicoctl)
  version  what this is

The roles node, felix and bird are configured by calico-node's environment variables; see README.md.
";

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let called =
        args.first().and_then(|a| Path::new(a).file_name()).and_then(|n| n.to_str()).unwrap_or_default();
    if matches!(called, "caracalctl" | "calicoctl") {
        return ctl::run(args.split_off(1));
    }
    let role = args.get(1).and_then(|a| a.to_str()).unwrap_or_default().to_owned();
    match role.as_str() {
        "ctl" => ctl::run(args.split_off(2)),
        "node" => run(Role::Node, &args[2..]),
        "felix" => run(Role::Felix, &args[2..]),
        "bird" if args.len() > 2 => node::run_standalone(&args[2..]),
        "bird" => run(Role::Bird, &args[2..]),
        "version" | "--version" | "-V" => {
            println!("caracal {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        "" => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
        other => {
            eprint!("caracal: unknown role {other:?}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(role: Role, rest: &[OsString]) -> ExitCode {
    if let Some(extra) = rest.first() {
        eprintln!(
            "caracal {}: unexpected argument {}; this role is configured by environment variables (see README.md)",
            role.name(),
            extra.display()
        );
        return ExitCode::from(2);
    }
    node::run(role)
}
