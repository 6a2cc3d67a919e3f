//! The MTU of links that we make: the smallest of the host's uplinks, as in Calico (`mtuIfacePattern`).

use caracal_netlink::Link;
use regex::Regex;

const DEFAULT: u32 = 1500;

#[derive(Debug)]
pub(crate) struct HostMtu {
    pattern: Option<Regex>,
    value: u32,
}

impl HostMtu {
    /// A pattern that is no regular expression matches nothing; the log says so.
    pub(crate) fn new(pattern: &str) -> Self {
        let pattern = Regex::new(&format!("^(?:{pattern})$"))
            .inspect_err(|_| {
                tracing::warn!("mtuIfacePattern is not a regular expression; links are made with MTU 1500");
            })
            .ok();
        Self { pattern, value: DEFAULT }
    }

    pub(crate) fn value(&self) -> u32 {
        self.value
    }

    /// Looks at the host's links again; returns whether the value is another.
    pub(crate) fn update<'a>(&mut self, links: impl Iterator<Item = &'a Link>) -> bool {
        let uplinks = links.filter(|link| self.pattern.as_ref().is_some_and(|p| p.is_match(&link.name)));
        let value = uplinks.map(|link| link.mtu).min().unwrap_or(DEFAULT);
        std::mem::replace(&mut self.value, value) != value
    }
}
