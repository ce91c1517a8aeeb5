//! An outbox that many threads fill and any of them empties, one at a time.
//!
//! The thread whose push finds the outbox clean owes it a flush, which also sends later pushes. A flush that meets
//! another flush leaves at once, because the other looks again before it ends. A flush whose socket is full leaves the
//! rest in the outbox, and from then on the thread that owns the connection owes the flush, when its epoll says that
//! the socket takes bytes again. A flush that other threads keep supplied ends after some rounds and is owed again by the
//! same thread, which first serves its other connections. So at any time at most one write is in flight for a connection, no flush waits for
//! another's write, and nothing is forgotten. The state of the flush is one word under the outbox's own lock:
//!
//! ```text
//!           push              flush               nothing left
//!   Clean ────────▶ Owed ────────────▶ Sending ────────────────▶ Clean
//!                    ▲                 │ ▲     │
//!                    └─────────────────┘ │     │ socket full
//!                    enough rounds       │     ▼
//!                        socket writable Blocked
//! ```

use std::fmt;
use std::sync::Arc;

use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use crate::outbox::{Batch, DropReason, DropSink, Limits, Outbox, OutboxAccount};
use crate::sync::{Mutex, lock};

/// How many times a flush takes what waits. While other threads push as fast as a flush sends, the flush would otherwise
/// have no end, and the connections of its thread would wait. One of them is the look that finds nothing.
const ROUNDS: usize = if cfg!(loom) { 2 } else { 5 };

/// The outbound side of a connection, into which an outbox is emptied.
///
/// Every method is called with the transmit lock held, so one thread at a time is inside. [`Egress::flush`] and
/// [`Egress::flush_writable`] call [`send`](Self::send) until nothing waits or it reports [`Sent::Blocked`]; after
/// [`Egress::close`] nothing is sent any more.
pub trait Transmit {
    /// Buffers of a thread that every transmission borrows, such as one to seal into.
    type Scratch;

    /// Sends what an earlier call had to keep and then as much of `batch` as goes without waiting. Called without a
    /// batch when nothing waits, and then sends what the outbound side itself owes the peer, if anything.
    ///
    /// `now` is the time of the caller's turn. Buffers come from `pool` and go back to it.
    fn send(
        &mut self,
        batch: Option<&mut Batch>,
        now: Instant,
        pool: &mut BufferPool,
        scratch: &mut Self::Scratch,
    ) -> Sent;
}

/// The caller's context of a flush.
pub struct FlushContext<'a, S, D> {
    /// The time of the caller's turn.
    pub now: Instant,
    /// The caller's pool of buffers.
    pub pool: &'a mut BufferPool,
    /// The account of dropped packets.
    pub drops: &'a mut D,
    /// The caller's buffers for the transmission.
    pub scratch: &'a mut S,
}

impl<S, D> fmt::Debug for FlushContext<'_, S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushContext").field("now", &self.now).finish_non_exhaustive()
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

/// The outcome of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// The outbox was clean: the caller owes a [`flush`](Egress::flush).
    MustFlush,
    /// A flush is owed already.
    Queued,
    /// There was no room for a control frame, or the backlog of a watcher is full.
    Full,
    /// The connection is closed.
    Closed,
}

/// The outcome of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flushed {
    /// Everything is sent, or another thread is sending it.
    Done,
    /// Other threads push as fast as this one sends. The caller must [`flush`](Egress::flush) again, after it has done
    /// its other work.
    Unfinished,
    /// The socket has just become full. The connection's owner must be told, so that it watches the write timeout.
    BecameBlocked,
}

/// The thread that owes the outbox a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No thread: the outbox is empty.
    #[default]
    Clean,
    /// The thread whose push found it clean.
    Owed,
    /// The thread that is flushing. `event`: meanwhile epoll has said that the socket is writable, so that a socket
    /// that was found full before that may take bytes now.
    Sending { event: bool },
    /// The owner, when the socket is writable.
    Blocked,
    /// No thread: the outbox is closed.
    Closed,
}

#[derive(Debug)]
struct Queue {
    outbox: Outbox,
    state: State,
    /// [`Transmit::send`] is to be called though nothing may wait in the outbox.
    nudged: bool,
}

/// An outbox and the outbound side that it is emptied into.
///
/// | method | caller | effect |
/// |---|---|---|
/// | [`push`](Self::push), [`nudge`](Self::nudge) | any thread | marks work; the caller flushes if told so |
/// | [`flush`](Self::flush) | the thread that was told [`Pushed::MustFlush`] | sends what waits |
/// | [`flush_writable`](Self::flush_writable) | the owner, when the socket is writable | sends what waits |
/// | [`with_transmit`](Self::with_transmit) | the owner | hands input to the outbound side |
/// | [`close`](Self::close) | the owner, once | drops what waits and refuses further pushes |
#[derive(Debug)]
pub struct Egress<T> {
    queue: Mutex<Queue>,
    transmit: Mutex<T>,
}

impl<T: Transmit> Egress<T> {
    /// An open and empty outbox with these limits that is emptied into `transmit`.
    #[must_use]
    pub fn new(transmit: T, limits: Arc<Limits>) -> Self {
        let queue = Queue { outbox: Outbox::new(limits), state: State::default(), nudged: false };
        Self { queue: Mutex::new(queue), transmit: Mutex::new(transmit) }
    }

    /// Appends a frame to the outbox with `append`, which returns whether there was room.
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

    /// Makes the next flush call [`Transmit::send`] even if nothing waits, because the outbound side itself owes the
    /// peer something.
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

    /// Sends what waits, unless another thread is sending or the socket is full.
    pub fn flush<D: DropSink>(&self, context: &mut FlushContext<'_, T::Scratch, D>) -> Flushed {
        {
            let mut queue = lock(&self.queue);
            if queue.state != State::Owed {
                return Flushed::Done;
            }
            queue.state = State::Sending { event: false };
        }
        self.drain(context)
    }

