//! The calculation: facts in, what this node's dataplane should be out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::claims::Claims;
use crate::config::{self, Config, Raw, Remark, Source};
use crate::endpoint::{Checked, Desired, WepId, Workload, Written, check};
use crate::facts::{Fact, Reader};
use crate::pools::Pools;

/// Everything that is known and what follows from it. The answer depends on what is known now, not on how it came.
#[derive(Debug)]
pub struct Calc {
    reader: Reader,
    sources: BTreeMap<Source, Raw>,
    config: Config,
    pools: Pools,
    records: BTreeMap<WepId, Record>,
    claims: Claims,
    ready: bool,
    /// Objects with something wrong, and what was said about each: said once.
    said: BTreeMap<String, String>,
    remarked: BTreeSet<Remark>,
    /// What the reader was told and the next [`Calc::poll`] passes on.
    dirty: BTreeSet<WepId>,
    notices: Vec<Notice>,
    told: BTreeMap<WepId, Desired>,
    /// Which link the kernel had for an address when this life began.
    adopted: BTreeMap<IpAddr, String>,
    config_told: bool,
    recheck: bool,
}

/// One endpoint object of this node.
#[derive(Debug)]
struct Record {
    name: Arc<str>,
    key: String,
    /// The last value that could be read.
    written: Option<Box<Written>>,
    /// Why the stored value cannot be read, when it cannot.
    damage: Option<String>,
    checked: Checked,
}

/// Something that a person should read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An object cannot be obeyed, wholly or in part; the others are.
    Problem {
        /// The key in the datastore.
        key: String,
        /// Field, reason and how to mend it; never the value.
        reason: String,
    },
    /// The object's problem is gone.
    Solved {
        /// The key in the datastore.
        key: String,
    },
    /// A configuration value is not used.
    Config(Remark),
    /// ClusterInformation says that the datastore is locked; the dataplane stays as it is.
    Locked,
    /// The lock is gone.
    Unlocked,
}

/// What changed since the last poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The configuration, when it is another (and the first time).
    pub config: Option<Config>,
    /// Endpoints of this node whose answer is another; `None`: the object is gone.
    pub endpoints: Vec<(WepId, Option<Desired>)>,
    /// For the log.
    pub notices: Vec<Notice>,
}

impl Calc {
    /// Knows nothing yet but its name and the environment (`FELIX_…`, see [`config::from_environment`]).
    pub fn new(node: &str, environment: Raw) -> Self {
        let mut calc = Self {
            reader: Reader::new(node),
            sources: BTreeMap::from([(Source::Environment, environment)]),
            config: Config::default(),
            pools: Pools::default(),
            records: BTreeMap::new(),
            claims: Claims::default(),
            ready: true,
            said: BTreeMap::new(),
            remarked: BTreeSet::new(),
            dirty: BTreeSet::new(),
            notices: Vec::new(),
            told: BTreeMap::new(),
            adopted: BTreeMap::new(),
            config_told: false,
            recheck: false,
        };
        calc.reconfigure();
        calc
    }

    /// The links that carry an address already, as an earlier life left them in the kernel: a restart decides between
    /// equal claims as that life did. Call it before the first [`Calc::poll`].
    pub fn adopt(&mut self, holders: BTreeMap<IpAddr, String>) {
        self.adopted = holders;
    }

    /// The prefixes of the datastore that the calculation reads.
    pub fn prefixes() -> Vec<String> {
        crate::facts::prefixes()
    }

    /// A key is now `value`, or gone. Keys of other nodes' endpoints cost a look at the key.
    pub fn on_update(&mut self, key: &str, value: Option<&[u8]>) {
        match self.reader.read(key, value) {
            Fact::Foreign => {}
            Fact::Endpoint { id, name, written } => self.on_endpoint(key, id, name, written),
            Fact::Pool { name, cidr } => {
                if let Some(cidr) = self.good(key, cidr) {
                    self.recheck |= self.pools.set(&name, cidr);
                }
            }
            Fact::Parameters { source, raw } => {
                if let Some(raw) = self.good(key, raw) {
                    match raw {
                        Some(raw) => self.sources.insert(source, raw),
                        None => self.sources.remove(&source),
                    };
                    self.reconfigure();
                }
            }
            Fact::Ready(ready) => {
                if let Some(ready) = self.good(key, ready) {
                    if ready != self.ready {
                        self.notices.push(if ready { Notice::Unlocked } else { Notice::Locked });
                    }
                    self.ready = ready;
                }
            }
        }
    }

