//! Every damage to a recording of what a client sends, each through a socket of its own, and what must be left of it:
//! nothing.
//!
//! A sweep takes the recording, the part of it that is to be damaged, and a way to play bytes to the relay, and runs
//! the way for every truncation and every changed byte there, many at a time. Then the relay must be as it was before:
//! no connection, no descriptor and no memory more, and a fresh pair is served. A test file that sweeps is a binary of
//! its own, because it measures its process; it has [`Heap`](super::heap::Heap) as its allocator and its sweeps run one
//! after the other.

use std::future::Future;
use std::ops::Range;

use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::heap::Heap;
use super::{PATIENCE, Relay, packet};

/// Attempts under way at a time.
const AT_A_TIME: usize = 32;
/// How often a sweep is repeated until it leaves nothing. Pools and the wheel of timers fill up in the first rounds and
/// keep their size; what leaks does so in each.
const MAX_ROUNDS: usize = 12;
/// How much the heap may differ from one rest to the next. The smallest thing that could be left of an attempt, 64
/// bytes, comes to more in each round, as does the smallest that could be left of a login, a few hundred.
const SLACK: usize = 32 * 1024;
/// What a login may leave for longer than a sweep takes: its entry in the wheel of timers, which is never removed
/// before its time, of 16 bytes in a vector with room for up to twice as many.
const TIMER: usize = 32;

/// How a byte is changed.
#[derive(Clone, Copy)]
pub(crate) enum Changes {
    /// Into the eight values that differ from it in one bit: where an attempt costs a TLS handshake.
    EachBit,
    /// Into each of the 255 other values.
    EachValue,
}

impl Changes {
    /// What a byte is XORed with.
    fn each(self) -> Vec<u8> {
        match self {
            Self::EachBit => (0..8).map(|bit| 1 << bit).collect(),
            Self::EachValue => (1..=255).collect(),
        }
    }

    /// How often a byte is damaged: cut off, with all that follow, and changed.
    pub(crate) fn damages_of_a_byte(self) -> usize {
        1 + self.each().len()
    }
}

/// What happens to a recording.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    /// None.
    Nothing,
    /// It ends after so many bytes.
    Cut(usize),
    /// The byte there is XORed with this.
    Changed { at: usize, with: u8 },
}

impl Damage {
    /// Every truncation that ends in `part`, and every change in it.
    fn all(part: Range<usize>, changes: Changes) -> impl Iterator<Item = Self> {
        let changed = part
            .clone()
            .flat_map(move |at| changes.each().into_iter().map(move |with| Self::Changed { at, with }));
        part.map(Self::Cut).chain(changed)
    }

    fn apply(self, recording: &[u8]) -> Vec<u8> {
        match self {
            Self::Nothing => recording.to_vec(),
            Self::Cut(len) => recording[..len].to_vec(),
            Self::Changed { at, with } => {
                let mut bytes = recording.to_vec();
                bytes[at] ^= with;
                bytes
            }
        }
    }
}

/// What a relay without clients holds.
#[derive(Debug)]
struct Resting {
    heap: usize,
    descriptors: usize,
    /// How many have logged in so far.
    logins: u64,
}

impl Resting {
    /// Waits until no client is connected.
    fn of(relay: &Relay) -> Self {
        relay.wait("every client has left", |relay| {
            relay.metric("derp_current_connections") == 0 && relay.metric("towpath_pending_connections") == 0
        });
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux").count();
        Self { heap: Heap::allocated(), descriptors, logins: relay.metric("towpath_closed_total") }
    }

    /// Whether there is no more than `before`, except for the timers of clients that have logged in since.
    fn is_as(&self, before: &Self) -> bool {
        let timers = (self.logins - before.logins) as usize * TIMER;
        self.heap <= before.heap + timers + SLACK && self.descriptors <= before.descriptors
    }
}

/// The turn of a test that sweeps, to be taken before its relay is started: another relay in this process would be
/// measured.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Plays every damage to `part` of `recording` through `attempt`, in rounds, until one leaves nothing behind, and
/// returns how many there were.
///
/// `attempt` sends its bytes, says that it sends no more, and returns when the relay has closed.
pub(crate) async fn sweep<A, F>(
    relay: &Relay,
    recording: &[u8],
    part: Range<usize>,
    changes: Changes,
    attempt: A,
) -> usize
where
    A: Fn(Vec<u8>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let logged_in = relay.metric("towpath_closed_total");
    play(recording, std::iter::once(Damage::Nothing), &attempt).await;
    relay.wait("the recording logs in", |relay| relay.metric("towpath_closed_total") > logged_in);

    let mut before = Resting::of(relay);
    for round in 1..=MAX_ROUNDS {
        play(recording, Damage::all(part.clone(), changes), &attempt).await;
        expect_service(relay).await;
        let after = Resting::of(relay);
        if after.is_as(&before) {
            return round;
        }
        before = after;
    }
    panic!("each of {MAX_ROUNDS} rounds left something, the last ended with {before:?}");
}

async fn play<A, F>(recording: &[u8], damages: impl Iterator<Item = Damage>, attempt: &A)
where
    A: Fn(Vec<u8>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut attempts = JoinSet::new();
    for damage in damages {
        if attempts.len() == AT_A_TIME {
            attempts.join_next().await.expect("there are some").expect("no attempt fails");
        }
        let attempt = attempt(damage.apply(recording));
        attempts.spawn(async move {
            timeout(PATIENCE, attempt).await.unwrap_or_else(|_| panic!("not closed: {damage:?}"));
        });
    }
    while let Some(done) = attempts.join_next().await {
        done.expect("no attempt fails");
    }
}

/// Two new clients reach each other.
pub(crate) async fn expect_service(relay: &Relay) {
    let (_, mut sender) = relay.client(101).await;
    let (to, mut receiver) = relay.client(102).await;
    sender.send(to, b"still here").await.expect("a packet goes out");
    assert_eq!(packet(&mut receiver).await.1, b"still here");
}
