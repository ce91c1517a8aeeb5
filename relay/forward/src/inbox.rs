//! The inbox of a worker: requests of other threads.

use std::io;
use std::sync::Mutex;

use mio::{Poll, Token, Waker};
use towpath_relay_proto::session::Close;
use towpath_wire::sync::lock;

use crate::arrival::{NewClient, NewLink};
use crate::peer::ConnectionRef;
use crate::report::{ConnectionReport, ListPage, ReportSink};

/// The token of the inbox in its worker's epoll.
pub(crate) const WAKE: Token = Token(usize::MAX);

/// A request of another thread to a worker.
#[derive(Debug)]
pub(crate) enum WorkerMessage {
    /// Read this client from now on.
    Attach(Box<NewClient>),
    /// Read this link from now on.
    AttachLink(Box<NewLink>),
    /// Handle this request on a connection that the worker owns.
    Owned(ConnectionRef, OwnerRequest),
    /// List the connections from this token on, one page of them.
    List(usize, ReportSink<ListPage>),
    /// Report on a connection that the worker owns.
    Inspect(ConnectionRef, ReportSink<ConnectionReport>),
    /// Close everything and end.
    Stop,
}

/// A request to the owner of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OwnerRequest {
    /// Watch its write timeout: its socket was found full.
    WatchWriteTimeout,
    /// Close it.
    Close(Close),
}

/// The messages that a worker has not taken yet.
#[derive(Debug)]
pub(crate) struct WorkerInbox {
    messages: Mutex<Vec<WorkerMessage>>,
    waker: Waker,
}

impl WorkerInbox {
    pub(crate) fn new(poll: &Poll) -> io::Result<Self> {
        Ok(Self { messages: Mutex::default(), waker: Waker::new(poll.registry(), WAKE)? })
    }

    pub(crate) fn send(&self, message: WorkerMessage) {
        let mut messages = lock(&self.messages);
        messages.push(message);
        if messages.len() == 1 {
            // Waking fails only while the counter of the eventfd is full, and then the worker is awake.
            let _ = self.waker.wake();
        }
    }

    pub(crate) fn take(&self) -> Vec<WorkerMessage> {
        std::mem::take(&mut lock(&self.messages))
    }
}
