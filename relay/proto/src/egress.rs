//! An outbox that many threads fill and any of them empties, one at a time.
//!
//! The thread whose push finds the outbox clean owes it a flush; pushes after that ride along. A flush that meets
//! another flush leaves at once, because the other looks again before it ends. A flush whose socket is full leaves the
//! rest in the outbox, and from then on the thread that owns the connection owes the flush, when its epoll says that the
//! socket takes bytes again. So at any time at most one write is in flight for a connection, no thread waits for
//! another's write, and nothing is forgotten. Who owes what is one word under the outbox's own lock:
//!
//! ```text
//!           push              flush               nothing left
//!   Clean ────────▶ Owed ────────────▶ Sending ────────────────▶ Clean
//!                                      ▲     │ socket full
//!                    socket writable   │     ▼
//!                                      Blocked
//! ```

use std::fmt;

use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use crate::outbox::{Batch, DropReason, DropSink, Limits, Outbox};
use crate::sync::{Mutex, lock};

/// Where an outbox is emptied to.
pub trait Transmit {
    /// What a thread lends to every transmission, such as a buffer to seal into.
    type Scratch;

    /// Sends what an earlier call had to keep and then as much of `batch` as goes without waiting. Called without a batch
    /// when nothing waits, and then sends what it has of its own, if anything.
    fn send(&mut self, batch: Option<&mut Batch>, scratch: &mut Self::Scratch) -> Sent;
}

/// What a thread brings along to a flush.
pub struct Hand<'a, S, D> {
    /// The time.
    pub now: Instant,
    /// The bounds of every outbox.
    pub limits: &'a Limits,
    /// Where buffers come from and go to.
    pub pool: &'a mut BufferPool,
    /// Who is told of what is dropped.
    pub drops: &'a mut D,
    /// What the transmission needs.
    pub scratch: &'a mut S,
}

impl<S, D> fmt::Debug for Hand<'_, S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hand").field("now", &self.now).finish_non_exhaustive()
    }
}

/// How far a transmission came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it.
    All,
    /// The socket is full; the rest must wait until it is writable.
    Blocked,
    /// The connection is broken; the rest can only be dropped.
    Failed,
}

/// What a push found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// The outbox was clean: the caller owes a [`flush`](Egress::flush).
    MustFlush,
    /// Somebody owes a flush already.
    Queued,
    /// There was no room for a control frame, or a watcher is owed too much.
    Full,
    /// The connection is closed.
    Closed,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Everything is sent, or somebody else is sending it.
    Done,
    /// The socket has just become full. The connection's owner must be told, so that it watches the write timeout.
    BecameBlocked,
}

/// Who owes the outbox a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody: it is empty.
    #[default]
    Clean,
    /// The thread whose push found it clean.
    Owed,
    /// The thread that is at it. `event`: meanwhile epoll has said that the socket is writable, so that a socket that
    /// was found full before that may take bytes now.
    Sending { event: bool },
    /// The owner, when the socket is writable.
    Blocked,
    /// Nobody any more.
    Closed,
}

#[derive(Debug, Default)]
struct Queue {
    outbox: Outbox,
    state: State,
    /// The way out is to be called though nothing may wait in the outbox.
    nudged: bool,
}

/// An outbox and the way out of it.
#[derive(Debug)]
pub struct Egress<T> {
    queue: Mutex<Queue>,
    transmit: Mutex<T>,
}

impl<T: Transmit> Egress<T> {
    /// An open and empty outbox that is emptied into `transmit`.
    #[must_use]
    pub fn new(transmit: T) -> Self {
        Self { queue: Mutex::default(), transmit: Mutex::new(transmit) }
    }

    /// Appends to the outbox what `append` appends; `append` returns whether there was room.
    #[inline(always)]
    pub fn push(&self, append: impl FnOnce(&mut Outbox) -> bool) -> Pushed {
        let mut queue = lock(&self.queue);
        if queue.state == State::Closed {
            return Pushed::Closed;
        }
        if !append(&mut queue.outbox) {
            return Pushed::Full;
        }
        if queue.state != State::Clean {
            return Pushed::Queued;
        }
        queue.state = State::Owed;
        Pushed::MustFlush
    }

