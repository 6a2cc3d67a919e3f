//! One update group: what its members were sent, the log of encoded changes, and where each member is.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use bird_packet::{AfiSafi, RefreshKind, RouteRefresh, UpdatePacker, encode_end_of_rib};
use bytes::Bytes;

use super::verdict::{GroupKey, Rules, SourcePeer, View};
use crate::io::Time;
use crate::rib::attrs::{AttrId, Store};
use crate::rib::decide::{Decision, PeerRank};
use crate::rib::local::LocalRoutes;
use crate::rib::net::Net;
use crate::rib::table::{DestId, Path, PeerIndex, Table, dest_flag};

/// What the members of a group hold for one slot: a destination, or with ADD-PATH a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Out {
    /// Attributes before rewriting; [`AttrId::NONE`]: nothing. Holds a reference.
    pub(crate) attr: AttrId,
    /// Flush that changed it last.
    pub(crate) seq: u32,
    /// Whom it came from; that member alone does not hold it.
    pub(crate) from: PeerIndex,
    /// An export filter put our AS into the path already.
    pub(crate) own_as_done: bool,
}

pub(super) const NOTHING: Out = Out { attr: AttrId::NONE, seq: 0, from: 0, own_as_done: false };

/// Who reads a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Audience {
    All,
    Except(PeerIndex),
    Only(PeerIndex),
}

impl Audience {
    fn includes(self, peer: PeerIndex) -> bool {
        match self {
            Audience::All => true,
            Audience::Except(p) => p != peer,
            Audience::Only(p) => p == peer,
        }
    }
}

pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) audience: Audience,
    pub(super) seq: u32,
    /// Members that have not passed it.
    pub(super) readers: usize,
}

/// One session of the group.
pub(super) struct Member {
    pub(super) peer: PeerIndex,
    /// Position in the log.
    at: u64,
    /// Flushes up to this one are behind it.
    seq: u32,
    /// A walk over `out` comes before the log.
    sync: Option<Sync>,
    /// Encoded for this member alone.
    private: VecDeque<Bytes>,
    /// What it holds from another group: withdrawn once everything is out, as far as this group does not hold it.
    unlearn: Vec<u32>,
    /// End-of-RIB is due once everything else is out.
    eor_due: bool,
    last_read: Time,
}

/// A member's walk over what the group holds.
#[derive(Debug, Clone, Copy)]
struct Sync {
    next: usize,
    /// Tell everything there is; otherwise only what changed.
    all: bool,
    /// Tell what changed after this flush, withdrawals included.
    since: Option<u32>,
    /// Flushes up to this one were behind the member when the walk began.
    started: u32,
    /// The log went on without the member meanwhile: walk again for what changed since the start.
    cut: bool,
    /// Say EoRR at the end (RFC 7313).
    refresh: bool,
}

impl Member {
    /// A flush after which it may not have been told what changed.
    fn behind(&self) -> u32 {
        self.sync.map_or(self.seq, |s| s.since.map_or(s.started, |since| since.min(s.started)))
    }
}

/// What a member takes along to another group.
#[derive(Default)]
pub(crate) struct Belongings {
    /// What it may hold.
    slots: Vec<u32>,
    private: VecDeque<Bytes>,
    eor_due: bool,
    /// It was told the beginning of a refresh.
    refresh: bool,
}

impl Sync {
    fn everything(started: u32) -> Sync {
        Sync { next: 0, all: true, since: None, started, cut: false, refresh: false }
    }

    fn changes(since: u32, started: u32) -> Sync {
        Sync { next: 0, all: false, since: Some(since), started, cut: false, refresh: false }
    }
}

/// Everything that encoding needs besides the group and the table.
pub(crate) struct ExportCtx<'a, N: Net> {
    pub(crate) store: &'a mut Store,
    pub(crate) locals: &'a LocalRoutes,
    pub(crate) peers: &'a [SourcePeer],
    pub(crate) rules: &'a Rules<N>,
    pub(crate) ranks: &'a [PeerRank],
    pub(crate) restarting: bool,
    /// No End-of-RIB yet.
    pub(crate) hold_eor: bool,
    pub(crate) packer: &'a mut UpdatePacker,
}

