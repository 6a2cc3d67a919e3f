//! What Calico's BGP objects have no field for, said by annotations `caracal.io/*`. Calico's own clients leave them alone.
//!
//! [`TABLE`] is the one list: what is valid where, and what it means. `docs/annotations.md` shows the same rows, which a
//! test holds. Read an object's annotations with [`BgpSettings::read`].

mod discovery;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::duration::GoDuration;
use crate::kind::Kind;

pub use discovery::{
    DEFAULT_GATEWAY, Discovery, GatewayFamily, INTERFACE, Named, REMOTE_AS, RemoteAs, Sought, Wrong,
};
use discovery::{default_gateway, interface, remote_as};

/// What every annotation of ours begins with.
pub const PREFIX: &str = "caracal.io/";

/// One annotation that BGP knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation {
    /// Its name, with [`PREFIX`].
    pub name: &'static str,
    /// Which objects may carry it.
    pub on: On,
    /// What its value must be, as the end of a sentence that begins with "must be".
    pub takes: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub effect: &'static str,
}

/// Which objects may carry an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A BGPPeer or a BGPConfiguration.
    Both,
    /// A BGPPeer only.
    Peer,
    /// A BGPConfiguration only.
    Configuration,
}

impl On {
    fn includes(self, kind: Kind) -> bool {
        match kind {
            Kind::BgpPeer => self != On::Configuration,
            Kind::BgpConfiguration => self != On::Peer,
            _ => false,
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            On::Both => "BGPPeer, BGPConfiguration",
            On::Peer => "BGPPeer",
            On::Configuration => "BGPConfiguration",
        })
    }
}

const ON_OFF: &str = "on or off";

