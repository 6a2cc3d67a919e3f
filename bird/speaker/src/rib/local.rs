//! This node's own routes from the kernel: connected subnets and routes of other daemons.

use std::collections::HashMap;
use std::sync::Arc;

use super::index32;
use crate::io::{LocalRoute, LocalRouteKey};

/// Local routes by number; a path of [`super::table::source::LOCAL`] has the number as its identifier.
#[derive(Default)]
pub(crate) struct LocalRoutes {
    entries: Vec<Option<LocalRoute>>,
    free: Vec<u32>,
    index: HashMap<LocalRouteKey, u32>,
}

impl LocalRoutes {
    /// Takes a route in, or over another with the same key; `None` if it is the same as before.
    pub(crate) fn put(&mut self, route: LocalRoute) -> Option<u32> {
        if let Some(&i) = self.index.get(&route.key) {
            let entry = &mut self.entries[i as usize];
            if entry.as_ref() == Some(&route) {
                return None;
            }
            *entry = Some(route);
            return Some(i);
        }
        let key = route.key.clone();
        let i = if let Some(i) = self.free.pop() {
            self.entries[i as usize] = Some(route);
            i
        } else {
            self.entries.push(Some(route));
            index32(self.entries.len() - 1)
        };
        self.index.insert(key, i);
        Some(i)
    }

    /// Takes a route out; its number stays reserved until [`LocalRoutes::free`].
    pub(crate) fn take(&mut self, key: &LocalRouteKey) -> Option<u32> {
        self.index.remove(key)
    }

    /// Gives a number back.
    pub(crate) fn free(&mut self, i: u32) {
        self.entries[i as usize] = None;
        self.free.push(i);
    }

    pub(crate) fn interface(&self, i: u32) -> Option<&Arc<str>> {
        self.entries.get(i as usize)?.as_ref().map(|r| &r.key.interface)
    }

    pub(crate) fn route(&self, i: u32) -> Option<&LocalRoute> {
        self.entries.get(i as usize)?.as_ref()
    }

    /// All routes with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &LocalRoute)> {
        self.entries.iter().enumerate().filter_map(|(i, r)| Some((index32(i), r.as_ref()?)))
    }
}