    /// Whether the datastore is open for business (`ClusterInformation.spec.datastoreReady` is not false).
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The configuration as it stands.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What changed since the last poll; empty while the datastore is locked.
    pub fn poll(&mut self) -> Changes {
        let notices = std::mem::take(&mut self.notices);
        if !self.ready {
            return Changes { notices, ..Changes::default() };
        }
        if std::mem::take(&mut self.recheck) {
            self.recheck_all();
        }
        let mut changes = Changes { notices, ..Changes::default() };
        for id in std::mem::take(&mut self.dirty) {
            let Some(record) = self.records.get(&id) else {
                if self.told.remove(&id).is_some() {
                    changes.endpoints.push((id, None));
                }
                continue;
            };
            let desired = self.answer(&id, record);
            let key = record.key.clone();
            let invisible = desired.workload.is_none() && desired.problem.is_none();
            self.say(&key, desired.problem.as_deref());
            if invisible {
                if self.told.remove(&id).is_some() {
                    changes.endpoints.push((id, None));
                }
            } else if self.told.get(&id) != Some(&desired) {
                self.told.insert(id.clone(), desired.clone());
                changes.endpoints.push((id, Some(desired)));
            }
        }
        changes.notices.append(&mut self.notices);
        if !self.config_told {
            self.config_told = true;
            changes.config = Some(self.config.clone());
        }
        changes
    }

    fn on_endpoint(
        &mut self,
        key: &str,
        id: WepId,
        name: Arc<str>,
        written: Option<Result<Box<Written>, String>>,
    ) {
        self.dirty.insert(id.clone());
        let Some(written) = written else {
            if let Some(old) = self.records.remove(&id) {
                self.withdraw(&id, old.checked.workload.as_ref());
            }
            self.say(key, None);
            return;
        };
        let record = self.records.entry(id.clone()).or_insert_with(|| Record {
            name,
            key: key.to_owned(),
            written: None,
            damage: None,
            checked: Checked::default(),
        });
        match written {
            Ok(written) => {
                record.damage = None;
                record.written = Some(written);
                self.check(&id);
            }
            // The last good value stays in force: a slip of the pen stops no traffic.
            Err(reason) => record.damage = Some(reason),
        }
    }

    /// Looks at the fields of one object again and moves its claims.
    fn check(&mut self, id: &WepId) {
        let Some(record) = self.records.get_mut(id) else { return };
        let Some(written) = &record.written else { return };
        let new = check(written, self.reader.node(), &self.config, &self.pools);
        if new == record.checked {
            return;
        }
        let old = std::mem::replace(&mut record.checked, new.clone());
        self.dirty.insert(id.clone());
        self.withdraw(id, old.workload.as_ref());
        // Who may not even have an address keeps nobody from a link.
        if let Some(workload) = new.workload.as_ref().filter(|w| !w.addresses.is_empty()) {
            self.claims.add(id, workload);
            self.concern(workload);
        }
    }

    fn withdraw(&mut self, id: &WepId, workload: Option<&Workload>) {
        if let Some(workload) = workload.filter(|w| !w.addresses.is_empty()) {
            self.claims.remove(id, workload);
            self.concern(workload);
        }
    }

    /// Every endpoint whose answer may depend on who claims the link and the addresses of `workload`.
    fn concern(&mut self, workload: &Workload) {
        let mut concerned: Vec<WepId> = Vec::new();
        for address in &workload.addresses {
            concerned.extend(self.claims.on_address(*address).cloned());
        }
        for rival in self.claims.on_iface(&workload.iface) {
            concerned.push(rival.clone());
            // Who owns the link decides whose claim to an address counts.
            let theirs = self.records.get(rival).and_then(|r| r.checked.workload.as_ref());
            for address in theirs.iter().flat_map(|w| &w.addresses) {
                concerned.extend(self.claims.on_address(*address).cloned());
            }
        }
        self.dirty.extend(concerned);
    }