    /// Sends what waits, after the owner's epoll said that the socket is writable. Costs a lock when nothing does.
    pub fn flush_writable<D: DropSink>(&self, context: &mut FlushContext<'_, T::Scratch, D>) -> Flushed {
        {
            let mut queue = lock(&self.queue);
            match &mut queue.state {
                State::Blocked => {
                    queue.state = State::Sending { event: false };
                    queue.outbox.set_blocked(false);
                }
                State::Sending { event } => {
                    *event = true;
                    return Flushed::Done;
                }
                State::Clean | State::Owed | State::Closed => return Flushed::Done,
            }
        }
        self.drain(context)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.queue).outbox.len()
    }

    /// Whether so much waits that senders should be held back, see [`Outbox::is_congested`].
    #[must_use]
    pub fn is_congested(&self) -> bool {
        lock(&self.queue).outbox.is_congested()
    }

    /// Drops what has waited too long, which nothing else does while the socket is full. Returns when to call this again.
    pub fn expire<D: DropSink>(&self, context: &mut FlushContext<'_, T::Scratch, D>) -> Instant {
        let outbox = &mut lock(&self.queue).outbox;
        outbox.expire(context.now, context.pool, context.drops);
        outbox.next_expiry(context.now)
    }

    /// Whether packets wait that a thread is about to send. A control frame that is pushed now would overtake them.
    #[must_use]
    pub fn is_about_to_send_packets(&self) -> bool {
        let queue = lock(&self.queue);
        matches!(queue.state, State::Owed | State::Sending { .. }) && queue.outbox.has_packets()
    }

    /// Keys of which a watcher is owed a change.
    #[must_use]
    pub fn backlog(&self) -> usize {
        lock(&self.queue).outbox.backlog()
    }

    /// Adds a packet to the account that was dropped before it came to an outbox, because its destination is unknown.
    pub fn note_dropped(&self, reason: DropReason) {
        lock(&self.queue).outbox.note_dropped(reason);
    }

    /// What has gone through the outbox, and what waits in it.
    #[must_use]
    pub fn account(&self) -> OutboxAccount {
        lock(&self.queue).outbox.account()
    }

    /// Whether the socket was full when last written to.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        lock(&self.queue).state == State::Blocked
    }

    /// Gives the owner of the connection access to the outbound side, for input that concerns it. It waits for a
    /// transmission that another thread has in flight, which is a write that does not block. What the outbound side
    /// owes the peer afterwards is sent after a [`nudge`](Self::nudge).
    pub fn with_transmit<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut lock(&self.transmit))
    }

    /// Closes the egress: drops what waits, refuses pushes, and calls `end` to send the outbound side's closing
    /// messages.
    pub fn close<D: DropSink, R>(
        &self,
        context: &mut FlushContext<'_, T::Scratch, D>,
        end: impl FnOnce(&mut T, &mut FlushContext<'_, T::Scratch, D>) -> R,
    ) -> R {
        {
            let mut queue = lock(&self.queue);
            queue.state = State::Closed;
            queue.outbox.drop_all(DropReason::Gone, context.pool, context.drops);
        }
        end(&mut lock(&self.transmit), context)
    }

    /// Sends until nothing waits, the socket is full, or [`ROUNDS`] have been sent. The state is `Sending`, so no other
    /// thread sends.
    fn drain<D: DropSink>(&self, context: &mut FlushContext<'_, T::Scratch, D>) -> Flushed {
        let mut transmit = lock(&self.transmit);
        for _ in 0..ROUNDS {
            let mut batch = self.take(context);
            let sent = transmit.send(batch.as_mut(), context.now, context.pool, context.scratch);
            match (sent, batch) {
                (Sent::Blocked, batch) => {
                    if self.leave_to_owner(batch, context) {
                        return Flushed::BecameBlocked;
                    }
                }
                (Sent::All, Some(batch)) => batch.recycle(context.pool),
                (Sent::Failed, Some(batch)) => {
                    lock(&self.queue).outbox.note_write_error(&batch);
                    batch.drop_all(DropReason::WriteError, context.pool, context.drops);
                }
                (Sent::All | Sent::Failed, None) => {
                    if self.finish() {
                        return Flushed::Done;
                    }
                }
            }
        }
        self.put_off()
    }

    fn take<D: DropSink>(&self, context: &mut FlushContext<'_, T::Scratch, D>) -> Option<Batch> {
        let mut queue = lock(&self.queue);
        queue.nudged = false;
        queue.outbox.take(context.now, context.pool, context.drops)
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

    /// Leaves the rest to another flush of the same thread.
    fn put_off(&self) -> Flushed {
        let mut queue = lock(&self.queue);
        if queue.state == State::Closed {
            return Flushed::Done;
        }
        queue.state = State::Owed;
        Flushed::Unfinished
    }

    /// Puts back what was not sent, for the owner to send later; returns false where the socket became writable again.
    fn leave_to_owner<D: DropSink>(
        &self,
        batch: Option<Batch>,
        context: &mut FlushContext<'_, T::Scratch, D>,
    ) -> bool {
        let mut queue = lock(&self.queue);
        if queue.state == State::Closed {
            if let Some(batch) = batch {
                batch.drop_all(DropReason::Gone, context.pool, context.drops);
            }
            return true;
        }
        let again = queue.state == State::Sending { event: true };
        queue.outbox.set_blocked(!again);
        if let Some(batch) = batch {
            queue.outbox.give_back(batch, context.pool, context.drops);
        }
        queue.state = if again { State::Sending { event: false } } else { State::Blocked };
        !again
    }
}
