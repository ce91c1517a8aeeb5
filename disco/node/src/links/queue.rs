//! What waits for a relay: disco packets first, then the application's, in bounds.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use towpath_wire::key::NodePublic;

/// Packets of the application that wait, in bytes. A tunnelled TCP learns more from a loss than from a queue that is older than this
/// at a few MiB/s.
const MOST_DATA: usize = 512 << 10;
/// Disco packets that wait.
const MOST_DISCO: usize = 256;
/// What is taken at once, in bytes: four TLS records.
const TAKEN: usize = 64 << 10;

/// A packet with its receiver.
pub(super) type Addressed = (NodePublic, Vec<u8>);

/// What waits for a relay.
#[derive(Debug, Default)]
pub(super) struct LinkQueue {
    state: Mutex<Waiting>,
    /// Something waits.
    filled: Notify,
    /// There is room.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    disco: VecDeque<Addressed>,
    data: VecDeque<Addressed>,
    data_bytes: usize,
    /// Whether a ping to the relay is owed. One answer says as much as many, however long the relay could not be asked.
    owes_ping: bool,
}

/// What is to be sent now.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) packets: Vec<Addressed>,
    pub(super) has_ping: bool,
}

impl LinkQueue {
    /// Adds a disco packet. Returns how many are lost for it.
    pub(super) fn push_disco(&self, peer: NodePublic, packet: Vec<u8>) -> usize {
        let mut waiting = self.lock();
        waiting.disco.push_back((peer, packet));
        let lost = waiting.disco.len().saturating_sub(MOST_DISCO);
        waiting.disco.drain(..lost);
        self.filled.notify_one();
        lost
    }

    /// Adds packets of the application. Returns how many of the oldest are lost for them.
    pub(super) fn push_data<'a>(&self, peer: &NodePublic, packets: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut waiting = self.lock();
        let mut lost = 0;
        for packet in packets {
            waiting.data_bytes += packet.len();
            waiting.data.push_back((*peer, packet.to_vec()));
            while waiting.data_bytes > MOST_DATA
                && let Some((_, oldest)) = waiting.data.pop_front()
            {
                waiting.data_bytes -= oldest.len();
                lost += 1;
            }
        }
        self.filled.notify_one();
        lost
    }

    /// Adds copies of packets that go directly as well, as far as there is room: none makes room for a copy. Returns how many are left
    /// out.
    pub(super) fn push_copies<'a>(
        &self,
        peer: &NodePublic,
        packets: impl Iterator<Item = &'a [u8]>,
    ) -> usize {
        let mut waiting = self.lock();
        let mut left_out = 0;
        for packet in packets {
            if waiting.data_bytes + packet.len() > MOST_DATA {
                left_out += 1;
                continue;
            }
            waiting.data_bytes += packet.len();
            waiting.data.push_back((*peer, packet.to_vec()));
        }
        self.filled.notify_one();
        left_out
    }

    pub(super) fn push_ping(&self) {
        self.lock().owes_ping = true;
        self.filled.notify_one();
    }

    /// Whether something waits.
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.disco.is_empty() && waiting.data.is_empty()
    }

    /// Waits until half of the room for packets of the application is free.
    pub(super) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            if self.lock().data_bytes <= MOST_DATA / 2 {
                return;
            }
            drained.await;
        }
    }

    /// Waits until something waits.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Takes what waits, or waits for it.
    pub(super) async fn take(&self) -> Taken {
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn try_take(&self) -> Option<Taken> {
        let mut waiting = self.lock();
        let mut taken = Taken {
            packets: waiting.disco.drain(..).collect(),
            has_ping: std::mem::take(&mut waiting.owes_ping),
        };
        let mut bytes = 0;
        while bytes < TAKEN
            && let Some((peer, packet)) = waiting.data.pop_front()
        {
            bytes += packet.len();
            taken.packets.push((peer, packet));
        }
        waiting.data_bytes -= bytes;
        if bytes > 0 && waiting.data_bytes <= MOST_DATA / 2 {
            self.drained.notify_waiters();
        }
        (!taken.packets.is_empty() || taken.has_ping).then_some(taken)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_packets_make_room_and_disco_goes_first() {
        let queue = LinkQueue::default();
        let peer = NodePublic::from_bytes([7; 32]);
        let packets: Vec<_> =
            (0..600_u32).map(|number| [&number.to_be_bytes()[..], &[0; 1020]].concat()).collect();
        assert_eq!(queue.push_data(&peer, packets.iter().map(|packet| &packet[..])), 600 - MOST_DATA / 1024);
        for number in 0..300_u32 {
            let lost = queue.push_disco(peer, number.to_be_bytes().to_vec());
            assert_eq!(lost, usize::from(number as usize >= MOST_DISCO));
        }
        let copies = [&[7; 1024][..], &[7]];
        assert_eq!(queue.push_copies(&peer, copies.into_iter()), 2, "what waits has no copy on another way");
        (0..9).for_each(|_| queue.push_ping());
        let taken = queue.try_take().expect("much waits");
        assert!(taken.has_ping, "one for all that were asked for");
        let numbers: Vec<_> = taken
            .packets
            .iter()
            .map(|(_, packet)| u32::from_be_bytes(*packet.first_chunk().expect("a number")))
            .collect();
        let expected: Vec<_> = (44..300).chain(88..88 + 64).collect();
        assert_eq!(numbers, expected);
        while queue.try_take().is_some() {}
        assert!(queue.is_empty());
    }
}