/// Every annotation that BGP knows.
pub const TABLE: &[Annotation] = &[
    Annotation {
        name: "caracal.io/bfd",
        on: On::Both,
        takes: ON_OFF,
        default: "off",
        effect: "watch the peer with BFD; when it is gone the session ends at once, with Cease / BFD Down",
    },
    Annotation {
        name: "caracal.io/bfd-min-tx",
        on: On::Both,
        takes: "a duration from 10ms to 60s",
        default: "300ms",
        effect: "shortest interval at which BFD packets are sent",
    },
    Annotation {
        name: "caracal.io/bfd-min-rx",
        on: On::Both,
        takes: "a duration from 10ms to 60s",
        default: "300ms",
        effect: "shortest interval at which BFD packets are taken",
    },
    Annotation {
        name: "caracal.io/bfd-multiplier",
        on: On::Both,
        takes: "a number from 1 to 255",
        default: "3",
        effect: "how many of our BFD packets may be lost before the peer says that we are gone",
    },
    Annotation {
        name: "caracal.io/bfd-multihop",
        on: On::Both,
        takes: ON_OFF,
        default: "on if the peer's address is outside the subnet of the Node",
        effect: "BFD across routers (UDP port 4784) instead of on the link (3784); both ends must agree",
    },
    Annotation {
        name: "caracal.io/bfd-failure",
        on: On::Both,
        takes: "drop or keep",
        default: "drop",
        effect: "what a BFD failure that a restart of the peer may explain does to its routes where graceful restart is \
                 agreed: keep holds them for the restart time",
    },
    Annotation {
        name: "caracal.io/bfd-strict",
        on: On::Both,
        takes: ON_OFF,
        default: "off",
        effect: "no session before BFD with the peer is up, whether or not the peer waits too; counts from the next session on",
    },
    Annotation {
        name: "caracal.io/hold-time",
        on: On::Both,
        takes: "0s, or a duration of whole seconds from 3s to 65535s",
        default: "240s",
        effect: "hold time offered; both ends use the lower one; counts from the next session on",
    },
    Annotation {
        name: "caracal.io/keepalive",
        on: On::Configuration,
        takes: "a duration of whole seconds from 1s to 21845s",
        default: "a third of the hold time",
        effect: "interval of KEEPALIVEs, never more than a third of the hold time; a BGPPeer has spec.keepaliveTime, which wins",
    },
    Annotation {
        name: "caracal.io/connect-retry",
        on: On::Both,
        takes: "a duration from 1s to 1h",
        default: "5s",
        effect: "longest pause between two calls; the first ones follow within 100 ms",
    },
    Annotation {
        name: "caracal.io/send-hold-time",
        on: On::Both,
        takes: "off, or a duration of whole seconds from 3s to 65535s",
        default: "8m or twice the hold time, whichever is longer",
        effect: "end a session whose peer reads nothing for so long (RFC 9687)",
    },
    Annotation {
        name: "caracal.io/prefix-limit",
        on: On::Both,
        takes: "a number from 1 to 4294967295",
        default: "none",
        effect: "most prefixes of each family that the peer may send",
    },
    Annotation {
        name: "caracal.io/prefix-limit-action",
        on: On::Both,
        takes: "warn, discard or reset",
        default: "discard",
        effect: "what happens beyond the limit: say so; ignore more prefixes; or end the session",
    },
    Annotation {
        name: "caracal.io/prefix-limit-restart",
        on: On::Both,
        takes: "off, or a duration from 1s to 24h",
        default: "off",
        effect: "after a reset by the limit, when the peer is called again; off waits for an operator",
    },
    Annotation {
        name: "caracal.io/add-path",
        on: On::Both,
        takes: "off, receive, send or both",
        default: "both",
        effect: "several paths for a prefix (RFC 7911), where the peer agrees; a change resets the session",
    },
    Annotation {
        name: "caracal.io/add-path-send-limit",
        on: On::Both,
        takes: "a number from 1 to 4094",
        default: "none",
        effect: "with ADD-PATH, most paths of a prefix that the peer is told: the best ones of those that it may be told",
    },
    Annotation {
        name: "caracal.io/add-path-receive-limit",
        on: On::Both,
        takes: "a number from 1 to 4094",
        default: "none",
        effect: "with ADD-PATH, most paths of a prefix that are taken from the peer, which is told so; more are ignored; a \
                 change resets the session",
    },
    Annotation {
        name: "caracal.io/extended-next-hop",
        on: On::Both,
        takes: ON_OFF,
        default: "off; on with caracal.io/interface",
        effect: "IPv4 routes with IPv6 next hops (RFC 8950), where the peer agrees; a change resets the session",
    },
    Annotation {
        name: "caracal.io/extended-message",
        on: On::Both,
        takes: ON_OFF,
        default: "on",
        effect: "messages of up to 65535 octets (RFC 8654), where the peer agrees; counts from the next session on",
    },
    Annotation {
        name: "caracal.io/export",
        on: On::Peer,
        takes: "own, no-transit or all",
        default: "all",
        effect: "narrow what the peer is told: own blocks and local routes only; or nothing that another external peer told this node or another one",
    },
    Annotation {
        name: "caracal.io/remove-private-as",
        on: On::Both,
        takes: ON_OFF,
        default: "off",
        effect: "strip private AS numbers from the paths that an external peer is told",
    },
    Annotation {
        name: "caracal.io/as-override",
        on: On::Both,
        takes: ON_OFF,
        default: "off",
        effect: "put our AS in place of an external peer's own in the paths that it is told",
    },
    Annotation {
        name: "caracal.io/enforce-first-as",
        on: On::Both,
        takes: ON_OFF,
        default: "off",
        effect: "refuse routes of an external peer that do not begin with its AS; a change resets the session",
    },
    Annotation {
        name: "caracal.io/reject-as-sets",
        on: On::Both,
        takes: ON_OFF,
        default: "off",
        effect: "refuse routes whose path has an AS_SET (RFC 9774); a change resets the session",
    },
    Annotation {
        name: "caracal.io/graceful-restart",
        on: On::Both,
        takes: ON_OFF,
        default: "on",
        effect: "offer graceful restart (RFC 4724, 8538); a change resets the session",
    },
    Annotation {
        name: "caracal.io/long-lived-stale-time",
        on: On::Both,
        takes: "off, or a duration of whole seconds from 1s to 16777215s",
        default: "off",
        effect: "long-lived graceful restart (RFC 9494): ask the peer to keep our routes for so long after the restart \
                 time, and keep its routes for as long as it asks, so long at most; counts from the next session on",
    },
    Annotation {
        name: "caracal.io/graceful-shutdown",
        on: On::Both,
        takes: ON_OFF,
        default: "off",
        effect: "drain: tell routes with the community GRACEFUL_SHUTDOWN and prefer the peer's least (RFC 8326)",
    },
    Annotation {
        name: "caracal.io/shutdown",
        on: On::Both,
        takes: ON_OFF,
        default: "off",
        effect: "keep the session down, and tell the peer so (Cease / Administrative Shutdown)",
    },
    Annotation {
        name: "caracal.io/passive",
        on: On::Peer,
        takes: ON_OFF,
        default: "off",
        effect: "never call the peer, only be called; counts where spec.peerIP names a router that is no node",
    },
    Annotation {
        name: INTERFACE,
        on: On::Peer,
        takes: "the name of an interface",
        default: "none",
        effect: "the peer is the router that advertises itself on this interface (RFC 4861); see below",
    },
    Annotation {
        name: DEFAULT_GATEWAY,
        on: On::Peer,
        takes: "ipv4 or ipv6",
        default: "none",
        effect: "the peer is the gateway of the node's default route of this family; see below",
    },
    Annotation {
        name: REMOTE_AS,
        on: On::Peer,
        takes: "a number from 1 to 4294967295, external or internal",
        default: "spec.asNumber",
        effect: "the AS of a peer that is found: this one, any but the node's, or the node's; see below",
    },
    Annotation {
        name: "caracal.io/ecmp",
        on: On::Configuration,
        takes: "a number from 1 to 64",
        default: "64",
        effect: "most equal paths that one kernel route has",
    },
];