    /// Has the way out called once more even if nothing waits, because it has something of its own to send.
    pub fn nudge(&self) -> Pushed {
        let mut queue = lock(&self.queue);
        if queue.state == State::Closed {
            return Pushed::Closed;
        }
        queue.nudged = true;
        if queue.state != State::Clean {
            return Pushed::Queued;
        }
        queue.state = State::Owed;
        Pushed::MustFlush
    }

    /// Sends what waits, unless another thread is at it or the socket is full.
    pub fn flush<D: DropSink>(&self, hand: &mut Hand<'_, T::Scratch, D>) -> Flushed {
        {
            let mut queue = lock(&self.queue);
            if queue.state != State::Owed {
                return Flushed::Done;
            }
            queue.state = State::Sending { event: false };
        }
        self.drain(hand)
    }

    /// Sends what waits, after the owner's epoll said that the socket is writable. Costs a lock when nothing does.
    pub fn flush_writable<D: DropSink>(&self, hand: &mut Hand<'_, T::Scratch, D>) -> Flushed {
        {
            let mut queue = lock(&self.queue);
            match &mut queue.state {
                State::Blocked => queue.state = State::Sending { event: false },
                State::Sending { event } => {
                    *event = true;
                    return Flushed::Done;
                }
                State::Clean | State::Owed | State::Closed => return Flushed::Done,
            }
        }
        self.drain(hand)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.queue).outbox.len()
    }

    /// Keys of which a watcher is owed a change.
    #[must_use]
    pub fn news(&self) -> usize {
        lock(&self.queue).outbox.news()
    }

    /// Whether the socket was full when last written to.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        lock(&self.queue).state == State::Blocked
    }

    /// Closes: what waits is dropped, pushes are refused, and `end` is given the way out for its last words.
    pub fn close<D: DropSink, R>(
        &self,
        hand: &mut Hand<'_, T::Scratch, D>,
        end: impl FnOnce(&mut T, &mut T::Scratch) -> R,
    ) -> R {
        {
            let mut queue = lock(&self.queue);
            queue.state = State::Closed;
            queue.outbox.drop_all(DropReason::Gone, hand.pool, hand.drops);
        }
        end(&mut lock(&self.transmit), hand.scratch)
    }

    /// Sends until nothing waits or the socket is full. The state is `Sending`, so nobody else does.
    fn drain<D: DropSink>(&self, hand: &mut Hand<'_, T::Scratch, D>) -> Flushed {
        let mut transmit = lock(&self.transmit);
        loop {
            let mut batch = self.take(hand);
            let sent = transmit.send(batch.as_mut(), hand.scratch);
            match (sent, batch) {
                (Sent::Blocked, batch) => {
                    if self.leave_to_owner(batch, hand) {
                        return Flushed::BecameBlocked;
                    }
                }
                (Sent::All, Some(batch)) => batch.recycle(hand.pool),
                (Sent::Failed, Some(batch)) => batch.drop_all(DropReason::WriteError, hand.pool, hand.drops),
                (Sent::All | Sent::Failed, None) => {
                    if self.finish() {
                        return Flushed::Done;
                    }
                }
            }
        }
    }

    fn take<D: DropSink>(&self, hand: &mut Hand<'_, T::Scratch, D>) -> Option<Batch> {
        let mut queue = lock(&self.queue);
        queue.nudged = false;
        queue.outbox.take(hand.now, hand.limits, hand.pool, hand.drops)
    }

    /// Ends sending unless something has come meanwhile. Returns whether it ended.
    fn finish(&self) -> bool {
        let mut queue = lock(&self.queue);
        if queue.state == State::Closed {
            return true;
        }
        if queue.outbox.is_empty() && !queue.nudged {
            queue.state = State::Clean;
        }
        queue.state == State::Clean
    }

    /// Puts back what was not sent, for the owner to send later; returns false where the socket became writable again.
    fn leave_to_owner<D: DropSink>(&self, batch: Option<Batch>, hand: &mut Hand<'_, T::Scratch, D>) -> bool {
        let mut queue = lock(&self.queue);
        if queue.state == State::Closed {
            if let Some(batch) = batch {
                batch.drop_all(DropReason::Gone, hand.pool, hand.drops);
            }
            return true;
        }
        if let Some(batch) = batch {
            queue.outbox.give_back(batch, hand.limits, hand.pool, hand.drops);
        }
        let again = queue.state == State::Sending { event: true };
        queue.state = if again { State::Sending { event: false } } else { State::Blocked };
        !again
    }
}
