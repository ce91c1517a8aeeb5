//! Packets that wait for the application.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::packets::{Packets, Run};

/// The packets that wait, in bytes and in number. An application that is slower loses the newest, as with a full socket buffer.
const MOST_BYTES: usize = 8 << 20;
const MOST_PACKETS: usize = 32_768;

/// Packets that wait for the application.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    packets: Mutex<Packets>,
    /// Looked at by each call that sends, which the packets must not hold up.
    is_closed: AtomicBool,
    come: Notify,
    ended: Notify,
}

/// Packets to be put in, together.
pub(crate) struct Delivery<'a> {
    inbox: &'a Inbox,
    waiting: MutexGuard<'a, Packets>,
    has_come: bool,
}

impl Inbox {
    /// Begins to put packets in.
    pub(crate) fn deliver(&self) -> Delivery<'_> {
        Delivery { inbox: self, waiting: self.lock(), has_come: false }
    }

    /// Waits for packets, and changes them for those in `taken`, which is empty. Returns whether there are any: none means that no
    /// more will come.
    pub(crate) async fn take(&self, taken: &mut Packets) -> bool {
        loop {
            let come = self.come.notified();
            {
                let mut waiting = self.lock();
                if !waiting.is_empty() {
                    std::mem::swap(&mut *waiting, taken);
                    return true;
                }
                if self.is_closed() {
                    return false;
                }
            }
            come.await;
        }
    }

    /// Lets no more packets in.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.come.notify_waiters();
        self.ended.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Waits until no more packets are let in.
    pub(crate) async fn closed(&self) {
        let ended = self.ended.notified();
        if !self.is_closed() {
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Packets> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery<'_> {
    /// Puts packets in. Returns for how many there was no room.
    pub(crate) fn push(&mut self, run: &Run<'_>) -> usize {
        let (mut lost, is_closed) = (0, self.inbox.is_closed());
        for packet in run.packets() {
            let waiting = &mut self.waiting;
            let is_full = waiting.len() >= MOST_PACKETS || waiting.bytes() + packet.len() > MOST_BYTES;
            if is_closed || is_full {
                lost += 1;
                continue;
            }
            waiting.push(run.peer, run.via, packet);
            self.has_come = true;
        }
        lost
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        if self.has_come {
            self.inbox.come.notify_one();
        }
    }
}