/// The row of an annotation.
pub fn find(name: &str) -> Option<&'static Annotation> {
    TABLE.iter().find(|row| row.name == name)
}

/// Annotations with our prefix that mean nothing on an object of this kind, which they may have been meant for.
pub fn unknown<'a>(kind: Kind, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    if !matches!(kind, Kind::BgpPeer | Kind::BgpConfiguration) {
        return Vec::new();
    }
    names.filter(|name| name.starts_with(PREFIX) && find(name).is_none()).collect()
}

/// An annotation that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What would be right, as "must be ...".
    pub reason: String,
}

/// What happens to the routes of a peer that BFD says is gone, where a restart may explain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BfdFailure {
    /// They go.
    Drop,
    /// They stay for the restart time.
    Keep,
}

/// Several paths for a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AddPath {
    /// Neither way.
    Off,
    /// From the peer.
    Receive,
    /// To the peer.
    Send,
    /// Both ways.
    Both,
}

/// What a prefix limit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitAction {
    /// Say so.
    Warn,
    /// Ignore what is beyond.
    Discard,
    /// End the session.
    Reset,
}

/// A time that may be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Never.
    Off,
    /// After this.
    After(GoDuration),
}

impl Serialize for Timer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Timer::Off => serializer.serialize_str("off"),
            Timer::After(time) => time.serialize(serializer),
        }
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        /// What an object's annotations say. `None`: nothing.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct BgpSettings {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl BgpSettings {
            /// These, and what another object says where these are silent.
            #[must_use]
            pub fn or(self, other: &BgpSettings) -> BgpSettings {
                BgpSettings { $($field: self.$field.or(other.$field),)* }
            }

            /// Whether nothing is said.
            pub fn is_empty(&self) -> bool {
                $(self.$field.is_none())&&*
            }
        }
    };
}

settings! {
    /// BFD is wanted.
    bfd: bool,
    /// Its shortest interval to send.
    bfd_min_tx: GoDuration,
    /// Its shortest interval to receive.
    bfd_min_rx: GoDuration,
    /// Its multiplier.
    bfd_multiplier: u8,
    /// Across routers.
    bfd_multihop: bool,
    /// What its failure does to routes where a restart may explain it.
    bfd_failure: BfdFailure,
    /// The session waits for it.
    bfd_strict: bool,
    /// Hold time, whole seconds.
    hold_time: GoDuration,
    /// Keepalive interval, whole seconds.
    keepalive: GoDuration,
    /// Longest pause between calls.
    connect_retry: GoDuration,
    /// Send hold time, whole seconds.
    send_hold_time: Timer,
    /// Most prefixes.
    prefix_limit: u32,
    /// What happens beyond.
    prefix_limit_action: LimitAction,
    /// When the peer is called again.
    prefix_limit_restart: Timer,
    /// Several paths for a prefix.
    add_path: AddPath,
    /// Most paths of a prefix that the peer is told.
    add_path_send_limit: u16,
    /// Most paths of a prefix that are taken from it.
    add_path_receive_limit: u16,
    /// IPv6 next hops for IPv4.
    extended_next_hop: bool,
    /// Long messages.
    extended_message: bool,
    /// Private AS numbers are stripped.
    remove_private_as: bool,
    /// The peer's AS is replaced by ours.
    as_override: bool,
    /// The first AS must be the peer's.
    enforce_first_as: bool,
    /// Paths with an AS_SET are refused.
    reject_as_sets: bool,
    /// Graceful restart is offered.
    graceful_restart: bool,
    /// How long routes outlive the restart time, whole seconds.
    long_lived_stale_time: Timer,
    /// The session is in graceful shutdown.
    graceful_shutdown: bool,
    /// The session stays down.
    shutdown: bool,
    /// Only be called.
    passive: bool,
    /// Equal paths of a kernel route.
    ecmp: u8,
}

