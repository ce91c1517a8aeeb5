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
pub struct Whereabouts<C, F> {
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
        Self { here: Some(Presence::new(connection)), forwarders: Forwarders::None }
    }

    /// Those of a key that another relay has.
    #[must_use]
    pub fn elsewhere(forwarder: Arc<F>) -> Self {
        forwarder.set_active(true);
        Self { here: None, forwarders: Forwarders::One(forwarder) }
    }

    /// The way that packets for the key take; `None` when the key is gone.
    #[must_use]
    #[inline]
    pub fn way(&self) -> Option<Way<'_, C, F>> {
        match &self.here {
            Some(presence) => Some(Way::Here(presence.active())),
            None => self.forwarders.first().map(Way::By),
        }
    }

    /// The connections here.
    #[must_use]
    pub const fn presence(&self) -> Option<&Presence<C>> {
        self.here.as_ref()
    }

    /// The same, to note what one of them sent.
    pub const fn presence_mut(&mut self) -> Option<&mut Presence<C>> {
        self.here.as_mut()
    }

    /// How many connections are here.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.here.as_ref().map_or(0, Presence::len)
    }

    /// Whether another relay has the key.
    #[must_use]
    pub const fn is_elsewhere(&self) -> bool {
        !matches!(self.forwarders, Forwarders::None)
    }

    /// Whether there is no way to the key.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.here.is_none() && !self.is_elsewhere()
    }

    /// Adds a connection, which becomes the active one.
    pub fn join(&mut self, connection: Arc<C>) {
        match &mut self.here {
            Some(presence) => presence.join(connection),
            None => {
                // Never neither of them: a sender that sees the old flag down is told the new way.
                self.here = Some(Presence::new(connection));
                self.forwarders.set_first_active(false);
            }
        }
    }

    /// Removes the connection `id`. After [`Departure::KeyGone`] the key may still be elsewhere.
    pub fn leave(&mut self, id: u64) -> Departure {
        let Some(presence) = &mut self.here else { return Departure::Unknown };
        let departure = presence.leave(id);
        if departure == Departure::KeyGone {
            self.here = None;
            self.forwarders.set_first_active(true);
        }
        departure
    }

    /// Adds a forwarder, unless its link is there already.
    pub fn add_forwarder(&mut self, forwarder: Arc<F>) -> Change {
        if self.forwarders.position(forwarder.link()).is_some() {
            return Change::Nothing;
        }
        let is_first = !self.is_elsewhere();
        forwarder.set_active(is_first && self.here.is_none());
        let before = std::mem::replace(&mut self.forwarders, Forwarders::None);
        let (forwarders, change) = match before {
            Forwarders::None => (Forwarders::One(forwarder), Change::OnlyOne),
            Forwarders::One(first) => (Forwarders::Many(vec![first, forwarder]), Change::Second),
            Forwarders::Many(mut all) => {
                all.push(forwarder);
                (Forwarders::Many(all), Change::More)
            }
        };
        self.forwarders = forwarders;
        change
    }

    /// Removes the forwarder over this link.
    pub fn remove_forwarder(&mut self, link: u64) -> Change {
        let Some(at) = self.forwarders.position(link) else { return Change::Nothing };
        self.forwarders.set_first_active(false);
        let before = std::mem::replace(&mut self.forwarders, Forwarders::None);
        let change = match before {
            Forwarders::None | Forwarders::One(_) => Change::OnlyOne,
            Forwarders::Many(mut all) => {
                all.remove(at);
                if let [last] = &all[..] {
                    self.forwarders = Forwarders::One(last.clone());
                    Change::Second
                } else {
                    self.forwarders = Forwarders::Many(all);
                    Change::More
                }
            }
        };
        self.forwarders.set_first_active(self.here.is_none());
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    #[derive(Debug)]
    struct Flags {
        id: u64,
        active: AtomicBool,
    }

    impl Flags {
        fn new(id: u64) -> Arc<Self> {
            Arc::new(Self { id, active: AtomicBool::new(false) })
        }

        fn is_active(&self) -> bool {
            self.active.load(Relaxed)
        }
    }

    impl Connection for Flags {
        fn id(&self) -> u64 {
            self.id
        }
        fn set_active(&self, active: bool) {
            self.active.store(active, Relaxed);
        }
        fn set_shared(&self, _: bool) {}
    }

    impl Forwarder for Flags {
        fn link(&self) -> u64 {
            self.id
        }
        fn set_active(&self, active: bool) {
            self.active.store(active, Relaxed);
        }
    }

    fn way(whereabouts: &Whereabouts<Flags, Flags>) -> Option<(&'static str, u64)> {
        whereabouts.way().map(|way| match way {
            Way::Here(connection) => ("here", connection.id),
            Way::By(forwarder) => ("by", forwarder.id),
        })
    }

    #[test]
    fn the_first_forwarder_is_used_until_it_goes() {
        let [a, b, c] = [1, 2, 3].map(Flags::new);
        let mut whereabouts = Whereabouts::elsewhere(a.clone());
        assert_eq!(whereabouts.add_forwarder(a.clone()), Change::Nothing);
        assert_eq!(whereabouts.add_forwarder(b.clone()), Change::Second);
        assert_eq!(whereabouts.add_forwarder(c.clone()), Change::More);
        assert_eq!((way(&whereabouts), b.is_active()), (Some(("by", 1)), false));
        assert_eq!(whereabouts.remove_forwarder(9), Change::Nothing);
        assert_eq!(whereabouts.remove_forwarder(2), Change::More);
        assert_eq!(way(&whereabouts), Some(("by", 1)));
        assert_eq!(whereabouts.remove_forwarder(1), Change::Second);
        assert_eq!((way(&whereabouts), a.is_active(), c.is_active()), (Some(("by", 3)), false, true));
        assert_eq!(whereabouts.remove_forwarder(3), Change::OnlyOne);
        assert!(whereabouts.is_gone() && !c.is_active());
    }

    #[test]
    fn a_connection_here_comes_before_any_relay() {
        let [here, there] = [1, 2].map(Flags::new);
        let mut whereabouts = Whereabouts::elsewhere(there.clone());
        whereabouts.join(here.clone());
        assert_eq!((way(&whereabouts), there.is_active()), (Some(("here", 1)), false));
        assert_eq!(whereabouts.leave(1), Departure::KeyGone);
        assert_eq!((way(&whereabouts), there.is_active()), (Some(("by", 2)), true));
        assert!(!whereabouts.is_gone());
        assert_eq!(whereabouts.leave(1), Departure::Unknown);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Join(u64),
        Leave(u64),
        Add(u64),
        Remove(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0u64..4, 0u64..4).prop_map(|(what, id)| match what {
            0 => Step::Join(id),
            1 => Step::Leave(id),
            2 => Step::Add(id),
            _ => Step::Remove(id),
        });
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// Against a model of two lists: exactly the way that is used says that it is active, and the key is gone exactly
        /// when both lists are empty.
        #[test]
        fn the_way_is_that_of_the_model_and_alone_is_active(steps in steps()) {
            let connections: [_; 4] = std::array::from_fn(|id| Flags::new(id as u64));
            let forwarders: [_; 4] = std::array::from_fn(|id| Flags::new(id as u64));
            let (mut here, mut there) = (Vec::new(), Vec::new());
            let mut whereabouts: Option<Whereabouts<Flags, Flags>> = None;
            for step in steps {
                match step {
                    Step::Join(id) if !here.contains(&id) => {
                        here.push(id);
                        let connection = connections[id as usize].clone();
                        match &mut whereabouts {
                            Some(whereabouts) => whereabouts.join(connection),
                            none => *none = Some(Whereabouts::here(connection)),
                        }
                    }
                    Step::Join(_) => {}
                    Step::Leave(id) => {
                        here.retain(|&other| other != id);
                        if let Some(whereabouts) = &mut whereabouts {
                            whereabouts.leave(id);
                        }
                    }
                    Step::Add(id) => {
                        let forwarder = forwarders[id as usize].clone();
                        let change = match &mut whereabouts {
                            Some(whereabouts) => whereabouts.add_forwarder(forwarder),
                            none => {
                                *none = Some(Whereabouts::elsewhere(forwarder));
                                Change::OnlyOne
                            }
                        };
                        prop_assert_eq!(change == Change::Nothing, there.contains(&id));
                        if !there.contains(&id) {
                            there.push(id);
                        }
                    }
                    Step::Remove(id) => {
                        let was_there = there.contains(&id);
                        there.retain(|&other| other != id);
                        if let Some(whereabouts) = &mut whereabouts {
                            prop_assert_eq!(whereabouts.remove_forwarder(id) != Change::Nothing, was_there);
                        }
                    }
                }
                if whereabouts.as_ref().is_some_and(Whereabouts::is_gone) {
                    whereabouts = None;
                }
                prop_assert_eq!(whereabouts.is_none(), here.is_empty() && there.is_empty());
                let way = whereabouts.as_ref().and_then(way);
                prop_assert_eq!(way.is_some_and(|(what, _)| what == "here"), !here.is_empty());
                if here.is_empty() {
                    prop_assert_eq!(way.map(|(_, id)| id), there.first().copied());
                }
                for flags in &connections {
                    prop_assert_eq!(flags.is_active(), way == Some(("here", flags.id)));
                }
                for flags in &forwarders {
                    prop_assert_eq!(flags.is_active(), way == Some(("by", flags.id)));
                }
            }
        }
    }
}
