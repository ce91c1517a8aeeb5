//! Flows of the application: what was sent, and what came of it.

use std::time::Duration;

use towpath_wire::time::Instant;

use crate::id::{FlowId, HostId};

/// Packets that the application of one host sends to another at a steady pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The sender.
    pub from: HostId,
    /// The receiver.
    pub to: HostId,
    /// Bytes of a packet; at least [`FLOW_MIN_LEN`].
    pub len: usize,
    /// When the first packet is sent.
    pub start: Instant,
    /// The time between two packets.
    pub interval: Duration,
    /// How many packets are sent.
    pub count: u64,
}

/// The bytes by which the simulator knows a packet of a flow: the four of a WireGuard data message, then flow, sequence
/// number and time.
pub const FLOW_MIN_LEN: usize = 32;

/// What a packet of a flow begins with, as a WireGuard data message does.
const PREFIX: [u8; 4] = [4, 0, 0, 0];

/// The way by which a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// On the UDP socket.
    Udp,
    /// Over a relay.
    Relay,
}

/// A packet that the application was handed for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number in the flow.
    pub seq: u64,
    /// When it was sent.
    pub sent: Instant,
    /// When it was delivered.
    pub at: Instant,
    /// The way by which it came.
    pub via: Via,
}

impl Delivery {
    /// How long the packet was on its way.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        self.at.since(self.sent)
    }
}

/// What came of a flow so far.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Packets that the application sent.
    pub sent: u64,
    /// Of these, packets that the machine gave no way for.
    pub unroutable: u64,
    /// Of these, packets that were sent by both ways at once.
    pub both: u64,
    /// Packets that the application was handed more than once, counted each time.
    pub doubles: u64,
    /// Copies that the machine kept from the application, because it had delivered the packet already.
    pub suppressed: u64,
    /// Copies that the machine kept from the application, although it had not delivered the packet.
    pub swallowed: u64,
    /// What was delivered, in the order of delivery.
    pub deliveries: Vec<Delivery>,
    seen: Vec<u64>,
}

impl Account {
    /// Packets that were not delivered so far, those on their way included.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.sent - self.deliveries.len() as u64
    }

    /// How many packets were delivered that came by this way.
    #[must_use]
    pub fn delivered(&self, via: Via) -> usize {
        self.deliveries.iter().filter(|delivery| delivery.via == via).count()
    }

    /// The first delivery.
    #[must_use]
    pub fn first(&self) -> Option<&Delivery> {
        self.deliveries.first()
    }

    /// The first delivery of a packet that came by this way.
    #[must_use]
    pub fn first_by(&self, via: Via) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.via == via)
    }

    /// The longest time without a delivery between two instants, which count as deliveries.
    #[must_use]
    pub fn largest_gap(&self, from: Instant, to: Instant) -> Duration {
        let within = self.deliveries.iter().map(|delivery| delivery.at);
        let mut last = from;
        let mut largest = Duration::ZERO;
        for at in within.filter(|at| (from..=to).contains(at)).chain([to]) {
            largest = largest.max(at.since(last));
            last = at;
        }
        largest
    }

    /// The largest delay of a delivered packet.
    #[must_use]
    pub fn largest_delay(&self) -> Option<Duration> {
        self.deliveries.iter().map(Delivery::delay).max()
    }

    pub(crate) fn has(&self, seq: u64) -> bool {
        let (word, bit) = place(seq);
        self.seen.get(word).is_some_and(|bits| bits & bit != 0)
    }

    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        let (word, bit) = place(delivery.seq);
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        self.seen[word] |= bit;
        self.deliveries.push(delivery);
    }
}

/// The word and the bit of a sequence number.
fn place(seq: u64) -> (usize, u64) {
    (usize::try_from(seq / 64).unwrap_or(0), 1 << (seq % 64))
}

/// What a packet of a flow says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) flow: FlowId,
    pub(crate) seq: u64,
    pub(crate) sent: Instant,
}

impl Label {
    pub(crate) fn write(self, packet: &mut Vec<u8>, len: usize) {
        packet.clear();
        packet.extend_from_slice(&PREFIX);
        packet.extend_from_slice(&self.flow.0.to_le_bytes());
        packet.extend_from_slice(&self.seq.to_le_bytes());
        packet.extend_from_slice(&self.sent.as_nanos().to_le_bytes());
        packet.resize(len.max(FLOW_MIN_LEN), 0);
    }

    /// The label of a packet, if the packet belongs to a flow.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        if packet.len() < FLOW_MIN_LEN {
            return None;
        }
        let rest = packet.strip_prefix(&PREFIX)?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (sent, _) = rest.split_first_chunk()?;
        Some(Self {
            flow: FlowId(u32::from_le_bytes(*flow)),
            seq: u64::from_le_bytes(*seq),
            sent: Instant::from_nanos(u64::from_le_bytes(*sent)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn gaps_count_the_ends() {
        let mut account = Account { sent: 3, ..Account::default() };
        for (seq, millis) in [(0, 10), (1, 20), (2, 70)] {
            account.deliver(Delivery { seq, sent: at(5), at: at(millis), via: Via::Udp });
        }
        assert_eq!(account.largest_gap(at(0), at(100)), Duration::from_millis(50));
        assert_eq!(account.largest_gap(at(0), at(200)), Duration::from_millis(130));
        assert_eq!(account.largest_gap(at(60), at(75)), Duration::from_millis(10));
        assert_eq!(account.largest_delay(), Some(Duration::from_millis(65)));
        assert_eq!(account.missing(), 0);
        assert!(account.has(2) && !account.has(3) && !account.has(700));
    }

    #[test]
    fn labels_are_read_as_written() {
        let label = Label { flow: FlowId(7), seq: 1 << 40, sent: at(3) };
        let mut packet = Vec::new();
        label.write(&mut packet, 5);
        assert_eq!((packet.len(), Label::read(&packet)), (FLOW_MIN_LEN, Some(label)));
        packet[0] = 1;
        assert_eq!(Label::read(&packet), None);
    }
}
