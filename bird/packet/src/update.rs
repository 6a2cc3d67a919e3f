//! UPDATE as a view over the received bytes, judged once (RFC 4271 §4.3, RFC 4760, RFC 7606).

use smallvec::SmallVec;

use crate::Notification;
use crate::attr::{self, AttrView, Discarded, MpReach, MpUnreach, NextHop, Reason, Scan};
use crate::context::SessionContext;
use crate::cursor::{Cursor, Short};
use crate::nlri::{self, Routes};
use crate::notification::update_error;
use crate::prefix::{AfiSafi, Family};

/// What becomes of the routes of an UPDATE that does not reset the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are announced.
    Ok,
    /// They are withdrawn, because an attribute cannot be trusted.
    TreatAsWithdraw(Reason),
}

/// Routes that are no longer reachable through the peer.
#[derive(Clone, Debug)]
pub struct Withdrawal<'a> {
    /// Their family.
    pub family: Family,
    /// The routes.
    pub routes: Routes<'a>,
}

/// Routes that are reachable through the peer, all with the attributes of the message.
#[derive(Clone, Debug)]
pub struct Announcement<'a> {
    /// Their family.
    pub family: Family,
    /// Where packets for them go.
    pub next_hop: NextHop,
    /// The routes.
    pub routes: Routes<'a>,
}

/// An UPDATE over the received bytes.
///
/// Handle [`withdrawals`](Self::withdrawals) first, then [`announcements`](Self::announcements):
/// a prefix that is in both stays announced (RFC 4271 §4.3). With a verdict of treat-as-withdraw the announced
/// routes are among the withdrawals and there are no announcements, so the two calls are all a receiver needs.
#[derive(Clone, Debug)]
pub struct UpdateView<'a> {
    attrs: AttrView<'a>,
    withdrawn: &'a [u8],
    nlri: &'a [u8],
    v4_add_path: bool,
    v6_add_path: bool,
    reach: Option<MpReach<'a>>,
    unreach: Option<MpUnreach<'a>>,
    end_of_rib: Option<Family>,
    foreign: Option<AfiSafi>,
    verdict: Verdict,
    discards: SmallVec<[Discarded; 4]>,
}

impl<'a> UpdateView<'a> {
    /// Reads the body of an UPDATE; an error is a NOTIFICATION that must end the session.
    pub fn parse(body: &'a [u8], ctx: &SessionContext) -> Result<Self, Notification> {
        let Fields { withdrawn, area, nlri } = split(body).map_err(|_| update_error(1, &[]))?;
        let v4 = ctx.family(Family::Ipv4Unicast);
        let v6 = ctx.family(Family::Ipv6Unicast);
        let v4_used = v4.enabled && !nlri.is_empty();
        let scan = attr::scan(area, ctx, !nlri.is_empty(), v4_used)?;
        let Scan { attrs, reach, unreach, unreach_alone, foreign, withdraw, discards } = scan;

        let add_path = |family| match family {
            Family::Ipv4Unicast => v4.add_path_rx,
            Family::Ipv6Unicast => v6.add_path_rx,
        };
        let (withdrawn, nlri, foreign) = if v4.enabled {
            for field in [withdrawn, nlri] {
                nlri::check(Family::Ipv4Unicast, field, v4.add_path_rx).map_err(|_| update_error(10, &[]))?;
            }
            (withdrawn, nlri, foreign)
        } else if withdrawn.is_empty() && nlri.is_empty() {
            (withdrawn, nlri, foreign)
        } else {
            (&[][..], &[][..], foreign.or(Some(Family::Ipv4Unicast.into())))
        };
        if let Some(mp) = &reach {
            nlri::check(mp.family, mp.nlri, add_path(mp.family))
                .map_err(|_| attr::bad_prefixes(area, attr::code::MP_REACH_NLRI))?;
        }
        if let Some(mp) = &unreach {
            nlri::check(mp.family, mp.nlri, add_path(mp.family))
                .map_err(|_| attr::bad_prefixes(area, attr::code::MP_UNREACH_NLRI))?;
        }
        let end_of_rib = match unreach {
            // RFC 4724 §2: an UPDATE with nothing in it, or with nothing but an empty MP_UNREACH_NLRI.
            _ if body == [0; 4] => v4.enabled.then_some(Family::Ipv4Unicast),
            Some(mp) if unreach_alone && mp.nlri.is_empty() && withdrawn.is_empty() && nlri.is_empty() => {
                Some(mp.family)
            }
            _ => None,
        };
        Ok(Self {
            attrs,
            withdrawn,
            nlri,
            v4_add_path: v4.add_path_rx,
            v6_add_path: v6.add_path_rx,
            reach,
            unreach,
            end_of_rib,
            foreign,
            verdict: withdraw.map_or(Verdict::Ok, Verdict::TreatAsWithdraw),
            discards,
        })
    }

