//! The command line: calicoctl's commands and flags. Flags stand anywhere, short ones joined with their value or not, the last
//! of several wins.

use std::ffi::OsString;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::bgp::args::Bgp;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "calicoctl",
    about = "Reads, writes and checks Calico's objects, and looks at nodes and addresses.",
    args_override_self = true,
    max_term_width = 120,
    arg_required_else_help = true
)]
pub(crate) struct Line {
    /// Taken as calicoctl takes it; there is nothing to tell but results
    #[arg(short, long, global = true, default_value = "panic", value_name = "LEVEL", value_parser = LEVELS, ignore_case = true)]
    pub(crate) log_level: String,
    /// A context of a kubeconfig; without meaning here
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// Work with a cluster of another version
    #[arg(long, global = true)]
    pub(crate) allow_version_mismatch: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const LEVELS: [&str; 7] = ["panic", "fatal", "error", "warn", "warning", "info", "debug"];

impl Line {
    /// Reads the words behind the program's name.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Line, clap::Error> {
        let words = std::iter::once(OsString::from("calicoctl")).chain(words);
        let matches = switches(Line::command()).try_get_matches_from(words)?;
        Line::from_arg_matches(&matches)
    }
}

/// Lets switches take a value behind an equals sign, `--show-blocks=true`, as calicoctl does.
fn switches(command: clap::Command) -> clap::Command {
    let switch = |arg: clap::Arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("BOOL")
            .value_parser(BoolishValueParser::new()),
        _ => arg,
    };
    command.mut_args(switch).mut_subcommands(switches)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create objects that do not exist yet
    Create(Create),
    /// Create objects, or replace those that exist
    Apply(Objects),
    /// Replace objects that exist
    Replace(Objects),
    /// Delete objects, named in a file or on the command line
    Delete(Delete),
    /// Show objects
    Get(Get),
    /// Change fields of an object
    Patch(Patch),
    /// Set or remove a label of an object
    Label(Label),
    /// Check objects without writing them
    Validate(Objects),
    /// The versions of this program and of the cluster
    Version(Version),
    /// Addresses and blocks
    #[command(subcommand, arg_required_else_help = true)]
    Ipam(Ipam),
    /// This host
    #[command(subcommand, arg_required_else_help = true)]
    Node(Node),
    /// What a node's BGP speaker does; not in calicoctl
    #[command(subcommand, arg_required_else_help = true)]
    Bgp(Bgp),
    /// The datastore as a whole
    #[command(subcommand, arg_required_else_help = true)]
    Datastore(Datastore),
}

/// Where the datastore is.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// File that says how to reach the datastore
    #[arg(short, long, value_name = "FILE", default_value = caracal_datastore::DEFAULT_FILE)]
    pub(crate) config: String,
}

/// Files with objects.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// A file, a directory, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: Option<String>,
    /// Go down into the subdirectories of a directory
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Say nothing of files without objects
    #[arg(long)]
    pub(crate) skip_empty: bool,
    /// The namespace of objects that name none
    #[arg(short, long, value_name = "NAMESPACE", default_value = "")]
    pub(crate) namespace: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `apply`, `replace`, `validate`.
#[derive(Debug, Args)]
pub(crate) struct Objects {
    #[command(flatten)]
    pub(crate) files: Files,
}

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Count what exists already as done
    #[arg(long)]
    pub(crate) skip_exists: bool,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Kind and names
    #[arg(value_name = "KIND NAME")]
    pub(crate) what: Vec<String>,
    /// Count what does not exist as done
    #[arg(short, long)]
    pub(crate) skip_not_exists: bool,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Kind and, for single objects, names
    #[arg(value_name = "KIND NAME")]
    pub(crate) what: Vec<String>,
    /// ps, wide, yaml, json, custom-columns=A,B, go-template=T or go-template-file=F
    #[arg(short, long, default_value = "ps", value_name = "FORMAT")]
    pub(crate) output: String,
    /// Objects of every namespace
    #[arg(short = 'A', long, visible_short_alias = 'a')]
    pub(crate) all_namespaces: bool,
    /// Leave out what belongs to this cluster only; needs names
    #[arg(long)]
    pub(crate) export: bool,
}

/// `patch`.
#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// The kind
    pub(crate) kind: String,
    /// The name
    pub(crate) name: String,
    /// The change, as JSON or YAML
    #[arg(short = 'p', long = "patch", value_name = "PATCH", allow_hyphen_values = true)]
    pub(crate) change: String,
    /// strategic, merge (RFC 7386) or json (RFC 6902)
    #[arg(short = 't', long = "type", default_value = "strategic", value_name = "TYPE")]
    pub(crate) form: String,
    /// The namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "")]
    pub(crate) namespace: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `label`.
