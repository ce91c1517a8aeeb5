//! Pings that the application asks for, to see whether a peer answers and how long that takes.

use std::collections::VecDeque;
use std::time::Duration;

use towpath_wire::disco::message::TxId;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::datagram::Received;

/// Pings that wait for an answer, and how long one is waited for.
const MOST: usize = 64;
const FORGOTTEN: Duration = Duration::from_secs(10);

/// A ping on its way.
#[derive(Clone, Copy, Debug)]
struct Echo {
    tx: TxId,
    peer: NodePublic,
    sent: Instant,
    /// The way by which the answer comes.
    way: Received,
}

/// The pings that wait for their answers.
#[derive(Debug, Default)]
pub(crate) struct Echoes(VecDeque<Echo>);

impl Echoes {
    pub(crate) fn note(&mut self, tx: TxId, peer: NodePublic, way: Received, now: Instant) {
        while self.0.front().is_some_and(|oldest| now.since(oldest.sent) >= FORGOTTEN) || self.0.len() >= MOST
        {
            self.0.pop_front();
        }
        self.0.push_back(Echo { tx, peer, sent: now, way });
    }

    /// The peer that answers, and how long it has taken. An answer counts once, and by the way of the ping.
    pub(crate) fn take(&mut self, tx: TxId, way: Received, now: Instant) -> Option<(NodePublic, Duration)> {
        let at = self.0.iter().position(|echo| echo.tx == tx && echo.way == way)?;
        let echo = self.0.remove(at)?;
        Some((echo.peer, now.since(echo.sent))).filter(|(_, took)| *took < FORGOTTEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_by_the_way_of_the_ping_and_in_time() {
        let at = |secs| Instant::from(Duration::from_secs(secs));
        let (peer, mut echoes) = (NodePublic::from_bytes([1; 32]), Echoes::default());
        let [here, there] = ["192.0.2.1:1", "192.0.2.1:2"]
            .map(|text| Received::Udp { remote: text.parse().expect("an address") });
        let tx = |byte| TxId([byte; 12]);
        (0..2).for_each(|byte| echoes.note(tx(byte), peer, here, at(1)));
        assert_eq!(echoes.take(tx(0), there, at(2)), None, "by another way");
        assert_eq!(echoes.take(tx(0), here, at(2)), Some((peer, Duration::from_secs(1))));
        assert_eq!(echoes.take(tx(0), here, at(2)), None, "again");
        assert_eq!(echoes.take(tx(1), here, at(11)), None, "too late");
        (0..200).for_each(|byte| echoes.note(tx(byte), peer, here, at(12)));
        assert_eq!(echoes.0.len(), MOST);
    }
}
