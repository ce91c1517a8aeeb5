//! The connections of one key, of which one is active.
//!
//! The rules for clones of a key are Tailscale's (`lastWriterIsActive`). A new connection becomes the active one, and
//! the others stay. A connection that sends a frame becomes active. When the active connection leaves, the one that
//! sent last takes over, or the oldest if none has sent.
//!
//! Two connections are usually one client that came back before its old connection was noticed to be dead. The old
//! connection may have sent something that arrives late, but it does not go on sending. If a connection loses its place
//! to another that sends, takes it back by sending, and does so a second time, then two clients use one key and take
//! each other's packets. The key is [contested](Presence::is_contested) until one connection is left.
//!
//! A sender that knows the active connection keeps it and looks only at its flag. The flags change inside
//! [`Presence`]'s methods, which the owner of the map calls under its lock. So a sender that sees a flag down and asks
//! the map is told the successor.

use std::sync::Arc;

/// A connection as the presence of its key sees it.
pub trait Member {
    /// A number that no other connection of this process has had.
    fn id(&self) -> u64;
    /// Tells the connection whether packets for its key go to it.
    fn set_active(&self, active: bool);
    /// Tells the connection whether its key has others, so that what it sends must be noted.
    fn set_shared(&self, shared: bool);
}

/// A connection, and what it has sent.
#[derive(Debug)]
struct Tracked<C> {
    connection: Arc<C>,
    /// When it last sent, counted in the set's own time; zero = never.
    last_sent: u64,
    /// It has taken the active place from another by sending.
    took_over: bool,
}

impl<C> Tracked<C> {
    const fn new(connection: Arc<C>, last_sent: u64) -> Self {
        Self { connection, last_sent, took_over: false }
    }
}

/// The connections of one key, at least one.
#[derive(Debug)]
pub struct Presence<C> {
    /// The active connection. Alone, as almost always, it is all there is.
    active: Arc<C>,
    /// All connections, the active one included, oldest first; `None` while there is one.
    clones: Option<Box<Clones<C>>>,
}

#[derive(Debug)]
struct Clones<C> {
    members: Vec<Tracked<C>>,
    sent: u64,
    contested: bool,
}

/// What a departure leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The key has no connection any more.
    KeyGone,
    /// Others of the key are here.
    OthersRemain {
        /// The key was contested and is not any more: the one that is left is the active one.
        resolved: bool,
    },
    /// The connection was not here.
    Unknown,
}

impl<C: Member> Presence<C> {
    /// The presence of a key with its first connection.
    #[must_use]
    pub fn new(first: Arc<C>) -> Self {
        first.set_active(true);
        Self { active: first, clones: None }
    }

    /// The connection that packets for the key go to.
    #[must_use]
    pub const fn active(&self) -> &Arc<C> {
        &self.active
    }