#[derive(Debug, Args)]
pub(crate) struct Label {
    /// The kind
    pub(crate) kind: String,
    /// The name
    pub(crate) name: String,
    /// key=value, or key with --remove
    #[arg(value_name = "LABEL")]
    pub(crate) wanted: String,
    /// Replace the value of a label that is set
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Remove the label
    #[arg(long)]
    pub(crate) remove: bool,
    /// The namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "")]
    pub(crate) namespace: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `version`.
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Of this program only
    #[arg(long)]
    pub(crate) client: bool,
    /// Ask again every so many seconds, until the cluster's version changes; 0s: once
    #[arg(long, default_value = "0s", value_name = "TIME")]
    pub(crate) poll: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `ipam …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Use of pools and blocks, or of one address
    Show(IpamShow),
    /// Compare what is allocated with what is in use
    Check(IpamCheck),
    /// Give addresses back
    Release(IpamRelease),
    /// Cut a pool into smaller ones
    Split(IpamSplit),
    /// Set how addresses are allocated
    Configure(IpamConfigure),
}

/// `ipam show`.
#[derive(Debug, Args)]
pub(crate) struct IpamShow {
    /// Who has this address
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Option<String>,
    /// Blocks too
    #[arg(long)]
    pub(crate) show_blocks: bool,
    /// Addresses in use on another node than their block's
    #[arg(long)]
    pub(crate) show_borrowed: bool,
    /// How addresses are allocated
    #[arg(long)]
    pub(crate) show_configuration: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `ipam check`.
#[derive(Debug, Args)]
pub(crate) struct IpamCheck {
    /// Name every address that is checked
    #[arg(long)]
    pub(crate) show_all_ips: bool,
    /// Name the addresses that are wrong
    #[arg(long)]
    pub(crate) show_problem_ips: bool,
    /// Write a report, for ipam release --from-report
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<String>,
    /// Not needed here
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `ipam release`.
#[derive(Debug, Args)]
#[command(args_override_self = false)]
pub(crate) struct IpamRelease {
    /// The address
    #[arg(long, value_name = "IP", conflicts_with = "from_report")]
    pub(crate) ip: Option<String>,
    /// Release what a report of ipam check calls leaked, in every one of the reports if several are given
    #[arg(long, value_name = "FILE", action = ArgAction::Append)]
    pub(crate) from_report: Vec<String>,
    /// Release although the datastore is not locked, or another version made the report
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `ipam split`.
#[derive(Debug, Args)]
pub(crate) struct IpamSplit {
    /// Into how many, a power of 2
    #[arg(value_name = "NUMBER")]
    pub(crate) number: Vec<String>,
    /// The pool by its prefix
    #[arg(long, value_name = "CIDR", default_value = "")]
    pub(crate) cidr: String,
    /// The pool by its name
    #[arg(long, value_name = "POOL", default_value = "")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `ipam configure`.
#[derive(Debug, Args)]
pub(crate) struct IpamConfigure {
    /// Whether a node uses addresses of its own blocks only
    #[arg(long, value_name = "BOOL")]
    pub(crate) strictaffinity: Option<String>,
    /// How many blocks a node may have; 0: the default
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) max_blocks_per_host: Option<String>,
    /// Whether virtual machines keep their addresses: Enabled or Disabled
    #[arg(long, value_name = "WORD")]
    pub(crate) kubevirt_ip_persistence: Option<String>,
    /// For how long a released address rests
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) ip_cooldown_seconds: Option<i64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `node …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// The agent and its BGP sessions
    Status,
    /// Whether the kernel has what is needed
    Checksystem(CheckSystem),
}

/// `node checksystem`.
#[derive(Debug, Args)]
pub(crate) struct CheckSystem {
    /// Look into this file instead of the running kernel's configuration
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) kernel_config: Option<String>,
}

/// `datastore …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Datastore {
    /// Lock and unlock for a migration
    #[command(subcommand, arg_required_else_help = true)]
    Migrate(Migrate),
    /// Rename policies that still carry the prefix of the default tier
    MigratePolicyNames(Connection),
}

/// `datastore migrate …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Let no node take up changes
    Lock(Connection),
    /// Let nodes go on
    Unlock(Connection),
    /// Not possible here
    Export(Connection),
    /// Not possible here
    Import(Import),
}

/// `datastore migrate import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The exported objects
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Line {
        Line::read(words.iter().map(OsString::from)).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    #[test]
    fn the_definition_is_sound() {
        switches(Line::command()).debug_assert();
    }

    #[test]
    fn flags_stand_anywhere() {
        for words in [
            &["get", "-o", "wide", "nodes", "a"][..],
            &["get", "nodes", "-owide", "a", "--allow-version-mismatch"],
            &["--allow-version-mismatch=true", "get", "nodes", "a", "--output=wide"],
            &["get", "nodes", "a", "-o", "yaml", "-o", "wide", "--context", "c", "-l", "debug"],
        ] {
            let Command::Get(get) = line(words).command else { panic!("{words:?}") };
            assert_eq!(
                (get.output.as_str(), get.what),
                ("wide", vec!["nodes".to_owned(), "a".to_owned()]),
                "{words:?}"
            );
        }
        let Command::Create(create) = line(&["create", "-f-", "--skip-exists"]).command else { panic!() };
        assert_eq!((create.files.filename.as_deref(), create.skip_exists), (Some("-"), true));
    }

    #[test]
    fn switches_take_a_value_only_behind_an_equals_sign() {
        let Command::Ipam(Ipam::Show(show)) =
            line(&["ipam", "show", "--show-blocks=true", "--show-borrowed"]).command
        else {
            panic!()
        };
        assert!(show.show_blocks && show.show_borrowed);
        let Command::Get(get) = line(&["get", "-a", "nodes", "--export=false"]).command else { panic!() };
        assert!(get.all_namespaces && !get.export);
        let Command::Ipam(Ipam::Split(split)) = line(&["ipam", "split", "--cidr=10.0.0.0/24", "4"]).command
        else {
            panic!()
        };
        assert_eq!(split.number, ["4"]);
        let Command::Ipam(Ipam::Release(release)) =
            line(&["ipam", "release", "--from-report=a", "--from-report", "b"]).command
        else {
            panic!()
        };
        assert_eq!(release.from_report, ["a", "b"]);
    }
}
