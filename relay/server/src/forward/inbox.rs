//! Where a worker is told things by other threads.

use std::io;
use std::sync::Mutex;

use mio::{Poll, Token, Waker};
use towpath_relay_proto::session::Close;

use super::connection::Arrival;
use super::link::LinkArrival;

/// What epoll calls the inbox.
pub(super) const WAKE: Token = Token(usize::MAX);

/// What a worker is told by other threads.
#[derive(Debug)]
pub(crate) enum Message {
    /// Read this connection from now on.
    Attach(Box<Arrival>),
    /// The same with a connection that this relay has dialled.
    AttachLink(Box<LinkArrival>),
    /// Another worker found the socket of this connection full: watch its write timeout.
    Blocked { token: usize, id: u64 },
    /// Close this connection.
    Close { token: usize, id: u64, reason: Close },
    /// Close everything and end.
    Stop,
}

/// Where a worker is told things.
#[derive(Debug)]
pub(crate) struct Inbox {
    messages: Mutex<Vec<Message>>,
    waker: Waker,
}

impl Inbox {
    pub(super) fn new(poll: &Poll) -> io::Result<Self> {
        Ok(Self { messages: Mutex::default(), waker: Waker::new(poll.registry(), WAKE)? })
    }

    pub(super) fn send(&self, message: Message) {
        let mut messages = self.messages.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        messages.push(message);
        if messages.len() == 1 {
            // Fails only when the counter of the eventfd is full, and then the worker is awake.
            let _ = self.waker.wake();
        }
    }

    pub(super) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.messages.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}
