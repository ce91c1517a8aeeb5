//! The traffic: packets with numbers from the first peer to the second and back, and what becomes of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use towpath::{Endpoint, NodePublic, Packets, PathClass};

use super::timeline::Timeline;

/// The time between two packets.
pub(super) const EACH: Duration = Duration::from_millis(5);
/// Bytes of a packet.
const LEN: usize = 1200;

/// Packets that go to the second peer and back.
pub(super) struct Traffic {
    record: Arc<Mutex<Record>>,
    sending: JoinSet<()>,
    receiving: JoinSet<()>,
}

/// What has become of the packets.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// When each was sent, and whether it has come back.
    sent: Vec<(Instant, bool)>,
    pub(super) back: usize,
    pub(super) doubled: usize,
    /// The round trip of the last one, and when it came back.
    pub(super) last: Option<(Duration, Instant)>,
    /// The longest time without one that came back, since this was asked last.
    longest_gap: Duration,
}

impl Record {
    pub(super) const fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Whether all have come back.
    const fn is_complete(&self) -> bool {
        self.back == self.sent.len()
    }

    fn note_back(&mut self, number: usize) {
        let now = Instant::now();
        let Some((sent, is_back)) = self.sent.get_mut(number) else { return };
        if std::mem::replace(is_back, true) {
            self.doubled += 1;
            return;
        }
        self.back += 1;
        let gap = self.last.map_or(Duration::ZERO, |(_, before)| now - before);
        self.longest_gap = self.longest_gap.max(gap);
        self.last = Some((now - *sent, now));
    }

    /// The longest time without a packet that came back, since this was asked last.
    pub(super) fn take_longest_gap(&mut self) -> Duration {
        std::mem::take(&mut self.longest_gap)
    }
}

impl Traffic {
    /// Starts to send.
    pub(super) fn start(endpoints: [&Endpoint; 2], keys: [NodePublic; 2], timeline: &Timeline) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let (mut sending, mut receiving) = (JoinSet::new(), JoinSet::new());
        sending.spawn(send(endpoints[0].clone(), keys[1], record.clone()));
        receiving.spawn(answer(endpoints[1].clone(), timeline.clone()));
        receiving.spawn(take_back(endpoints[0].clone(), record.clone(), timeline.clone()));
        Self { record, sending, receiving }
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    /// Stops to send, and waits for what is on its way.
    pub(super) async fn stop(&mut self, longest: Duration) {
        self.sending.shutdown().await;
        let deadline = Instant::now() + longest;
        while Instant::now() < deadline && !self.record().is_complete() {
            tokio::time::sleep(EACH).await;
        }
        self.receiving.shutdown().await;
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send(endpoint: Endpoint, to: NodePublic, record: Arc<Mutex<Record>>) {
    let mut ticks = interval(EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let number = {
            let mut record = lock(&record);
            record.sent.push((Instant::now(), false));
            record.sent.len() - 1
        };
        let mut packet = vec![4, 0, 0, 0];
        packet.extend_from_slice(&(number as u64).to_be_bytes());
        packet.resize(LEN, 0);
        if endpoint.send(&to, &[packet]).await.is_err() {
            return;
        }
    }
}

/// Sends each packet back to its sender.
async fn answer(endpoint: Endpoint, timeline: Timeline) {
    let mut packets = Packets::new();
    while endpoint.recv(&mut packets).await.is_ok() {
        for packet in packets.iter() {
            match packet.via {
                PathClass::Relayed => {
                    timeline
                        .tell_once("first byte", || "bob receives the first packet, over relay 1".to_owned());
                }
                _ => timeline.tell_once("first direct packet", || {
                    "bob receives the first packet that came directly".to_owned()
                }),
            }
            let _ = endpoint.send(&packet.peer, &[packet.bytes]).await;
        }
    }
}

async fn take_back(endpoint: Endpoint, record: Arc<Mutex<Record>>, timeline: Timeline) {
    let mut packets = Packets::new();
    while endpoint.recv(&mut packets).await.is_ok() {
        let mut record = lock(&record);
        for packet in packets.iter() {
            let number =
                packet.bytes.get(4..12).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
            if let Some(number) = number.and_then(|number| usize::try_from(number).ok()) {
                record.note_back(number);
            }
        }
        if let Some((took, _)) = record.last {
            timeline.tell_once("first answer", || {
                format!("alice has the first answer, {} after the packet", millis(took))
            });
        }
    }
}

/// A duration in milliseconds with one decimal.
pub(super) fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