    /// How many connections the key has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.clones.as_ref().map_or(1, |clones| clones.members.len())
    }

    /// Adds a connection, which becomes the active one.
    pub fn join(&mut self, connection: Arc<C>) {
        let first = &self.active;
        let clones = self.clones.get_or_insert_with(|| {
            first.set_shared(true);
            // Tailscale counts a connection that was alone as having sent.
            Box::new(Clones { members: vec![Tracked::new(first.clone(), 1)], sent: 1, contested: false })
        });
        connection.set_shared(true);
        clones.members.push(Tracked::new(connection.clone(), 0));
        self.activate(connection);
    }

    /// Notes that the connection `id` has sent a frame. Returns whether that is the first sign that the key is
    /// contested.
    pub fn note_sent(&mut self, id: u64) -> bool {
        let Some(clones) = &mut self.clones else { return false };
        let Some(member) = clones.members.iter_mut().find(|member| member.connection.id() == id) else {
            return false;
        };
        clones.sent += 1;
        member.last_sent = clones.sent;
        if self.active.id() == id {
            return false;
        }
        let again = std::mem::replace(&mut member.took_over, true);
        let shown = again && !std::mem::replace(&mut clones.contested, true);
        let connection = member.connection.clone();
        self.activate(connection);
        shown
    }

    /// Whether two clients are in use with the key.
    #[must_use]
    pub fn is_contested(&self) -> bool {
        self.clones.as_ref().is_some_and(|clones| clones.contested)
    }

    /// Every connection of the key.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<C>> {
        let clones = self.clones.as_deref().map_or(&[][..], |clones| &clones.members);
        let alone = self.clones.is_none().then_some(&self.active);
        alone.into_iter().chain(clones.iter().map(|member| &member.connection))
    }

    /// Removes the connection that has sent the longest ago, the active one apart, where the key has more than `most`
    /// connections.
    pub fn evict(&mut self, most: usize) -> Option<Arc<C>> {
        let (clones, active) = (self.clones.as_ref()?, self.active.id());
        if clones.members.len() <= most {
            return None;
        }
        let inactive = clones.members.iter().filter(|member| member.connection.id() != active);
        let evicted = inactive.min_by_key(|member| member.last_sent)?.connection.clone();
        self.leave(evicted.id());
        Some(evicted)
    }

    /// Removes the connection `id`. After [`Departure::KeyGone`] the presence must be dropped.
    pub fn leave(&mut self, id: u64) -> Departure {
        let Some(clones) = &mut self.clones else {
            if self.active.id() != id {
                return Departure::Unknown;
            }
            self.active.set_active(false);
            return Departure::KeyGone;
        };
        let Some(at) = clones.members.iter().position(|member| member.connection.id() == id) else {
            return Departure::Unknown;
        };
        clones.members.remove(at).connection.set_shared(false);
        // The first of those that sent last, hence the oldest if none has sent.
        let successor = clones.members.iter().rev().max_by_key(|member| member.last_sent);
        let successor = successor.expect("clones are two or more").connection.clone();
        let mut resolved = false;
        if clones.members.len() == 1 {
            successor.set_shared(false);
            resolved = clones.contested;
            self.clones = None;
        }
        if self.active.id() == id {
            self.activate(successor);
        }
        Departure::OthersRemain { resolved }
    }

    fn activate(&mut self, connection: Arc<C>) {
        connection.set_active(true);
        std::mem::replace(&mut self.active, connection).set_active(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[derive(Debug)]
    struct Flags {
        id: u64,
        active: AtomicBool,
        shared: AtomicBool,
    }

    impl Member for Flags {
        fn id(&self) -> u64 {
            self.id
        }
        fn set_active(&self, active: bool) {
            self.active.store(active, Relaxed);
        }
        fn set_shared(&self, shared: bool) {
            self.shared.store(shared, Relaxed);
        }
    }

    impl Flags {
        fn is_active(&self) -> bool {
            self.active.load(Relaxed)
        }
        fn is_shared(&self) -> bool {
            self.shared.load(Relaxed)
        }
    }

    fn connections<const N: usize>() -> [Arc<Flags>; N] {
        std::array::from_fn(|id| {
            Arc::new(Flags { id: id as u64, active: AtomicBool::new(false), shared: AtomicBool::new(false) })
        })
    }

    #[test]
    fn the_newest_is_active_and_the_rest_stay() {
        let [a, b] = connections();
        let mut presence = Presence::new(a.clone());
        assert!(a.is_active() && !a.is_shared());
        presence.join(b.clone());
        assert_eq!((a.is_active(), b.is_active()), (false, true));
        assert!(a.is_shared() && b.is_shared());
        assert_eq!(presence.leave(1), Departure::OthersRemain { resolved: false });
        assert!(a.is_active() && !a.is_shared());
        assert_eq!(presence.leave(1), Departure::Unknown);
        assert_eq!(presence.leave(0), Departure::KeyGone);
        assert!(!a.is_active() && !b.is_active() && !b.is_shared());
    }

    #[test]
    fn the_last_writer_is_active_and_succeeds() {
        let [a, b, c] = connections();
        let mut presence = Presence::new(a.clone());
        presence.join(b.clone());
        presence.join(c.clone());
        presence.note_sent(b.id);
        assert_eq!(presence.active().id, 1);
        presence.note_sent(a.id);
        assert_eq!(presence.active().id, 0);
        assert_eq!(presence.leave(a.id), Departure::OthersRemain { resolved: false });
        assert_eq!(presence.active().id, 1, "b sent, c did not");
        assert!(b.is_active() && !c.is_active());
    }

    #[test]
    fn where_none_has_sent_the_oldest_succeeds() {
        let [a, b, c] = connections();
        let mut presence = Presence::new(a);
        presence.join(b);
        presence.join(c);
        presence.leave(2);
        assert_eq!(presence.active().id, 0);
        let [a, b, c, d] = connections();
        let mut presence = Presence::new(a);
        presence.join(b);
        presence.join(c);
        presence.join(d);
        presence.leave(0);
        assert_eq!(presence.active().id, 3, "an idle clone that leaves changes nothing");
        presence.leave(3);
        assert_eq!(presence.active().id, 1, "the oldest of those left");
    }

    #[test]
    fn the_connection_that_has_been_silent_the_longest_makes_room() {
        let [a, b, c, d] = connections();
        let mut presence = Presence::new(a.clone());
        presence.join(b.clone());
        presence.join(c.clone());
        assert!(presence.evict(3).is_none(), "three are within the bound");
        presence.note_sent(b.id);
        presence.join(d.clone());
        // The one that was alone counts as having sent before all others, and the third has never sent.
        let evicted = presence.evict(3).expect("a fourth");
        assert_eq!((evicted.id, evicted.is_shared(), presence.count()), (c.id, false, 3));
        assert_eq!(presence.active().id, d.id);
        assert_eq!(presence.evict(2).expect("a third").id, a.id);
        assert_eq!(presence.evict(1).expect("a second").id, b.id);
        assert!(presence.evict(1).is_none() && d.is_active() && !d.is_shared());
        assert_eq!(presence.leave(c.id), Departure::Unknown, "it has left already");
    }

    #[test]
    fn a_client_that_comes_back_contests_nothing_and_two_in_use_do() {
        let [old, new, third] = connections();
        let mut presence = Presence::new(old.clone());
        presence.join(new.clone());
        // What the old connection sent before it died comes late.
        for sender in [&new, &new, &old, &old, &new, &new] {
            assert!(!presence.note_sent(sender.id));
        }
        assert!(presence.note_sent(old.id), "the old one took the place a second time");
        assert!(presence.is_contested());
        assert!(!presence.note_sent(new.id), "it is known");
        presence.join(third.clone());
        assert!(presence.is_contested(), "the third is to know, too");
        let everybody: Vec<_> = presence.connections().map(|each| each.id).collect();
        assert_eq!(everybody, [0, 1, 2]);
        assert_eq!(presence.leave(old.id), Departure::OthersRemain { resolved: false });
        assert_eq!(presence.leave(new.id), Departure::OthersRemain { resolved: true });
        assert!(!presence.is_contested() && third.is_active());
        assert_eq!(presence.connections().count(), 1);
    }
}