    /// Whether announced routes stand.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Attributes that were dropped, for the log.
    pub fn discards(&self) -> impl Iterator<Item = Discarded> + '_ {
        self.discards.iter().copied()
    }

    /// A family whose routes were left alone because it is not in use on the session, for the log.
    pub fn ignored_family(&self) -> Option<AfiSafi> {
        self.foreign
    }

    /// The family whose initial routes are complete, when this is an End-of-RIB marker (RFC 4724 §2).
    pub fn end_of_rib(&self) -> Option<Family> {
        self.end_of_rib
    }

    /// The path attributes; only routes announced with [`Verdict::Ok`] may use them.
    pub fn attributes(&self) -> &AttrView<'a> {
        &self.attrs
    }

    /// Routes to withdraw: at most two fields, four when announced routes are treated as withdrawn.
    pub fn withdrawals(&self) -> impl Iterator<Item = Withdrawal<'a>> + '_ {
        let as_withdrawn = matches!(self.verdict, Verdict::TreatAsWithdraw(_));
        let field =
            |family, bytes: &'a [u8]| self.routes(family, bytes).map(|routes| Withdrawal { family, routes });
        [
            field(Family::Ipv4Unicast, self.withdrawn),
            self.unreach.as_ref().and_then(|mp| field(mp.family, mp.nlri)),
            field(Family::Ipv4Unicast, self.nlri).filter(|_| as_withdrawn),
            self.reach.as_ref().and_then(|mp| field(mp.family, mp.nlri)).filter(|_| as_withdrawn),
        ]
        .into_iter()
        .flatten()
    }

    /// Routes to announce: at most two fields, none when they are treated as withdrawn.
    pub fn announcements(&self) -> impl Iterator<Item = Announcement<'a>> + '_ {
        let ok = self.verdict == Verdict::Ok;
        let field = |family, next_hop, bytes: &'a [u8]| {
            self.routes(family, bytes).map(|routes| Announcement { family, next_hop, routes })
        };
        let plain = self.attrs.next_hop.and_then(|nh| field(Family::Ipv4Unicast, nh.into(), self.nlri));
        let mp = self.reach.as_ref().and_then(|mp| field(mp.family, mp.next_hop, mp.nlri));
        [plain.filter(|_| ok), mp.filter(|_| ok)].into_iter().flatten()
    }

    fn routes(&self, family: Family, bytes: &'a [u8]) -> Option<Routes<'a>> {
        let add_path = match family {
            Family::Ipv4Unicast => self.v4_add_path,
            Family::Ipv6Unicast => self.v6_add_path,
        };
        (!bytes.is_empty()).then(|| Routes::new(family, bytes, add_path))
    }
}

/// The three fields of the body.
struct Fields<'a> {
    withdrawn: &'a [u8],
    area: &'a [u8],
    nlri: &'a [u8],
}

#[inline]
fn split(body: &[u8]) -> Result<Fields<'_>, Short> {
    let mut c = Cursor::new(body);
    let len = c.u16()?;
    let withdrawn = c.take(usize::from(len))?;
    let len = c.u16()?;
    let area = c.take(usize::from(len))?;
    Ok(Fields { withdrawn, area, nlri: c.rest() })
}