impl<N: Net> ExportCtx<'_, N> {
    pub(crate) fn decision(&self) -> Decision<'_> {
        Decision { attrs: &self.store.attrs, next_hops: &self.store.next_hops, peers: self.ranks }
    }

    pub(crate) fn view(&self) -> View<'_, N> {
        View {
            store: self.store,
            locals: self.locals,
            peers: self.peers,
            rules: self.rules,
            restarting: self.restarting,
        }
    }
}

/// Who reads nothing for this long is not waited for.
const STALLED: Duration = Duration::from_millis(200);
/// Slots looked at in one step of a walk.
const WALK: usize = 1 << 16;
/// Looking at so many slots in a walk costs as much as deciding one.
pub(super) const WALK_SHARE: usize = 64;
/// Routes encoded in one step of a walk.
const WALK_ROUTES: usize = 1 << 12;

/// How much is done for a member before others have their turn.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowance {
    left: usize,
    /// Slots decided in one step. One begun is not cut short: what is sent would be packed worse.
    step: usize,
}

impl Allowance {
    pub(crate) fn new(slots: usize) -> Allowance {
        Allowance { left: slots, step: slots }
    }

    fn is_used(self) -> bool {
        self.left == 0
    }

    fn use_up(&mut self, slots: usize) {
        self.left = self.left.saturating_sub(slots);
    }
}

/// What there is for a member.
pub(crate) enum Next {
    Bytes(Bytes),
    /// It has everything, or must wait for slower ones.
    Nothing,
    /// There may be more when it is asked again: enough was done for now.
    Later,
}

/// Peers that are sent the same bytes.
pub(crate) struct Group<N: Net> {
    pub(crate) key: GroupKey,
    pub(super) add_path: bool,
    pub(super) out: Vec<Out>,
    pub(super) dirty: Vec<u32>,
    /// How far `dirty` is worked off.
    pub(super) dirty_at: usize,
    pub(super) dirty_bits: Vec<u64>,
    /// Destinations that may have changed too, beyond those in `dirty`.
    pub(super) unmarked: Range<usize>,
    members: Vec<Option<Member>>,
    /// Bit per peer number.
    pub(super) member_bits: Vec<u64>,
    pub(super) member_count: usize,
    pub(super) log: VecDeque<Chunk>,
    log_start: u64,
    pub(super) log_bytes: usize,
    /// A log beyond this waits for its slowest reader, if that reads at all.
    log_limit: usize,
    pub(super) seq: u32,
    /// Members are to be told that there is something.
    pub(crate) wake: bool,
    /// Somebody found the log full; look again then.
    pub(crate) waiting_until: Option<Time>,
    family: std::marker::PhantomData<N>,
}

/// How many routes the members of a group hold: all that there are, but not those that came from the member itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToldCounts {
    all: usize,
    from: Vec<usize>,
}

impl ToldCounts {
    /// Counts these slots too.
    pub(crate) fn add<N: Net>(&mut self, group: &Group<N>, slots: std::ops::Range<usize>) {
        for out in group.out.get(slots).unwrap_or_default().iter().filter(|o| o.attr != AttrId::NONE) {
            self.all += 1;
            let from = usize::from(out.from);
            if from >= self.from.len() {
                self.from.resize(from + 1, 0);
            }
            self.from[from] += 1;
        }
    }

    /// What one member holds.
    pub(crate) fn of(&self, peer: PeerIndex) -> usize {
        self.all - self.from.get(usize::from(peer)).copied().unwrap_or_default()
    }
}

impl<N: Net> Group<N> {
    /// A group without members to which everything is news.
    pub(crate) fn new(key: GroupKey, table: &Table<N>, log_limit: usize) -> Self {
        let add_path = key.add_path(N::FAMILY);
        let mut group = Group {
            key,
            add_path,
            out: Vec::new(),
            dirty: Vec::new(),
            dirty_at: 0,
            dirty_bits: Vec::new(),
            unmarked: 0..0,
            members: Vec::new(),
            member_bits: Vec::new(),
            member_count: 0,
            log: VecDeque::new(),
            log_start: 0,
            log_bytes: 0,
            log_limit,
            seq: 1,
            wake: false,
            waiting_until: None,
            family: std::marker::PhantomData,
        };
        group.mark_all(table);
        group
    }