impl BgpSettings {
    /// Reads the annotations of an object. What cannot be followed is left out and named; unknown ones are no error here,
    /// see [`unknown`]. An empty value says nothing. `caracal.io/export` is checked, and read by whoever exports; the same with
    /// those that say who the peer is, see [`Sought`].
    pub fn read(kind: Kind, annotations: &BTreeMap<String, String>) -> (BgpSettings, Vec<Refused>) {
        let mut settings = BgpSettings::default();
        let mut refused = Vec::new();
        for (name, value) in annotations.range(PREFIX.to_owned()..).take_while(|(n, _)| n.starts_with(PREFIX))
        {
            let Some(row) = find(name) else { continue };
            let mut refuse =
                |reason: String| refused.push(Refused { name: name.clone(), value: value.clone(), reason });
            if !row.on.includes(kind) {
                let hint = if name == "caracal.io/keepalive" { "; here set spec.keepaliveTime" } else { "" };
                refuse(format!("is for a {} only{hint}", row.on));
            } else if !value.trim().is_empty() && settings.set(name, value.trim()).is_none() {
                refuse(format!("must be {}", row.takes));
            }
        }
        (settings, refused)
    }

    fn set(&mut self, name: &str, text: &str) -> Option<()> {
        match name.strip_prefix(PREFIX)? {
            "bfd" => self.bfd = Some(on_off(text)?),
            "bfd-min-tx" => self.bfd_min_tx = Some(duration(text, 10, 60_000)?),
            "bfd-min-rx" => self.bfd_min_rx = Some(duration(text, 10, 60_000)?),
            "bfd-multiplier" => self.bfd_multiplier = Some(number(text, 1)?),
            "bfd-multihop" => self.bfd_multihop = Some(on_off(text)?),
            "bfd-failure" => {
                self.bfd_failure =
                    Some(word(text, &[("drop", BfdFailure::Drop), ("keep", BfdFailure::Keep)])?);
            }
            "bfd-strict" => self.bfd_strict = Some(on_off(text)?),
            "hold-time" => {
                let none = seconds(text, 0, 0);
                self.hold_time = Some(none.or_else(|| seconds(text, 3, 65_535))?);
            }
            "keepalive" => self.keepalive = Some(seconds(text, 1, 21_845)?),
            "connect-retry" => self.connect_retry = Some(duration(text, 1_000, 3_600_000)?),
            "send-hold-time" => {
                self.send_hold_time = Some(timer(text, || seconds(text, 3, 65_535))?);
            }
            "prefix-limit" => self.prefix_limit = Some(number(text, 1)?),
            "prefix-limit-action" => {
                let words = [
                    ("warn", LimitAction::Warn),
                    ("discard", LimitAction::Discard),
                    ("reset", LimitAction::Reset),
                ];
                self.prefix_limit_action = Some(word(text, &words)?);
            }
            "prefix-limit-restart" => {
                self.prefix_limit_restart = Some(timer(text, || duration(text, 1_000, 86_400_000))?);
            }
            "add-path" => {
                let words = [
                    ("off", AddPath::Off),
                    ("receive", AddPath::Receive),
                    ("send", AddPath::Send),
                    ("both", AddPath::Both),
                ];
                self.add_path = Some(word(text, &words)?);
            }
            "add-path-send-limit" => self.add_path_send_limit = Some(paths(text)?),
            "add-path-receive-limit" => self.add_path_receive_limit = Some(paths(text)?),
            "extended-next-hop" => self.extended_next_hop = Some(on_off(text)?),
            "extended-message" => self.extended_message = Some(on_off(text)?),
            "export" => word(text, &[("own", ()), ("no-transit", ()), ("all", ())])?,
            "remove-private-as" => self.remove_private_as = Some(on_off(text)?),
            "as-override" => self.as_override = Some(on_off(text)?),
            "enforce-first-as" => self.enforce_first_as = Some(on_off(text)?),
            "reject-as-sets" => self.reject_as_sets = Some(on_off(text)?),
            "graceful-restart" => self.graceful_restart = Some(on_off(text)?),
            "long-lived-stale-time" => {
                self.long_lived_stale_time = Some(timer(text, || seconds(text, 1, 16_777_215))?);
            }
            "graceful-shutdown" => self.graceful_shutdown = Some(on_off(text)?),
            "shutdown" => self.shutdown = Some(on_off(text)?),
            "passive" => self.passive = Some(on_off(text)?),
            "interface" => drop(interface(text)?),
            "default-gateway" => drop(default_gateway(text)?),
            "remote-as" => drop(remote_as(text)?),
            "ecmp" => self.ecmp = Some(number::<u8>(text, 1).filter(|n| *n <= 64)?),
            _ => return None,
        }
        Some(())
    }
}

fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
}

fn on_off(text: &str) -> Option<bool> {
    word(text, &[("on", true), ("off", false)])
}

fn number<T: std::str::FromStr + PartialOrd>(text: &str, least: T) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?.filter(|n| *n >= least)
}

/// So many paths of a prefix; the speaker holds no more than this.
fn paths(text: &str) -> Option<u16> {
    number(text, 1).filter(|n| *n <= 4094)
}

/// A duration within these milliseconds.
fn duration(text: &str, least: u32, most: u32) -> Option<GoDuration> {
    let value: GoDuration = text.parse().ok()?;
    let millis = |n: u32| i64::from(n) * 1_000_000;
    (millis(least)..=millis(most)).contains(&value.as_nanos()).then_some(value)
}

/// A duration of whole seconds.
fn seconds(text: &str, least: u32, most: u32) -> Option<GoDuration> {
    let value: GoDuration = text.parse().ok()?;
    let whole = (GoDuration::from_secs(least)..=GoDuration::from_secs(most)).contains(&value)
        && value.as_nanos() % 1_000_000_000 == 0;
    whole.then_some(value)
}

fn timer(text: &str, read: impl FnOnce() -> Option<GoDuration>) -> Option<Timer> {
    if text == "off" { Some(Timer::Off) } else { read().map(Timer::After) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, name: &str, value: &str) -> (BgpSettings, Vec<Refused>) {
        BgpSettings::read(kind, &BTreeMap::from([(format!("{PREFIX}{name}"), value.to_owned())]))
    }

    /// Every row has a value that is taken, one that is not, and is refused where it does not belong.
    #[test]
    fn every_row_is_read_and_checked() {
        let values: &[(&str, &[&str], &[&str])] = &[
            ("bfd", &["on", "off"], &["On", "true", "1"]),
            ("bfd-min-tx", &["10ms", "60s", "300ms"], &["9ms", "61s", "300", "-300ms", "fast"]),
            ("bfd-min-rx", &["10ms", "1m"], &["0s", "61s"]),
            ("bfd-multiplier", &["1", "255"], &["0", "256", "+3", "3.0"]),
            ("bfd-multihop", &["on", "off"], &["yes"]),
            ("bfd-failure", &["drop", "keep"], &["Drop", "ignore"]),
            ("bfd-strict", &["on", "off"], &["strict"]),
            ("hold-time", &["0s", "3s", "1m30s", "65535s"], &["1s", "2999ms", "3500ms", "65536s", "90"]),
            ("keepalive", &["1s", "21845s"], &["0s", "500ms", "21846s"]),
            ("connect-retry", &["1s", "1h"], &["999ms", "61m"]),
            ("send-hold-time", &["off", "3s", "65535s"], &["2s", "never", "3500ms"]),
            ("prefix-limit", &["1", "4294967295"], &["0", "4294967296", "-1", "1e3"]),
            ("prefix-limit-action", &["warn", "discard", "reset"], &["Warn", "drop"]),
            ("prefix-limit-restart", &["off", "1s", "24h"], &["0s", "25h"]),
            ("add-path", &["off", "receive", "send", "both"], &["on", "all"]),
            ("add-path-send-limit", &["1", "4094"], &["0", "4095", "all", "-1"]),
            ("add-path-receive-limit", &["1", "4094"], &["0", "4095", "none"]),
            ("extended-next-hop", &["on", "off"], &["yes"]),
            ("extended-message", &["on", "off"], &["yes"]),
            ("export", &["own", "no-transit", "all"], &["mine"]),
            ("remove-private-as", &["on", "off"], &["all"]),
            ("as-override", &["on", "off"], &["yes"]),
            ("enforce-first-as", &["on", "off"], &["yes"]),
            ("reject-as-sets", &["on", "off"], &["yes"]),
            ("graceful-restart", &["on", "off"], &["120s"]),
            ("long-lived-stale-time", &["off", "1s", "24h", "16777215s"], &["0s", "16777216s", "1.5s"]),
            ("graceful-shutdown", &["on", "off"], &["yes"]),
            ("shutdown", &["on", "off"], &["yes"]),
            ("passive", &["on", "off"], &["yes"]),
            ("interface", &["eth0", "bond0.100"], &["a b", "a/b", "with:colon", "sixteen-letters-", ".."]),
            ("default-gateway", &["ipv4", "ipv6"], &["IPv4", "both", "10.0.0.1"]),
            (
                "remote-as",
                &["1", "4294967295", "external", "internal"],
                &["0", "4294967296", "any", "64512.1"],
            ),
            ("ecmp", &["1", "64"], &["0", "65", "300"]),
        ];
        // Checked here, read elsewhere.
        let apart = ["export", "interface", "default-gateway", "remote-as"];
        let names: Vec<String> = values.iter().map(|(name, ..)| format!("{PREFIX}{name}")).collect();
        let rows: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names, rows, "each row has its values here");
        for (row, (name, good, bad)) in TABLE.iter().zip(values) {
            for kind in [Kind::BgpPeer, Kind::BgpConfiguration] {
                for value in *good {
                    let (settings, refused) = read(kind, name, value);
                    if row.on.includes(kind) {
                        assert_eq!(refused, [], "{name} {value}");
                        assert_eq!(settings.is_empty(), apart.contains(name), "{name} {value}");
                    } else {
                        assert!(settings.is_empty(), "{name} on {kind:?}");
                        assert!(refused[0].reason.starts_with("is for a BGP"), "{refused:?}");
                    }
                }
            }
            let kind = if row.on == On::Configuration { Kind::BgpConfiguration } else { Kind::BgpPeer };
            for value in *bad {
                let (settings, refused) = read(kind, name, value);
                assert!(settings.is_empty(), "{name} {value}: {settings:?}");
                assert_eq!(refused[0].reason, format!("must be {}", row.takes), "{value}");
            }
            assert_eq!(read(kind, name, " "), (BgpSettings::default(), Vec::new()), "empty says nothing");
        }
    }

    #[test]
    fn what_is_said_nearer_wins() {
        let (near, _) = read(Kind::BgpPeer, "hold-time", "9s");
        let far = BgpSettings {
            hold_time: Some(GoDuration::from_secs(90)),
            bfd: Some(true),
            ..BgpSettings::default()
        };
        let both = near.or(&far);
        assert_eq!((both.hold_time, both.bfd), (Some(GoDuration::from_secs(9)), Some(true)));
    }

    #[test]
    fn an_unknown_name_of_ours_is_told_from_others() {
        let names = ["caracal.io/hold-tiem", "caracal.io/hold-time", "example.com/hold-time"];
        assert_eq!(unknown(Kind::BgpPeer, names.into_iter()), ["caracal.io/hold-tiem"]);
        assert!(unknown(Kind::WorkloadEndpoint, names.into_iter()).is_empty());
    }

    /// The documentation shows these rows and no others.
    #[test]
    fn the_documented_table_is_this_one() {
        let page = include_str!("../../../docs/annotations.md");
        let shown: Vec<&str> = page.lines().filter(|l| l.starts_with("| `caracal.io/")).collect();
        let rows: Vec<String> = TABLE
            .iter()
            .map(|row| {
                let Annotation { name, on, takes, default, effect } = row;
                format!("| `{name}` | {on} | {takes} | {default} | {effect} |")
            })
            .collect();
        assert_eq!(shown, rows, "the table should be:\n{}", rows.join("\n"));
    }
}
