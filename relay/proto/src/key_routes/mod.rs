//! Where packets for one key go: to a connection of this relay, else over a link to another relay of the region.
//!
//! The rules are upstream's. A local connection comes before any link. Of several relays that announce the key, the one
//! that announced it first is used until it withdraws the key or its link breaks, so that traffic does not flap between
//! relays. A key is gone when it has neither a local connection nor a forwarder.
//!
//! As with [`Presence`], a sender that knows the route keeps it and looks only at its flag. The flags change inside these
//! methods, which the owner of the map calls under its lock.

use std::sync::Arc;

use crate::presence::{Departure, Member, Presence};

/// A forwarder: the promise of another relay, at the far end of a link, to deliver packets for one key.
pub trait Forwards {
    /// The number of the link.
    fn link(&self) -> u64;
    /// Tells the forwarder whether packets for its key go over it.
    fn set_active(&self, active: bool);
}

/// The route that packets for a key take. `L` stands for a local connection, `V` for a forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<L, V> {
    /// To a connection of this relay.
    Local(L),
    /// Via a link to another relay.
    Via(V),
}

/// The routes to one key. A value without any route must be dropped.
#[derive(Debug)]
pub struct KeyRoutes<C, F>(RouteSet<C, F>);

/// A key that no other relay has costs no more because others have forwarders.
#[derive(Debug)]
enum RouteSet<C, F> {
    Local(Presence<C>),
    /// `None` when there is no route.
    Region(Option<Box<RegionRoutes<C, F>>>),
}

const _: () = assert!(size_of::<KeyRoutes<(), ()>>() == size_of::<Presence<()>>());

/// The routes to a key that another relay has.
#[derive(Debug)]
struct RegionRoutes<C, F> {
    local: Option<Presence<C>>,
    forwarders: Forwarders<F>,
}

/// The forwarders of one key, the one registered first in front. One alone, as almost always, has no list.
#[derive(Debug)]
enum Forwarders<F> {
    None,
    One(Arc<F>),
    Many(Vec<Arc<F>>),
}

/// What adding or removing a forwarder changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwarderChange {
    /// The key has its first forwarder, or has lost its only one.
    OnlyOne,
    /// The key has its second forwarder, or one left.
    Second,
    /// The key has more of them, or has more left.
    More,
    /// Nothing: the forwarder was there already, or was not there.
    Nothing,
}

impl<C: Member, F: Forwards> KeyRoutes<C, F> {
    /// The routes of a key with its first local connection.
    #[must_use]
    pub fn local(connection: Arc<C>) -> Self {
        Self(RouteSet::Local(Presence::new(connection)))
    }

    /// The routes of a key that another relay has announced.
    #[must_use]
    pub fn remote(forwarder: Arc<F>) -> Self {
        forwarder.set_active(true);
        Self::region(None, Forwarders::One(forwarder))
    }

    fn region(local: Option<Presence<C>>, forwarders: Forwarders<F>) -> Self {
        Self(RouteSet::Region(Some(Box::new(RegionRoutes { local, forwarders }))))
    }

    /// The route that packets for the key take; `None` when the key is gone.
    #[must_use]
    pub fn route(&self) -> Option<Route<&Arc<C>, &Arc<F>>> {
        match &self.0 {
            RouteSet::Local(presence) => Some(Route::Local(presence.active())),
            RouteSet::Region(region) => {
                let RegionRoutes { local, forwarders } = &**region.as_ref()?;
                local
                    .as_ref()
                    .map(|local| Route::Local(local.active()))
                    .or_else(|| forwarders.first().map(Route::Via))
            }
        }
    }

    /// The local connections.
    #[must_use]
    pub fn presence(&self) -> Option<&Presence<C>> {
        match &self.0 {
            RouteSet::Local(presence) => Some(presence),
            RouteSet::Region(region) => region.as_ref()?.local.as_ref(),
        }
    }

    /// The local connections, to note what one of them sent.
    pub fn presence_mut(&mut self) -> Option<&mut Presence<C>> {
        match &mut self.0 {
            RouteSet::Local(presence) => Some(presence),
            RouteSet::Region(region) => region.as_mut()?.local.as_mut(),
        }
    }