    /// The answer for one object, other endpoints' claims considered.
    fn answer(&self, id: &WepId, record: &Record) -> Desired {
        let mut problems: Vec<String> = record.damage.iter().cloned().collect();
        problems.extend(record.checked.problems.iter().map(ToString::to_string));
        let mut workload = record.checked.workload.clone();
        if let Some(w) = &workload
            && let Some(owner) = self.claims.owner_of_iface(&w.iface)
            && owner != id
        {
            let owner = self.name_of(owner);
            problems.push(format!(
                "spec.interfaceName: {} belongs to endpoint {owner}; delete that one or give this one a link of its own",
                w.iface
            ));
            workload = None;
        }
        if let Some(w) = &mut workload {
            w.addresses.retain(|address| {
                let owner = self.owner_of_address(*address);
                let ours = owner.is_none_or(|owner| owner == id);
                if let (false, Some(owner)) = (ours, owner) {
                    problems.push(format!(
                        "spec.ipNetworks: {address} belongs to endpoint {}, which is older; delete that one or give this one another address",
                        self.name_of(owner)
                    ));
                }
                ours
            });
            // A pool that is deleted under its workloads takes nothing from them: the last good state stays.
            let kept =
                record.checked.outside.iter().filter(|address| self.has_already(id, &w.iface, **address));
            let kept: Vec<IpAddr> = kept.copied().collect();
            w.addresses.extend(kept);
            w.addresses.sort_unstable();
            w.addresses.dedup();
        }
        workload = workload.filter(|w| !w.addresses.is_empty());
        let problem = (!problems.is_empty()).then(|| problems.join("; also "));
        Desired { name: record.name.clone(), workload, problem }
    }

    /// Who has an address: an owner of its link before a shadowed endpoint, then the older object, of equally old
    /// ones who has it already, then the smaller identity.
    fn owner_of_address(&self, address: IpAddr) -> Option<&WepId> {
        self.claims.on_address(address).min_by_key(|id| {
            let record = self.records.get(id);
            let iface = record.and_then(|r| r.checked.workload.as_ref()).map_or("", |w| w.iface.as_str());
            let shadowed = self.claims.owner_of_iface(iface) != Some(id);
            let created = record.map_or("", |r| r.checked.created.as_str());
            // No date is younger than any date.
            (shadowed, created.is_empty(), created, !self.has_already(id, iface, address), *id)
        })
    }

    fn has_already(&self, id: &WepId, iface: &str, address: IpAddr) -> bool {
        match self.told.get(id).and_then(|told| told.workload.as_ref()) {
            Some(workload) => workload.addresses.contains(&address),
            None => self.adopted.get(&address).is_some_and(|holder| holder == iface),
        }
    }

    fn name_of(&self, id: &WepId) -> String {
        self.records.get(id).map_or_else(|| id.to_string(), |record| record.name.to_string())
    }

    fn recheck_all(&mut self) {
        let ids: Vec<WepId> = self.records.keys().cloned().collect();
        for id in ids {
            self.check(&id);
        }
    }

    fn reconfigure(&mut self) {
        let (config, remarks) = config::resolve(&self.sources);
        let remarks: BTreeSet<Remark> = remarks.into_iter().collect();
        self.notices.extend(remarks.difference(&self.remarked).cloned().map(Notice::Config));
        self.remarked = remarks;
        if config != self.config {
            self.config = config;
            self.config_told = false;
            self.recheck = true;
        }
    }

    /// A readable fact, or none: then the last good one stays, and the log hears of it once.
    fn good<T>(&mut self, key: &str, fact: Result<T, String>) -> Option<T> {
        match fact {
            Ok(fact) => {
                self.say(key, None);
                Some(fact)
            }
            Err(reason) => {
                self.say(key, Some(&reason));
                None
            }
        }
    }

    /// Tells the log when what is wrong with `key` is news.
    fn say(&mut self, key: &str, reason: Option<&str>) {
        match reason {
            Some(reason) if self.said.get(key).map(String::as_str) != Some(reason) => {
                self.said.insert(key.to_owned(), reason.to_owned());
                self.notices.push(Notice::Problem { key: key.to_owned(), reason: reason.to_owned() });
            }
            None if self.said.remove(key).is_some() => {
                self.notices.push(Notice::Solved { key: key.to_owned() });
            }
            _ => {}
        }
    }
}
