//! Connections: how many a source and the process hold, before and after the login.
//!
//! The bound of a prefix grows with the keys that are admitted behind it, because many keys behind one prefix are a shared
//! address: a carrier's NAT, an office. See [`ConnectionBounds`] for the rule.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use towpath_wire::host::{Host, PrefixWidth, SourcePrefix};
use towpath_wire::key::NodePublic;
use towpath_wire::sync::lock;

use super::{Exceeded, Origin};

/// Connections above the bound of the process that may be on their way out, displaced but not closed yet.
const LEAVING: usize = 64;

/// The bounds on connections.
///
/// A prefix may hold `per_host` times its [factor](PrefixWidth::factor), and `per_key` more for each key that is admitted behind
/// it, up to half of `all`. Keys count from when the prefix holds half of its first bound, so that an ordinary host costs no
/// memory for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// Connections of the process.
    pub all: usize,
    /// Connections of an IPv4 address or a /64 of IPv6 behind which few keys are admitted.
    pub per_host: usize,
    /// Connections of a key. A prefix has room for all of them, so that a client which comes back as often as it may does
    /// not use up what others behind the prefix have.
    pub per_key: usize,
}

/// What a prefix holds of the connections of the process, and what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The width of the prefix.
    pub width: PrefixWidth,
    /// The connections that it holds, before and after their logins.
    pub connections: usize,
    /// The connections that it may hold.
    pub bound: usize,
}

/// The accounts of connections.
#[derive(Debug)]
pub struct Connections {
    hasher: RandomState,
    state: Mutex<Holdings>,
}

#[derive(Debug)]
struct Holdings {
    bounds: ConnectionBounds,
    all: usize,
    /// Prefixes without connections are not in the map.
    prefixes: HashMap<SourcePrefix, Account>,
}

/// What a prefix holds.
#[derive(Debug, Default)]
struct Account {
    connections: usize,
    /// On the heap, because an ordinary prefix has none.
    keys: Option<Box<Keys>>,
}

/// The hashes of the admitted keys that count, each with its connections.
#[derive(Debug, Default)]
struct Keys(HashMap<u64, u32>);

impl Account {
    fn keys(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.0.len())
    }
}

impl ConnectionBounds {
    fn first(self, width: PrefixWidth) -> usize {
        self.per_host.saturating_mul(width.factor())
    }

    fn of(self, width: PrefixWidth, keys: usize) -> usize {
        let first = self.first(width);
        first.saturating_add(keys.saturating_mul(self.per_key)).min((self.all / 2).max(first))
    }
}

impl Connections {
    /// Creates accounts that hold nothing. `hasher` has a secret key.
    #[must_use]
    pub fn new(bounds: ConnectionBounds, hasher: RandomState) -> Self {
        Self { hasher, state: Mutex::new(Holdings { bounds, all: 0, prefixes: HashMap::new() }) }
    }

    /// Replaces the bounds. No connection is closed for it; above the new bound there are no new ones.
    pub fn set_bounds(&self, bounds: ConnectionBounds) {
        lock(&self.state).bounds = bounds;
    }

    /// Charges a connection. `displace` is asked to close another when the process holds all that it may.
    ///
    /// # Errors
    ///
    /// The bound that would be exceeded.
    pub fn take(self: &Arc<Self>, origin: Origin, displace: impl FnOnce() -> bool) -> Result<Seat, Exceeded> {
        let mut state = lock(&self.state);
        if let Some(host) = origin.client() {
            state.check(host)?;
        }
        let most = state.bounds.all;
        if state.all >= most.saturating_add(LEAVING) || state.all >= most && !displace() {
            return Err(Exceeded::Connections);
        }
        state.all += 1;
        if let Some(host) = origin.client() {
            state.charge(host);
        }
        drop(state);
        Ok(Seat::new(self.clone(), origin.client(), None))
    }

    /// What the prefixes of `host` hold, and what they may, the narrowest first. Those without connections are not among them.
    #[must_use]
    pub fn holdings(&self, host: Host) -> Vec<Holding> {
        let state = lock(&self.state);
        let of = |prefix: SourcePrefix| {
            let account = state.prefixes.get(&prefix)?;
            let bound = state.bounds.of(prefix.width(), account.keys());
            Some(Holding { width: prefix.width(), connections: account.connections, bound })
        };
        host.prefixes().filter_map(of).collect()
    }

    /// How many connections the process holds.
    pub fn len(&self) -> usize {
        lock(&self.state).all
    }

    /// Whether the process holds no connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Holdings {
    fn check(&self, host: Host) -> Result<(), Exceeded> {
        let is_full = |prefix: SourcePrefix| {
            self.prefixes
                .get(&prefix)
                .is_some_and(|account| account.connections >= self.bounds.of(prefix.width(), account.keys()))
        };
        if host.prefixes().any(is_full) { Err(Exceeded::ConnectionsOfSource) } else { Ok(()) }
    }

