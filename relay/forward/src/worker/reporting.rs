//! The answers of a worker to operators.

use super::Worker;
use crate::counters::ColdCount;
use crate::peer::ConnectionRef;
use crate::report::{ConnectionReport, ListCursor, ListPage, PAGE, ReportSink};

impl Worker<'_> {
    /// Answers with the page of a listing that begins at `token`.
    #[cold]
    pub(super) fn list_page(&mut self, token: usize, reply: ReportSink<ListPage>) {
        let (now, end) = (self.turn.now, self.connections.capacity());
        let tokens = token..end.min(token + PAGE);
        let next = if tokens.end < end {
            Some(ListCursor { worker: self.index, token: tokens.end })
        } else {
            let worker = self.index + 1;
            (worker < self.turn.shared.inboxes.len()).then_some(ListCursor { worker, token: 0 })
        };
        let connections: Vec<ConnectionReport> =
            tokens.filter_map(|token| Some(self.connections.get(token)?.report(now))).collect();
        self.turn.tally.add_cold(ColdCount::Listed, connections.len() as u64);
        reply.send(ListPage { connections, next });
    }

    /// Answers with a report on one connection, unless it has gone.
    #[cold]
    pub(super) fn inspect(&mut self, connection: ConnectionRef, reply: ReportSink<ConnectionReport>) {
        if self.owns(connection) {
            self.turn.tally.add_cold(ColdCount::Listed, 1);
            reply.send(self.connections[connection.token].report(self.turn.now));
        }
    }
}
