//! Where packets for one key go: to a connection of it here, else by another relay of the region.
//!
//! Upstream's rules. A connection here comes before any relay. Of several relays that say that they have the key, the
//! one that said so first is used until it says otherwise or its link breaks, so that traffic does not flap between them.
//! A key is gone when it has neither.
//!
//! As with [`Presence`], a sender that knows the way keeps it and looks only at its flag, and the flags change inside
//! these methods, which the owner of the map calls under its lock.

use std::sync::Arc;

use crate::presence::{Connection, Departure, Presence};

/// A way to a key by another relay, as the key's whereabouts see it.
pub trait Forwarder {
    /// The number of the link that the way leads over.
    fn link(&self) -> u64;
    /// Tells the forwarder whether packets for its key go over it.
    fn set_active(&self, active: bool);
}

/// The ways to one key. Without any it must be dropped.
#[derive(Debug)]
pub struct Whereabouts<C, F>(Ways<C, F>);

/// A key that no other relay has costs no more for those that others have.
#[derive(Debug)]
enum Ways<C, F> {
    Here(Presence<C>),
    /// `None` when there is no way.
    Region(Option<Box<Region<C, F>>>),
}

const _: () = assert!(size_of::<Whereabouts<(), ()>>() == size_of::<Presence<()>>());

/// The ways to a key that another relay has.
#[derive(Debug)]
struct Region<C, F> {
    here: Option<Presence<C>>,
    forwarders: Forwarders<F>,
}

/// The forwarders of one key, the one registered first in front. One alone, as almost always, has no list.
#[derive(Debug)]
enum Forwarders<F> {
    None,
    One(Arc<F>),
    Many(Vec<Arc<F>>),
}

/// The way that packets for a key take.
#[derive(Debug)]
pub enum Way<'a, C, F> {
    /// To this connection.
    Here(&'a Arc<C>),
    /// By this forwarder.
    By(&'a Arc<F>),
}

/// What adding or removing a forwarder changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has its first forwarder, or has lost its only one.
    OnlyOne,
    /// The key has its second forwarder, or one left.
    Second,
    /// The key has more of them, or has more left.
    More,
    /// Nothing: it was there already, or was not there.
    Nothing,
}

impl<C: Connection, F: Forwarder> Whereabouts<C, F> {
    /// Those of a key with its first connection.
    #[must_use]
    pub fn here(connection: Arc<C>) -> Self {
        Self(Ways::Here(Presence::new(connection)))
    }

    /// Those of a key that another relay has.
    #[must_use]
    pub fn elsewhere(forwarder: Arc<F>) -> Self {
        forwarder.set_active(true);
        Self::region(None, Forwarders::One(forwarder))
    }

    fn region(here: Option<Presence<C>>, forwarders: Forwarders<F>) -> Self {
        Self(Ways::Region(Some(Box::new(Region { here, forwarders }))))
    }

    /// The way that packets for the key take; `None` when the key is gone.
    #[must_use]
    pub fn way(&self) -> Option<Way<'_, C, F>> {
        match &self.0 {
            Ways::Here(presence) => Some(Way::Here(presence.active())),
            Ways::Region(region) => {
                let Region { here, forwarders } = &**region.as_ref()?;
                here.as_ref().map(|here| Way::Here(here.active())).or_else(|| forwarders.first().map(Way::By))
            }
        }
    }

    /// The connections here.
    #[must_use]
    pub fn presence(&self) -> Option<&Presence<C>> {
        match &self.0 {
            Ways::Here(presence) => Some(presence),
            Ways::Region(region) => region.as_ref()?.here.as_ref(),
        }
    }

    /// The same, to note what one of them sent.
    pub fn presence_mut(&mut self) -> Option<&mut Presence<C>> {
        match &mut self.0 {
            Ways::Here(presence) => Some(presence),
            Ways::Region(region) => region.as_mut()?.here.as_mut(),
        }
    }

    /// How many connections are here.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.presence().map_or(0, Presence::count)
    }

    /// Whether there is no way to the key.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self.0, Ways::Region(None))
    }

    /// Adds a connection, which becomes the active one.
    pub fn join(&mut self, connection: Arc<C>) {
        if let Some(presence) = self.presence_mut() {
            return presence.join(connection);
        }
        let presence = Presence::new(connection);
        match &mut self.0 {
            Ways::Region(Some(region)) => {
                // Never neither of them: a sender that sees the old flag down is told the new way.
                region.here = Some(presence);
                region.forwarders.set_first_active(false);
            }
            gone => *gone = Ways::Here(presence),
        }
    }

    /// Removes the connection `id`. After [`Departure::KeyGone`] the key may still be elsewhere.
    pub fn leave(&mut self, id: u64) -> Departure {
        let Some(presence) = self.presence_mut() else { return Departure::Unknown };
        let departure = presence.leave(id);
        if departure == Departure::KeyGone {
            match &mut self.0 {
                Ways::Region(Some(region)) => {
                    region.here = None;
                    region.forwarders.set_first_active(true);
                }
                last => *last = Ways::Region(None),
            }
        }
        departure
    }

    /// Adds a forwarder, unless its link is there already.
    pub fn add_forwarder(&mut self, forwarder: Arc<F>) -> Change {
        if let Ways::Region(Some(region)) = &mut self.0 {
            return region.forwarders.add(forwarder, region.here.is_none());
        }
        *self = match std::mem::replace(&mut self.0, Ways::Region(None)) {
            Ways::Here(presence) => {
                forwarder.set_active(false);
                Self::region(Some(presence), Forwarders::One(forwarder))
            }
            Ways::Region(_) => Self::elsewhere(forwarder),
        };
        Change::OnlyOne
    }

    /// Removes the forwarder over this link.
    pub fn remove_forwarder(&mut self, link: u64) -> Change {
        let Ways::Region(Some(region)) = &mut self.0 else { return Change::Nothing };
        let change = region.forwarders.remove(link, region.here.is_none());
        if change == Change::OnlyOne {
            self.0 = region.here.take().map_or(Ways::Region(None), Ways::Here);
        }
        change
    }
}

impl<F: Forwarder> Forwarders<F> {
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

    /// Adds one, unless its link is there already. `way`: the first of them is the key's way.
    fn add(&mut self, forwarder: Arc<F>, way: bool) -> Change {
        if self.position(forwarder.link()).is_some() {
            return Change::Nothing;
        }
        forwarder.set_active(way && self.all().is_empty());
        let (forwarders, change) = match std::mem::replace(self, Self::None) {
            Self::None => (Self::One(forwarder), Change::OnlyOne),
            Self::One(first) => (Self::Many(vec![first, forwarder]), Change::Second),
            Self::Many(mut all) => {
                all.push(forwarder);
                (Self::Many(all), Change::More)
            }
        };
        *self = forwarders;
        change
    }

    /// Removes the one over this link.
    fn remove(&mut self, link: u64, way: bool) -> Change {
        let Some(at) = self.position(link) else { return Change::Nothing };
        self.set_first_active(false);
        let change = match std::mem::replace(self, Self::None) {
            Self::None | Self::One(_) => Change::OnlyOne,
            Self::Many(mut all) => {
                all.remove(at);
                if let [last] = &all[..] {
                    *self = Self::One(last.clone());
                    Change::Second
                } else {
                    *self = Self::Many(all);
                    Change::More
                }
            }
        };
        self.set_first_active(way);
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
#[path = "whereabouts_tests.rs"]
mod tests;