    fn charge(&mut self, host: Host) {
        for prefix in host.prefixes() {
            self.prefixes.entry(prefix).or_default().connections += 1;
        }
    }

    fn release(&mut self, host: Host) {
        for prefix in host.prefixes() {
            if let Some(account) = self.prefixes.get_mut(&prefix) {
                account.connections -= 1;
                if account.connections == 0 {
                    self.prefixes.remove(&prefix);
                }
            }
        }
    }

    /// Counts a key for those prefixes of `host` that hold half of their first bound, and returns which.
    fn count_key(&mut self, host: Host, key: u64) -> [bool; PrefixWidth::ALL.len()] {
        let mut counted = [false; PrefixWidth::ALL.len()];
        for prefix in host.prefixes() {
            let Some(account) = self.prefixes.get_mut(&prefix) else { continue };
            if account.connections > self.bounds.first(prefix.width()) / 2 {
                *account.keys.get_or_insert_default().0.entry(key).or_default() += 1;
                counted[prefix.width().index()] = true;
            }
        }
        counted
    }

    fn uncount_key(&mut self, host: Host, counted: CountedKey) {
        for prefix in host.prefixes().filter(|prefix| counted.by[prefix.width().index()]) {
            let Some(account) = self.prefixes.get_mut(&prefix) else { continue };
            let Some(Keys(keys)) = account.keys.as_deref_mut() else { continue };
            if let Some(connections) = keys.get_mut(&counted.key) {
                *connections -= 1;
                if *connections == 0 {
                    keys.remove(&counted.key);
                }
            }
            if keys.is_empty() {
                account.keys = None;
            }
        }
    }
}

/// A connection as its accounts see it, given back when this is dropped.
///
/// It has 16 bytes for the ordinary connection, because an idle connection keeps it.
#[derive(Debug)]
pub struct Seat(Charged);

#[derive(Debug)]
enum Charged {
    Host(Arc<Connections>, Host),
    Other(Box<Other>),
}

/// A connection that is charged to the process alone, or whose key counts.
#[derive(Debug)]
struct Other {
    accounts: Arc<Connections>,
    host: Option<Host>,
    counted: Option<CountedKey>,
}

/// A key that counts, and by prefixes of which widths.
#[derive(Clone, Copy, Debug)]
struct CountedKey {
    key: u64,
    by: [bool; PrefixWidth::ALL.len()],
}

impl Seat {
    fn new(accounts: Arc<Connections>, host: Option<Host>, counted: Option<CountedKey>) -> Self {
        Self(match (host, counted) {
            (Some(host), None) => Charged::Host(accounts, host),
            (host, counted) => Charged::Other(Box::new(Other { accounts, host, counted })),
        })
    }

    /// A seat that no bound and no other seat knows of.
    #[must_use]
    pub fn unbounded() -> Self {
        let bounds = ConnectionBounds { all: usize::MAX, per_host: usize::MAX, per_key: 8 };
        let accounts = Connections::new(bounds, RandomState::new());
        lock(&accounts.state).all = 1;
        Self::new(Arc::new(accounts), None, None)
    }

    fn parts(&self) -> (&Arc<Connections>, Option<Host>, Option<CountedKey>) {
        match &self.0 {
            Charged::Host(accounts, host) => (accounts, Some(*host), None),
            Charged::Other(other) => (&other.accounts, other.host, other.counted),
        }
    }

    /// Charges the connection to another origin, as when a proxy has named the client.
    ///
    /// # Errors
    ///
    /// [`Exceeded::ConnectionsOfSource`]. The connection then stays charged as it was.
    pub fn charge_to(&mut self, origin: Origin) -> Result<(), Exceeded> {
        let (accounts, old, _) = self.parts();
        let new = origin.client();
        if old == new {
            return Ok(());
        }
        let accounts = accounts.clone();
        let mut state = lock(&accounts.state);
        if let Some(host) = new {
            state.check(host)?;
            state.charge(host);
        }
        // The old seat, which is dropped, gives one back.
        state.all += 1;
        drop(state);
        *self = Self::new(accounts, new, None);
        Ok(())
    }

    /// Counts the key with which the connection has logged in.
    pub fn admit(&mut self, key: &NodePublic) {
        let (accounts, Some(host), None) = self.parts() else { return };
        let accounts = accounts.clone();
        let key = accounts.hasher.hash_one(key.as_bytes());
        let by = lock(&accounts.state).count_key(host, key);
        if by.contains(&true) {
            let counted = Some(CountedKey { key, by });
            self.0 = Charged::Other(Box::new(Other { accounts, host: Some(host), counted }));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (accounts, host, counted) = self.parts();
        let mut state = lock(&accounts.state);
        state.all -= 1;
        if let Some(host) = host {
            // Before the accounts of the prefixes, because those that hold nothing more are forgotten.
            if let Some(counted) = counted {
                state.uncount_key(host, counted);
            }
            state.release(host);
        }
    }
}
