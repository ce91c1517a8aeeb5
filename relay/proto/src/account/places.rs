//! Places: the connections that have not logged in, in the order in which they lose their places to newer ones.
//!
//! A table that is full does not make a new connection wait: an older one is displaced. It is taken from the prefix that
//! holds the most places for its width ([`PrefixWidth::factor`]), and there it is the oldest that has sent nothing, or else
//! the oldest. A login takes a few round trips, so an honest connection is neither the oldest nor of the prefix with the
//! most places, unless the attacker has as many prefixes as the table has places.
//!
//! [`PrefixWidth::factor`]: towpath_wire::host::PrefixWidth::factor

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use towpath_wire::host::{PrefixWidth, SourcePrefix};
use towpath_wire::sync::lock;

use super::{Exceeded, Origin};

/// The bounds of a table of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceBounds {
    /// Places of all together.
    pub all: usize,
    /// Places of an IPv4 address or a /64 of IPv6. A /56 has twice as many, a /48 four times.
    pub per_host: usize,
}

/// A table of places. `H` is the handle by which a displaced connection is told to end.
#[derive(Debug)]
pub struct Places<H> {
    table: Mutex<Table<H>>,
}

/// The place of one connection, which is given back when this is dropped.
#[derive(Debug)]
pub struct Place<H> {
    places: Arc<Places<H>>,
    id: u64,
}

/// A place in the table, and the connections that lost theirs to it.
#[derive(Debug)]
pub struct Taken<H> {
    /// The new place.
    pub place: Place<H>,
    /// The handles of those that were displaced.
    pub displaced: Vec<H>,
}

impl<H> Places<H> {
    /// Creates an empty table.
    #[must_use]
    pub fn new(bounds: PlaceBounds) -> Self {
        Self { table: Mutex::new(Table::new(bounds)) }
    }

    /// Replaces the bounds. Connections that have a place keep it; above the new bound each new one takes the place of an older
    /// one.
    pub fn set_bounds(&self, bounds: PlaceBounds) {
        lock(&self.table).bounds = bounds;
    }

    /// Takes a place for the connection `id`, which is greater than those that have come before it.
    ///
    /// # Errors
    ///
    /// [`Exceeded::PendingOfSource`].
    pub fn take(self: &Arc<Self>, id: u64, origin: Origin, handle: H) -> Result<Taken<H>, Exceeded> {
        let mut table = lock(&self.table);
        let mut displaced = table.make_room_for(origin)?;
        if table.pending.len() >= table.bounds.all {
            displaced.extend(table.displace_from_the_most());
        }
        table.insert(id, Pending { origin, is_heard: false, handle });
        drop(table);
        Ok(Taken { place: Place { places: self.clone(), id }, displaced })
    }

    /// Displaces a connection that has sent nothing, of the prefix that holds the most places of those that have one.
    /// Returns its handle.
    pub fn displace_silent(&self) -> Option<H> {
        lock(&self.table).displace_silent()
    }

    /// Whether more than half of the places are taken. Then logins come faster than they are done.
    pub fn are_crowded(&self) -> bool {
        let table = lock(&self.table);
        table.pending.len() > table.bounds.all / 2
    }
}

impl<H> Place<H> {
    /// Notes that the connection has sent its first bytes.
    pub fn hear(&self) {
        let mut table = lock(&self.places.table);
        if let Some(pending) = table.remove(self.id) {
            table.insert(self.id, Pending { is_heard: true, ..pending });
        }
    }

    /// Charges the place to another origin, as when a proxy has named the client. Returns the handles of the connections
    /// that were displaced.
    ///
    /// # Errors
    ///
    /// [`Exceeded::PendingOfSource`]. The place is then given back.
    pub fn charge_to(&self, origin: Origin) -> Result<Vec<H>, Exceeded> {
        let mut table = lock(&self.places.table);
        let Some(pending) = table.remove(self.id) else { return Ok(Vec::new()) };
        let displaced = table.make_room_for(origin)?;
        table.insert(self.id, Pending { origin, ..pending });
        Ok(displaced)
    }
}

impl<H> Drop for Place<H> {
    fn drop(&mut self) {
        lock(&self.places.table).remove(self.id);
    }
}

#[derive(Debug)]
struct Pending<H> {
    origin: Origin,
    is_heard: bool,
    handle: H,
}

/// The principal of a place: a prefix, apart for the proxies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Group {
    prefix: SourcePrefix,
    is_proxy: bool,
}