    /// Whether its slots are paths rather than destinations.
    pub(crate) fn by_path(&self) -> bool {
        self.add_path
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A slot may have changed.
    #[inline]
    pub(crate) fn mark(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if word >= self.dirty_bits.len() {
            self.dirty_bits.resize((word + 1).next_power_of_two(), 0);
        }
        if self.dirty_bits[word] & bit == 0 {
            self.dirty_bits[word] |= bit;
            if self.dirty_at == self.dirty.len() {
                self.wake = true;
            }
            self.dirty.push(slot);
        }
    }

    /// Everything may have changed. What was sent and has no path any more is marked by whoever took the path out.
    pub(crate) fn mark_all(&mut self, table: &Table<N>) {
        self.unmarked = 0..table.dest_bound();
        self.wake |= !self.unmarked.is_empty();
    }

    /// Marks what [`Group::mark_all`] left to be marked until there are `most` marks; returns how many destinations were
    /// looked at.
    pub(super) fn mark_more(&mut self, table: &Table<N>, most: usize) -> usize {
        let bound = table.dest_bound();
        let mut looked = 0;
        while looked < WALK && self.dirty.len() - self.dirty_at < most {
            // It may have shrunk.
            let Some(id) = self.unmarked.next().filter(|id| *id < bound) else {
                self.unmarked = 0..0;
                break;
            };
            looked += 1;
            let id = crate::rib::index32(id);
            if self.add_path {
                for path in table.paths(id) {
                    self.mark(path.slot);
                }
            } else if !table.paths(id).is_empty() {
                self.mark(id);
            }
        }
        looked
    }

    /// A path of a destination changed, and it lies in this slot: with a limit others may be told, or not told, for it.
    pub(crate) fn mark_path(&mut self, table: &Table<N>, id: DestId, slot: u32) {
        self.mark(slot);
        if self.key.path_limit.is_some() {
            for path in table.paths(id) {
                self.mark(path.slot);
            }
        }
    }

    /// The paths of a destination that are told, where their number is limited.
    pub(crate) fn chosen(
        &self,
        id: DestId,
        table: &Table<N>,
        decision: Decision<'_>,
        view: View<'_, N>,
    ) -> Option<Vec<Path>> {
        let limit = usize::from(self.key.path_limit?);
        let has_med = table.flag(id, dest_flag::HAS_MED);
        let net = table.net(id);
        let told = |path: &Path| view.verdict(&self.key, net, path).is_ok();
        Some(decision.best_of(table.paths(id), limit, has_med, told))
    }

    pub(super) fn is_marked(&self, slot: u32) -> bool {
        self.dirty_bits.get(slot as usize / 64).is_some_and(|w| w & (1 << (slot % 64)) != 0)
    }

    pub(crate) fn has_work(&self) -> bool {
        self.dirty_at < self.dirty.len() || !self.unmarked.is_empty()
    }

    #[inline]
    pub(super) fn is_member(&self, peer: PeerIndex) -> bool {
        self.member_bits.get(usize::from(peer) / 64).is_some_and(|w| w & (1 << (peer % 64)) != 0)
    }

    /// Takes a session in; it gets the whole table, then End-of-RIB if `eor`. Returns its number in the group.
    pub(crate) fn join(&mut self, peer: PeerIndex, eor: bool, now: Time) -> usize {
        let member = Member {
            peer,
            at: self.log_end(),
            seq: self.seq,
            sync: Some(Sync::everything(self.seq)),
            private: VecDeque::new(),
            unlearn: Vec::new(),
            eor_due: eor,
            last_read: now,
        };
        let word = usize::from(peer) / 64;
        if word >= self.member_bits.len() {
            self.member_bits.resize(word + 1, 0);
        }
        self.member_bits[word] |= 1 << (peer % 64);
        self.member_count += 1;
        if let Some(at) = self.members.iter().position(Option::is_none) {
            self.members[at] = Some(member);
            at
        } else {
            self.members.push(Some(member));
            self.members.len() - 1
        }
    }

    /// Takes a session out.
    pub(crate) fn leave(&mut self, member: usize) {
        let Some(gone) = self.members[member].take() else { return };
        self.member_count -= 1;
        self.member_bits[usize::from(gone.peer) / 64] &= !(1 << (gone.peer % 64));
        self.unread(gone.at);
    }

    /// What the group held, to be given back; it is not used afterwards.
    pub(crate) fn dissolve(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    /// Sends everything to a member again; with `enhanced`, framed by BoRR and EoRR. What it has not read yet stays due.
    pub(crate) fn refresh(&mut self, member: usize, enhanced: bool) {
        let Some(m) = self.members[member].as_mut() else { return };
        let (since, cut) = m.sync.map_or((None, false), |s| (s.since, s.cut));
        m.sync = Some(Sync { since, cut, refresh: enhanced, ..Sync::everything(m.seq) });
        if enhanced {
            m.private.push_back(refresh_message::<N>(RefreshKind::Begin));
        }
        self.wake = true;
    }

    /// Changes what the group is, for all its members: they are told what differs.
    pub(crate) fn rekey(&mut self, key: GroupKey, table: &Table<N>) {
        let chain_and_scope = GroupKey {
            chain: key.chain.clone(),
            scope: key.scope,
            path_limit: key.path_limit,
            ..self.key.clone()
        };
        let same_bytes = chain_and_scope == key;
        self.key = key;
        self.mark_all(table);
        self.wake = true;
        if same_bytes {
            return;
        }
        // What waits in the log reads as before: nobody reads it any more, and what it says is told again.
        let (end, seq) = (self.log_end(), self.seq);
        let mut left = Vec::new();
        for m in self.members.iter_mut().flatten() {
            let (since, refresh) = (Some(m.behind()), m.sync.is_some_and(|s| s.refresh));
            m.sync = Some(Sync { since, refresh, ..Sync::everything(seq) });
            left.push(std::mem::replace(&mut m.at, end));
        }
        for at in left {
            self.unread(at);
        }
    }

    /// The slots that a member holds.
    pub(crate) fn held_by(&self, peer: PeerIndex) -> Vec<u32> {
        self.out
            .iter()
            .enumerate()
            .filter(|(_, o)| o.attr != AttrId::NONE && o.from != peer)
            .map(|(slot, _)| crate::rib::index32(slot))
            .collect()
    }

    /// Takes what a member may hold, and what it has not read of its own, before it goes to another group.
    pub(crate) fn pack(&mut self, member: usize) -> Belongings {
        let Some(m) = self.members[member].as_mut() else { return Belongings::default() };
        let (peer, behind) = (m.peer, m.behind());
        let mut slots = std::mem::take(&mut m.unlearn);
        let may_hold = |o: &Out| (o.attr != AttrId::NONE && o.from != peer) || o.seq > behind;
        let held = self.out.iter().enumerate().filter(|(_, o)| may_hold(o));
        slots.extend(held.map(|(slot, _)| crate::rib::index32(slot)));
        slots.sort_unstable();
        slots.dedup();
        Belongings {
            slots,
            private: std::mem::take(&mut m.private),
            eor_due: m.eor_due,
            refresh: m.sync.is_some_and(|s| s.refresh),
        }
    }

    /// A member comes from another group.
    pub(crate) fn unpack(&mut self, member: usize, belongings: Belongings) {
        let Some(m) = self.members[member].as_mut() else { return };
        m.unlearn = belongings.slots;
        m.private = belongings.private;
        m.eor_due = belongings.eor_due;
        if let Some(sync) = &mut m.sync {
            sync.refresh = belongings.refresh;
        }
        self.wake = true;
    }

    /// Sessions in the group.
    pub(crate) fn len(&self) -> usize {
        self.member_count
    }

    /// Peers of the group, in no order.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerIndex> + '_ {
        self.members.iter().flatten().map(|m| m.peer)
    }

    /// What the group as a whole holds.
    pub(crate) fn held(&self, slot: u32) -> Option<&Out> {
        self.out.get(slot as usize).filter(|o| o.attr != AttrId::NONE)
    }

    /// How many routes the members hold, in one look at all slots.
    pub(crate) fn told_counts(&self) -> ToldCounts {
        let mut counts = ToldCounts::default();
        counts.add(self, 0..self.out.len());
        counts
    }

    /// Upper bound of the slots held.
    pub(crate) fn held_bound(&self) -> usize {
        self.out.len()
    }

    /// The oldest flush that some member may still have to catch up with.
    pub(crate) fn oldest(&self) -> u32 {
        self.members.iter().flatten().map(|m| m.seq).min().unwrap_or(self.seq)
    }

    /// Whether nobody refers to this slot any more; `oldest` is [`Group::oldest`].
    pub(crate) fn forgot(&self, slot: u32, oldest: u32) -> bool {
        !self.is_marked(slot)
            && self.members.iter().flatten().all(|m| m.unlearn.is_empty())
            && self.out.get(slot as usize).is_none_or(|o| o.attr == AttrId::NONE && o.seq <= oldest)
    }

    /// Whether nobody refers to any slot any more; `oldest` is [`Group::oldest`].
    pub(crate) fn forgot_all(&self, oldest: u32) -> bool {
        !self.has_work()
            && self.members.iter().flatten().all(|m| m.unlearn.is_empty())
            && self.out.iter().all(|o| o.attr == AttrId::NONE && o.seq <= oldest)
    }

    /// All slots are free; none is marked and none held.
    pub(crate) fn forget_all(&mut self) {
        self.out = Vec::new();
        self.dirty_bits = Vec::new();
    }

    pub(super) fn log_end(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// Nobody at position `at` any more: the chunks from there on lose a reader.
    fn unread(&mut self, at: u64) {
        let from = usize::try_from(at.saturating_sub(self.log_start)).unwrap_or(usize::MAX);
        for chunk in self.log.iter_mut().skip(from) {
            chunk.readers -= 1;
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.log.front().is_some_and(|c| c.readers == 0) {
            if let Some(chunk) = self.log.pop_front() {
                self.log_bytes -= chunk.bytes.len();
                self.log_start += 1;
            }
        }
        if self.waiting_until.is_some() && self.log_bytes < self.log_limit / 2 {
            self.waiting_until = None;
            self.wake = true;
        }
    }

    /// The next bytes for a member, as long as the allowance lasts.
    pub(crate) fn next(
        &mut self,
        member: usize,
        now: Time,
        table: &Table<N>,
        ctx: &mut ExportCtx<'_, N>,
        allowance: &mut Allowance,
    ) -> Next {
        loop {
            let (end, seq, work) = (self.log_end(), self.seq, self.has_work());
            let Some(m) = self.members.get_mut(member).and_then(Option::as_mut) else { return Next::Nothing };
            m.last_read = now;
            if let Some(bytes) = m.private.pop_front() {
                return Next::Bytes(bytes);
            }
            if m.sync.is_some() {
                if allowance.is_used() {
                    return Next::Later;
                }
                allowance.use_up(self.walk(member, table, ctx));
                continue;
            }
            if m.at < end {
                // The log is never cut before a member that is not walking.
                let index = usize::try_from(m.at - self.log_start).expect("invariant: the log fits memory");
                let next = self.log.get(index + 1).map(|c| c.seq);
                let chunk = &mut self.log[index];
                m.at += 1;
                // A flush is behind the member when its last chunk is.
                m.seq = if next == Some(chunk.seq) { chunk.seq - 1 } else { chunk.seq };
                if m.at == end {
                    m.seq = seq;
                }
                chunk.readers -= 1;
                let bytes = chunk.audience.includes(m.peer).then(|| chunk.bytes.clone());
                if chunk.readers == 0 {
                    self.trim();
                }
                match bytes {
                    Some(bytes) => return Next::Bytes(bytes),
                    None => continue,
                }
            }
            m.seq = seq;
            if work {
                if self.log_bytes >= self.log_limit && !self.cut_stalled(now) {
                    self.waiting_until = Some(now + STALLED);
                    return Next::Nothing;
                }
                if allowance.is_used() {
                    return Next::Later;
                }
                allowance.use_up(self.flush(table, ctx, allowance.step));
                continue;
            }
            if !m.unlearn.is_empty() {
                if allowance.is_used() {
                    return Next::Later;
                }
                let some = m.unlearn.len().min(WALK_ROUTES).min(allowance.step);
                allowance.use_up(some);
                let slots = m.unlearn.split_off(m.unlearn.len() - some);
                let peer = m.peer;
                self.withdraw_unheld(member, peer, &slots, table, ctx);
                continue;
            }
            if m.eor_due && !ctx.hold_eor {
                m.eor_due = false;
                let mut bytes = Vec::new();
                encode_end_of_rib(N::FAMILY, &mut bytes);
                return Next::Bytes(bytes.into());
            }
            return Next::Nothing;
        }
    }

    fn withdraw_unheld(
        &mut self,
        member: usize,
        peer: PeerIndex,
        slots: &[u32],
        table: &Table<N>,
        ctx: &mut ExportCtx<'_, N>,
    ) {
        let unheld = |slot: &&u32| self.held(**slot).is_none_or(|o| o.from == peer);
        let mut items: Vec<_> = slots
            .iter()
            .filter(unheld)
            .map(|slot| super::flush::Item::withdraw(Audience::Only(peer), *slot))
            .collect();
        let bytes = self.encode(&mut items, table, ctx);
        if let Some(m) = self.members[member].as_mut() {
            m.private.extend(bytes.into_iter().map(|(_, bytes)| bytes));
        }
    }

    /// The log is full: members that read nothing lose their place in it. False if somebody still reads.
    fn cut_stalled(&mut self, now: Time) -> bool {
        let end = self.log_end();
        let behind = |m: &Member| m.at < end && m.sync.is_none();
        if self.members.iter().flatten().any(|m| behind(m) && now.saturating_sub(m.last_read) < STALLED) {
            return false;
        }
        let mut left = Vec::new();
        for m in self.members.iter_mut().flatten().filter(|m| m.at < end) {
            match &mut m.sync {
                Some(sync) => sync.cut = true,
                None => {
                    m.sync = Some(Sync::changes(m.seq, self.seq));
                }
            }
            left.push(m.at);
            m.at = end;
        }
        for at in left {
            self.unread(at);
        }
        true
    }

    /// One step of a member's walk over what the group holds; returns as how many slots it counts.
    fn walk(&mut self, member: usize, table: &Table<N>, ctx: &mut ExportCtx<'_, N>) -> usize {
        let Some(m) = self.members[member].as_ref() else { return 0 };
        let Some(mut sync) = m.sync else { return 0 };
        let peer = m.peer;
        let mut items = Vec::new();
        let stop = self.out.len().min(sync.next + WALK);
        while sync.next < stop && items.len() < WALK_ROUTES {
            let slot = sync.next;
            sync.next += 1;
            let out = self.out[slot];
            let slot = u32::try_from(slot).expect("invariant: slots are numbered by u32");
            let wanted = out.attr != AttrId::NONE && out.from != peer;
            let changed = sync.since.is_some_and(|since| out.seq > since);
            if wanted && (sync.all || changed) {
                items.push(super::flush::Item::announce(Audience::Only(peer), out, slot));
            } else if changed {
                items.push(super::flush::Item::withdraw(Audience::Only(peer), slot));
            }
        }
        let cost = 1 + items.len() + WALK / WALK_SHARE;
        let bytes = self.encode(&mut items, table, ctx);
        let (done, seq) = (sync.next >= self.out.len(), self.seq);
        let Some(m) = self.members[member].as_mut() else { return cost };
        m.private.extend(bytes.into_iter().map(|(_, bytes)| bytes));
        if !done {
            m.sync = Some(sync);
            return cost;
        }
        m.seq = sync.started;
        if sync.refresh {
            m.private.push_back(refresh_message::<N>(RefreshKind::End));
        }
        m.sync = sync.cut.then(|| Sync::changes(sync.started, seq));
        cost
    }

    /// Puts an encoded chunk into the log, for everybody.
    pub(super) fn append(&mut self, audience: Audience, bytes: Bytes) {
        self.log_bytes += bytes.len();
        self.log.push_back(Chunk { bytes, audience, seq: self.seq, readers: self.member_count });
    }

    /// The number of the next flush.
    pub(super) fn next_seq(&mut self) {
        if self.seq == u32::MAX {
            let oldest = self.oldest().saturating_sub(1);
            let back = |seq: &mut u32| *seq = seq.saturating_sub(oldest);
            self.out.iter_mut().for_each(|o| back(&mut o.seq));
            self.log.iter_mut().for_each(|c| back(&mut c.seq));
            for m in self.members.iter_mut().flatten() {
                back(&mut m.seq);
                if let Some(sync) = &mut m.sync {
                    back(&mut sync.started);
                    if let Some(since) = &mut sync.since {
                        back(since);
                    }
                }
            }
            back(&mut self.seq);
        }
        self.seq = self.seq.saturating_add(1);
    }
}

fn refresh_message<N: Net>(kind: RefreshKind) -> Bytes {
    let mut bytes = Vec::new();
    RouteRefresh { family: AfiSafi::from(N::FAMILY), kind }.encode(&mut bytes);
    bytes.into()
}