    /// The number of local connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.presence().map_or(0, Presence::count)
    }

    /// Whether the key has no route.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self.0, RouteSet::Region(None))
    }

    /// Adds a connection, which becomes the active one.
    pub fn join(&mut self, connection: Arc<C>) {
        if let Some(presence) = self.presence_mut() {
            return presence.join(connection);
        }
        let presence = Presence::new(connection);
        match &mut self.0 {
            RouteSet::Region(Some(region)) => {
                // At no moment is neither set: a sender that sees the old flag down is told the new route.
                region.local = Some(presence);
                region.forwarders.set_first_active(false);
            }
            gone => *gone = RouteSet::Local(presence),
        }
    }

    /// Removes the connection `id`. After [`Departure::KeyGone`] another relay may still have the key.
    pub fn leave(&mut self, id: u64) -> Departure {
        let Some(presence) = self.presence_mut() else { return Departure::Unknown };
        let departure = presence.leave(id);
        if departure == Departure::KeyGone {
            match &mut self.0 {
                RouteSet::Region(Some(region)) => {
                    region.local = None;
                    region.forwarders.set_first_active(true);
                }
                last => *last = RouteSet::Region(None),
            }
        }
        departure
    }

    /// Adds a forwarder, unless its link is there already.
    pub fn add_forwarder(&mut self, forwarder: Arc<F>) -> ForwarderChange {
        if let RouteSet::Region(Some(region)) = &mut self.0 {
            return region.forwarders.add(forwarder, region.local.is_none());
        }
        *self = match std::mem::replace(&mut self.0, RouteSet::Region(None)) {
            RouteSet::Local(presence) => {
                forwarder.set_active(false);
                Self::region(Some(presence), Forwarders::One(forwarder))
            }
            RouteSet::Region(_) => Self::remote(forwarder),
        };
        ForwarderChange::OnlyOne
    }

    /// Removes the forwarder over this link.
    pub fn remove_forwarder(&mut self, link: u64) -> ForwarderChange {
        let RouteSet::Region(Some(region)) = &mut self.0 else { return ForwarderChange::Nothing };
        let change = region.forwarders.remove(link, region.local.is_none());
        if change == ForwarderChange::OnlyOne {
            self.0 = region.local.take().map_or(RouteSet::Region(None), RouteSet::Local);
        }
        change
    }
}

impl<F: Forwards> Forwarders<F> {
    fn all(&self) -> &[Arc<F>] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(all) => all,
        }
    }

    #[inline]
    fn first(&self) -> Option<&Arc<F>> {
        self.all().first()
    }

    /// Adds a forwarder, unless its link is there already. `in_use`: packets go via the first forwarder.
    fn add(&mut self, forwarder: Arc<F>, in_use: bool) -> ForwarderChange {
        if self.position(forwarder.link()).is_some() {
            return ForwarderChange::Nothing;
        }
        forwarder.set_active(in_use && self.all().is_empty());
        let (forwarders, change) = match std::mem::replace(self, Self::None) {
            Self::None => (Self::One(forwarder), ForwarderChange::OnlyOne),
            Self::One(first) => (Self::Many(vec![first, forwarder]), ForwarderChange::Second),
            Self::Many(mut all) => {
                all.push(forwarder);
                (Self::Many(all), ForwarderChange::More)
            }
        };
        *self = forwarders;
        change
    }

    /// Removes the forwarder over this link.
    fn remove(&mut self, link: u64, in_use: bool) -> ForwarderChange {
        let Some(at) = self.position(link) else { return ForwarderChange::Nothing };
        self.set_first_active(false);
        let change = match std::mem::replace(self, Self::None) {
            Self::None | Self::One(_) => ForwarderChange::OnlyOne,
            Self::Many(mut all) => {
                all.remove(at);
                if let [last] = &all[..] {
                    *self = Self::One(last.clone());
                    ForwarderChange::Second
                } else {
                    *self = Self::Many(all);
                    ForwarderChange::More
                }
            }
        };
        self.set_first_active(in_use);
        change
    }

    fn position(&self, link: u64) -> Option<usize> {
        self.all().iter().position(|forwarder| forwarder.link() == link)
    }

    fn set_first_active(&self, active: bool) {
        if let Some(first) = self.first() {
            first.set_active(active);
        }
    }
}

#[cfg(test)]
mod tests;