fn groups(origin: Origin) -> impl Iterator<Item = Group> {
    let (Origin::Client(host) | Origin::Proxy(host)) = origin;
    let is_proxy = matches!(origin, Origin::Proxy(_));
    host.prefixes().map(move |prefix| Group { prefix, is_proxy })
}

/// The places of a group, by the numbers of their connections.
#[derive(Debug, Default)]
struct Members {
    silent: BTreeSet<u64>,
    heard: BTreeSet<u64>,
}

impl Members {
    fn len(&self) -> usize {
        self.silent.len() + self.heard.len()
    }

    /// The connection to displace first.
    fn first(&self) -> Option<u64> {
        self.silent.first().or_else(|| self.heard.first()).copied()
    }

    fn standing(&self, group: Group) -> Standing {
        // The common denominator of all factors keeps the comparison in whole numbers.
        let weighted = self.len() * PrefixWidth::Net48.factor() / group.prefix.width().factor();
        Standing {
            weighted,
            has_silent: !self.silent.is_empty(),
            first: Reverse(self.first().unwrap_or_default()),
            group,
        }
    }
}

/// The standing of a group among all: the greatest loses a place first. Of groups with equally many places that is one with
/// a silent connection, and then the one with the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    weighted: usize,
    has_silent: bool,
    first: Reverse<u64>,
    group: Group,
}

#[derive(Debug)]
struct Table<H> {
    bounds: PlaceBounds,
    pending: HashMap<u64, Pending<H>>,
    /// Groups without places are in neither of these.
    groups: HashMap<Group, Members>,
    standings: BTreeSet<Standing>,
}

impl<H> Table<H> {
    fn new(bounds: PlaceBounds) -> Self {
        Self { bounds, pending: HashMap::new(), groups: HashMap::new(), standings: BTreeSet::new() }
    }

    fn insert(&mut self, id: u64, pending: Pending<H>) {
        for group in groups(pending.origin) {
            self.change(group, |members| {
                let set = if pending.is_heard { &mut members.heard } else { &mut members.silent };
                set.insert(id);
            });
        }
        self.pending.insert(id, pending);
    }

    fn remove(&mut self, id: u64) -> Option<Pending<H>> {
        let pending = self.pending.remove(&id)?;
        for group in groups(pending.origin) {
            self.change(group, |members| {
                let set = if pending.is_heard { &mut members.heard } else { &mut members.silent };
                set.remove(&id);
            });
        }
        Some(pending)
    }

    fn change(&mut self, group: Group, change: impl FnOnce(&mut Members)) {
        let members = self.groups.entry(group).or_default();
        self.standings.remove(&members.standing(group));
        change(members);
        if members.len() == 0 {
            self.groups.remove(&group);
        } else {
            self.standings.insert(members.standing(group));
        }
    }

    /// Sees to it that each group of `origin` has a place less than its bound. Returns the handles of those displaced.
    fn make_room_for(&mut self, origin: Origin) -> Result<Vec<H>, Exceeded> {
        if origin.client().is_none() {
            return Ok(Vec::new());
        }
        let is_full = |table: &Self, group: &Group| {
            let bound = table.bounds.per_host.saturating_mul(group.prefix.width().factor());
            table.groups.get(group).is_some_and(|members| members.len() >= bound)
        };
        let has_silent = |table: &Self, group: &Group| {
            table.groups.get(group).is_some_and(|members| !members.silent.is_empty())
        };
        // First the check of all, so that no connection is displaced for one that is refused.
        if groups(origin).any(|group| is_full(self, &group) && !has_silent(self, &group)) {
            return Err(Exceeded::PendingOfSource);
        }
        let mut displaced = Vec::new();
        for group in groups(origin) {
            if is_full(self, &group)
                && let Some(&id) = self.groups.get(&group).and_then(|members| members.silent.first())
            {
                displaced.extend(self.remove(id).map(|pending| pending.handle));
            }
        }
        Ok(displaced)
    }

    fn displace_from_the_most(&mut self) -> Option<H> {
        let most = self.standings.last()?;
        let id = most.first.0;
        self.remove(id).map(|pending| pending.handle)
    }

    fn displace_silent(&mut self) -> Option<H> {
        let most = self.standings.iter().rev().find(|standing| standing.has_silent)?;
        let id = most.first.0;
        self.remove(id).map(|pending| pending.handle)
    }
}
